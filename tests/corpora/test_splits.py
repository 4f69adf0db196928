"""Splits by hash: the same text on the same side, eight to one to one."""

from __future__ import annotations

from collections import Counter

import pytest

from dlm.corpora.splits import share_of, side, split_of
from dlm.dialogue.schema import Dialogue, Message


def test_a_text_falls_on_one_side():
    assert [split_of(f"question {n}") for n in range(9)] == [
        split_of(f"question {n}") for n in range(9)
    ]
    assert share_of("a") != share_of("b") != share_of("b", seed=1)
    assert 0 <= share_of("half a pair: \ud800") < 1


def test_sides_are_eight_to_one_to_one():
    """Of 20,000 texts, each share within four standard deviations (0.0028 and 0.0021)."""
    counts = Counter(split_of(f"question {n}", seed=3) for n in range(20_000))
    assert abs(counts["train"] / 20_000 - 0.8) < 4 * 0.0028
    for split in ("validation", "test"):
        assert abs(counts[split] / 20_000 - 0.1) < 4 * 0.0021


def test_another_seed_is_another_split():
    moved = sum(split_of(f"{n}", 0) != split_of(f"{n}", 1) for n in range(1000))
    assert moved > 200


def asked(*texts: str) -> list[Dialogue]:
    return [
        Dialogue(str(n), (Message("user", text), Message("assistant", str(n), "intent")))
        for n, text in enumerate(texts)
    ]


@pytest.mark.parametrize("share", [0.3, 1e-9])
def test_the_message_says_which_side(share):
    """Every dialogue is on one side, the same words on the same; no side is without any."""
    texts = [f"text {n % 20}" for n in range(40)]
    held, kept = (list(side(lambda: asked(*texts), share, held_out)) for held_out in (True, False))
    assert sorted(int(d.id) for d in held + kept) == list(range(40))
    found = [{d.messages[0].content for d in dialogues} for dialogues in (held, kept)]
    assert found[0].isdisjoint(found[1])
    wanted = {text for text in texts if share_of(text) <= share} or {min(texts, key=share_of)}
    assert found[0] == wanted
