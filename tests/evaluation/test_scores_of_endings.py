"""Figures of endings by hand, and log probabilities of pieces whatever batch they are in."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from dlm.core.mean import Mean
from dlm.data.pipeline import Batches
from dlm.data.store import build_or_load
from dlm.dialogue.endings import ENDINGS
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.schema import Dialogue, Message
from dlm.evaluation.endings import ending_means, make_log_prob_step, piece_log_probs


def pieces_of(*groups: tuple[str, list[str]], lengths=None) -> SimpleNamespace:
    """Groups of (task, endings), every piece of one learned token, or of so many."""
    endings = [ENDINGS.index(ending) for _, members in groups for ending in members]
    lengths = np.array(lengths or [1] * len(endings), np.int32)
    tasks = sorted({task for task, _ in groups})
    return SimpleNamespace(
        lengths=lengths,
        ending=np.array(endings),
        task_names=tasks,
        task_id=np.array([tasks.index(task) for task, members in groups for _ in members]),
        unit_starts=np.cumsum([0, *(len(members) for _, members in groups)]),
        arrays={"loss_weights": np.ones(lengths.sum(), np.float32)},
    )


PAIR, CHOICE = ["chosen", "rejected"], ["wrong", "right", "wrong"]


def test_pairs_by_hand():
    pieces = pieces_of(("a", PAIR), ("b", PAIR[::-1]), ("b", PAIR))
    means = ending_means(pieces, np.array([-2.0, -5.0, -1.0, -4.0, -7.0, -7.0]))
    assert means == {
        "preference_accuracy": Mean(1.5, 3),  # the last is a tie
        "margin": Mean(3.0 - 3.0 + 0.0, 3),
        "task:a/preference_accuracy": Mean(1, 1),
        "task:a/margin": Mean(3, 1),
        "task:b/preference_accuracy": Mean(0.5, 2),
        "task:b/margin": Mean(-3, 2),
    }


def test_choices_by_hand():
    """Summed, the short wrong one wins; per token the right one does."""
    pieces = pieces_of(("", CHOICE), lengths=[1, 4, 3])
    means = ending_means(pieces, np.array([-3.0, -4.0, -9.0]))
    assert means == {"choice_accuracy": Mean(0, 1), "choice_accuracy_per_token": Mean(1, 1)}


def test_a_model_that_knows_nothing_is_at_chance():
    means = ending_means(pieces_of(("", CHOICE), ("", PAIR)), np.full(5, -3.0))
    assert means["choice_accuracy"].value == pytest.approx(1 / 3)
    assert means["preference_accuracy"].value == 0.5


def test_a_score_that_is_no_number_never_wins():
    means = ending_means(pieces_of(("", CHOICE)), np.array([-1.0, np.nan, -2.0]))
    assert means["choice_accuracy"].value == 0


class Bigram:
    """A stand-in for a model: the hidden state of a position is the embedding of its token."""

    def hidden(self, params, tokens, positions, segment_ids):
        return params["embedding"][tokens]

    def head_kernel(self, params):
        return params["head"]


def test_log_probs_are_those_of_each_piece_alone(template, tmp_path):
    source = [
        Dialogue(
            f"d{i}",
            (Message("user", "a table " * (1 + i % 4)),),
            chosen=(Message("assistant", "here " * (1 + i % 3)),),
            rejected=(Message("assistant", "no"),),
        )
        for i in range(9)
    ]
    pieces = build_or_load(
        source, template, PolicyConfig(), 64, name="v", data_digest="d", cache_dir=tmp_path,
        groups=True,
    )  # fmt: skip
    random = np.random.default_rng(0)
    shape = (template.tokenizer.vocab_size, 6)
    params = {name: random.normal(size=shape).astype("f4") for name in ("embedding", "head")}
    logits = (params["embedding"] @ params["head"].T).astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = []
    for i in range(len(pieces)):
        piece = pieces.piece(i)
        expected.append(log_p[piece.tokens, piece.targets] @ piece.loss_weights)
    step = make_log_prob_step(Bigram(), chunk=5)
    for pack, rows in [(True, 2), (False, 3)]:
        batches = Batches(pieces, rows, 64, pack=pack, shuffle=False)
        np.testing.assert_allclose(piece_log_probs(step, params, batches), expected, rtol=1e-5)
