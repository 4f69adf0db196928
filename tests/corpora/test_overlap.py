"""The leak check: what counts as the same dialogue, and which splits must not share any."""

from __future__ import annotations

import numpy as np
import pytest

from dlm.corpora.overlap import Overlap, also_in, overlaps
from dlm.dialogue.schema import Dialogue, Message, content_hash, to_json


def contents(**splits: list[int]) -> dict[str, np.ndarray]:
    return {split: np.array(hashes, np.uint64) for split, hashes in splits.items()}


def test_held_out_splits_are_compared_with_those_before_them():
    """No leak: train with nothing, validation with train, each test with both, each dialogue once.

    2 stands twice in `test`, and both times it leaks; what two tests share is no leak.
    """
    corpus = contents(
        train=[1, 2, 3, 3], validation=[3, 4, 5], test=[2, 2, 4, 9], test_oov=[9, 5, 4]
    )
    assert also_in(corpus) == {
        "train": {},
        "validation": {"also_in_train": 1},
        "test": {"also_in_train": 2, "also_in_validation": 1},
        "test_oov": {"also_in_validation": 2},
    }


def test_parts_are_compared_with_each_other():
    """No leak: what one part tests must not stand in another's train, nor in its validation."""
    parts = {
        "a": contents(train=[1, 2], validation=[7, 3]),
        "b": contents(train=[3, 4], validation=[2, 1, 8], test=[7, 5]),
    }
    assert overlaps(parts) == [
        Overlap(("a", "validation"), ("b", "train"), 1, 2),
        Overlap(("b", "validation"), ("a", "train"), 2, 3),
        Overlap(("b", "test"), ("a", "validation"), 1, 2),
    ]


TOOL = {"name": "find", "parameters": {"type": "object"}}
SAID = (Message("user", "hi"), Message("assistant", "ho"))


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Dialogue("z", SAID, task="t", meta={"a": 1}), True),
        (Dialogue("a", (SAID[0], Message("assistant", "Ho"))), False),
        (Dialogue("a", (SAID[0], Message("assistant", "ho", "act"))), False),
        (Dialogue("a", SAID[::-1]), False),
        (Dialogue("a", SAID, tools=(TOOL,)), False),
        (Dialogue("a", SAID, candidates=("ho", "hum"), answer=0), False),
    ],
)
def test_content_is_what_is_said(other, same):
    """Messages, channels and tools count; id, task and meta do not."""
    first = content_hash(to_json(Dialogue("a", SAID)))
    assert 0 <= first < 2**64
    assert (content_hash(to_json(other)) == first) is same
