"""Teacher-forced scores: by hand, and against a plain count over random splits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm.core.mean import Mean
from dlm.dialogue.builtin_template import BuiltinTemplate
from dlm.dialogue.encoding import CHANNEL_NAMES, Encoded, fit
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.tokenizer import TokenizerConfig, train
from dlm.evaluation.scores import Scores, figures, perplexity


def piece(spans: list[tuple[str, int, int]], weight: float = 1.0) -> Encoded:
    """A piece of messages (channel, unit, length), a read header of one position before each.

    A unit of -1 is a message that is only read.
    """
    channels, units, weights = [], [], []
    for channel, unit, length in spans:
        channels += [CHANNEL_NAMES.index(channel)] * (length + 1)
        units += [-1] + [unit] * length
        weights += [0.0] + [weight if unit >= 0 else 0.0] * length
    n = len(channels)
    return Encoded(
        tokens=np.zeros(n, np.int32),
        targets=np.zeros(n, np.int32),
        loss_weights=np.array(weights, np.float32),
        channel_ids=np.array(channels, np.int32),
        turn_ids=np.zeros(n, np.int32),
        unit_ids=np.array(units, np.int32),
    )


def score(scores: Scores, encoded: Encoded, wrong=(), loss=0.5, dialogue=0, task=0) -> None:
    """Adds a piece with a constant loss whose targets are all hit but those at `wrong`."""
    correct = np.ones(len(encoded.targets), bool)
    correct[list(wrong)] = False
    scores.add(
        encoded,
        np.full(len(encoded.targets), loss, np.float32),
        correct,
        dialogue=dialogue,
        task=task,
    )


def test_by_hand():
    """Two dialogues: one all right, one whose second reply has a wrong token."""
    scores = Scores(["booking"])
    # positions: 0 h, 1-2 user | 3 h, 4-6 state | 7 h, 8-9 call | 10 h, 11 tool | 12 h, 13-14 reply
    first = piece(
        [("user", -1, 2), ("state", 0, 3), ("call", 0, 2), ("tool", -1, 1), ("reply", 1, 2)]
    )
    second = piece([("state", 0, 1), ("reply", 0, 1), ("reply", 1, 2)])
    score(scores, first, loss=0.5, dialogue=0)
    score(scores, second, wrong=[6], loss=1.0, dialogue=1)
    means = scores.means()
    assert means["loss"] == Mean(7 * 0.5 + 4 * 1.0, 11.0)
    assert means["token_accuracy"] == Mean(10.0, 11.0)
    assert means["response_accuracy"] == Mean(3.0, 4.0)
    assert means["dialogue_accuracy"] == Mean(1.0, 2.0)
    assert means["call_accuracy"] == Mean(1.0, 1.0)
    assert means["state_accuracy"] == Mean(2.0, 2.0)
    assert means["channel:reply/token_accuracy"] == Mean(4.0, 5.0)
    assert means["channel:state/loss"] == Mean(3 * 0.5 + 1.0, 4.0)
    assert means["task:booking/response_accuracy"] == means["response_accuracy"]
    assert "channel:user/loss" not in means


def test_figures_divide_once_and_name_by_split():
    """Names are SPLIT/METRIC, SPLIT/task:NAME/METRIC; perplexity is exp(loss) of the same scope."""
    scores = Scores(["a", "b"])
    score(scores, piece([("reply", 0, 3)]), loss=2.0, dialogue=0, task=0)
    score(scores, piece([("reply", 0, 1)]), loss=0.0, dialogue=1, task=1)
    flat = figures(scores.means(), "test")
    assert flat["test/loss"] == pytest.approx(1.5)  # not 1.0, the mean of means
    assert flat["test/perplexity"] == pytest.approx(math.exp(1.5))
    assert flat["test/task:a/perplexity"] == pytest.approx(math.exp(2.0))
    assert flat["test/task:b/loss"] == 0.0
    assert flat["test/channel:reply/loss"] == pytest.approx(1.5)
    assert flat["test/task:b/supervised_tokens"] == 1.0
    assert flat["test/channel:reply/supervised_tokens"] == flat["test/supervised_tokens"] == 4.0
    assert "test/call_accuracy" not in flat
    assert all(type(value) is float for value in flat.values())


def test_a_dialogue_in_several_pieces_counts_once():
    """It is right only if every piece is, in whichever order they come."""
    for wrong in (0, 1):
        scores = Scores()
        for index in (0, 1):
            score(scores, piece([("reply", index, 2)]), wrong=[1] if index == wrong else ())
        means = scores.means()
        assert means["dialogue_accuracy"] == Mean(0.0, 1.0)
        assert means["response_accuracy"] == Mean(1.0, 2.0)


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_response_in_two_pieces_is_right_as_a_whole(wrong):
    """Its state in one piece and its reply in another, either of them wrong: one wrong response."""
    scores = Scores()
    for index, channel in enumerate(("state", "reply")):
        score(scores, piece([(channel, 0, 2)]), wrong=[1] if index == wrong else ())
    assert scores.means()["response_accuracy"] == Mean(0.0, 1.0)


def test_nothing_is_lost_or_doubled_where_a_dialogue_is_cut():
    """Pieces as evaluation makes them: each response and each learned token counts once."""
    user, reply = Message("user", "a b c d"), Message("assistant", "e f g")
    dialogue = Dialogue("d", (user, reply) * 9)
    template = BuiltinTemplate(train(["a b c d e f g"], (), TokenizerConfig(vocab_size=300)))
    whole = fit(dialogue, template, PolicyConfig(), 1000, evaluation=True)
    pieces = fit(dialogue, template, PolicyConfig(), 60, evaluation=True)
    assert len(pieces) > len(whole) == 1
    scores, uncut = Scores(), Scores()
    score(uncut, whole[0])
    for part in pieces:
        score(scores, part)
    assert scores.means() == uncut.means()
    assert scores.means()["response_accuracy"] == Mean(9.0, 9.0)
    assert scores.means()["dialogue_accuracy"] == Mean(1.0, 1.0)


def test_a_response_of_several_channels_is_right_as_a_whole():
    """A wrong state makes its response wrong; the reply's own channel is untouched."""
    scores = Scores()
    score(scores, piece([("state", 0, 2), ("reply", 0, 2)]), wrong=[2])
    means = scores.means()
    assert means["response_accuracy"] == Mean(0.0, 1.0)
    assert means["state_accuracy"] == Mean(0.0, 1.0)
    assert means["channel:reply/token_accuracy"] == Mean(2.0, 2.0)


def test_two_calls_in_a_row_are_two_messages():
    """Neighbouring messages of one channel are told apart by the header between them."""
    scores = Scores()
    score(scores, piece([("call", 0, 2), ("call", 1, 2)]), wrong=[5])
    assert scores.means()["call_accuracy"] == Mean(1.0, 2.0)


def test_weights_weigh_the_loss_and_nothing_else():
    """Loss = sum of weight * nats / sum of weights; a share counts tokens, messages, units."""
    scores = Scores()
    score(scores, piece([("reply", 0, 2)], weight=0.5), loss=1.0, dialogue=0)
    score(scores, piece([("reply", 0, 2)], weight=2.0), loss=4.0, wrong=[1, 2], dialogue=1)
    means = scores.means()
    assert means["loss"] == Mean(1.0 + 16.0, 5.0)
    assert means["token_accuracy"] == Mean(2.0, 4.0)


def test_what_is_only_read_never_counts():
    """Wrong and infinite values at read positions change nothing; nothing learned, no figure."""
    scores = Scores()
    encoded = piece([("user", -1, 3), ("reply", 0, 2)])
    losses = np.where(encoded.loss_weights > 0, 0.25, np.nan)
    scores.add(encoded, losses, encoded.loss_weights > 0, dialogue=0, task=0)
    assert scores.means()["loss"] == Mean(0.5, 2.0)
    nothing = Scores()
    score(nothing, piece([("user", -1, 3)]))
    assert figures(nothing.means(), "test") == {}
    assert figures(Scores().means(), "test") == {}


def test_lengths_must_agree():
    encoded = piece([("reply", 0, 2)])
    with pytest.raises(ValueError, match="dialogue 7: 3 targets, 2 losses, 3 hits"):
        Scores().add(encoded, np.zeros(2), np.zeros(3, bool), dialogue=7, task=0)


def test_a_tremendous_loss_has_infinite_perplexity():
    assert perplexity(1e4) == math.inf
    assert perplexity(0.0) == 1.0


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_corpus_numbers_are_sums_divided_by_sums(seed):
    """Perplexity and means: any grouping into pieces gives the figures of a plain count (C35)."""
    rng = np.random.default_rng(seed)
    scores, tokens, units = Scores(["a", "b"]), [], {}
    order = []
    for dialogue in range(rng.integers(1, 6)):
        unit = 0
        for _ in range(rng.integers(1, 4)):
            lengths = rng.integers(1, 5, size=rng.integers(1, 4))
            spans = [("reply", unit + i, int(n)) for i, n in enumerate(lengths)]
            unit += len(lengths)
            order.append((dialogue, piece(spans)))
    for index in rng.permutation(len(order)):
        dialogue, encoded = order[index]
        losses, correct = rng.random(len(encoded.targets)), rng.random(len(encoded.targets)) < 0.7
        scores.add(encoded, losses, correct, dialogue=dialogue, task=dialogue % 2)
        for t in np.flatnonzero(encoded.loss_weights):
            tokens.append((losses[t], correct[t]))
            units.setdefault((dialogue, int(encoded.unit_ids[t])), []).append(correct[t])
    right = {key: all(hits) for key, hits in units.items()}
    dialogues = {d: all(v for (other, _), v in right.items() if other == d) for d, _ in units}
    means = scores.means()
    assert means["loss"].value == pytest.approx(np.mean([loss for loss, _ in tokens]))
    assert means["token_accuracy"].value == pytest.approx(np.mean([hit for _, hit in tokens]))
    assert means["response_accuracy"] == Mean(float(sum(right.values())), float(len(right)))
    assert means["dialogue_accuracy"] == Mean(float(sum(dialogues.values())), float(len(dialogues)))
