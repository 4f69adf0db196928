"""Scores of a split, against a plain recomputation: one piece at a time, in float64."""

from __future__ import annotations

from collections import defaultdict

import jax.numpy as jnp
import numpy as np
import pytest

from dlm.core.mean import Mean
from dlm.core.progress import Progress
from dlm.data.batch import empty_batch
from dlm.data.pipeline import Batches
from dlm.dialogue.encoding import CHANNEL_NAMES, fit
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.schema import response_units
from dlm.evaluation.evaluate import make_score_step, score_split
from dlm.losses.cross_entropy import cross_entropy
from tests.evaluation.tiny_talks import TALKS, make_pieces

WHOLE, CUT = 96, 76  # each dialogue fits the one, none the other


@pytest.fixture(scope="module")
def score_step(model):
    return make_score_step(model, cross_entropy, chunk=48)


def plain_means(dialogues, template, reference, length):
    """Every figure, counted token by token and unit by unit."""
    means, counts = defaultdict(float), defaultdict(float)

    def count(name, total, number=1.0):
        means[name] += total
        counts[name] += number

    for dialogue in dialogues:
        task = f"task:{dialogue.task}/"
        units = {}
        for piece in fit(dialogue, template, PolicyConfig(), length, evaluation=True):
            losses, correct = reference(piece)
            messages = {}
            for t in np.flatnonzero(piece.loss_weights):
                weight, channel = float(piece.loss_weights[t]), CHANNEL_NAMES[piece.channel_ids[t]]
                for scope in ("", task, f"channel:{channel}/"):
                    count(f"{scope}loss", weight * losses[t], weight)
                    count(f"{scope}token_accuracy", correct[t])
                unit = int(piece.unit_ids[t])
                units[unit] = units.get(unit, True) and correct[t]
                messages[unit, channel] = messages.get((unit, channel), True) and correct[t]
            for (_, channel), right in messages.items():
                name = {"call": "call_accuracy", "state": "state_accuracy"}.get(channel)
                for scope in ("", task) if name else ():
                    count(f"{scope}{name}", right)
        assert sorted(units) == list(range(len(response_units(dialogue))))
        for scope in ("", task):
            count(f"{scope}response_accuracy", sum(units.values()), len(units))
            count(f"{scope}dialogue_accuracy", all(units.values()))
    return {name: Mean(total, counts[name]) for name, total in means.items()}


@pytest.mark.parametrize("length", [WHOLE, CUT])
@pytest.mark.parametrize("pack", [True, False])
def test_every_figure_is_that_of_a_plain_recomputation(
    tmp_path, template, params, reference, score_step, length, pack
):
    """Packed and unpacked, whole and cut into pieces, the last batch not full."""
    pieces = make_pieces(TALKS, template, tmp_path, length)
    only_read = [
        (piece.unit_ids >= 0) & (piece.loss_weights == 0)
        for piece in map(pieces.piece, range(len(pieces)))
    ]
    assert any(part.any() for part in only_read) == (length == CUT)
    batches = Batches(pieces, rows=3, length=2 * WHOLE, pack=pack, shuffle=False)
    assert (len(pieces) == len(TALKS)) == (length == WHOLE)
    assert (batches.segments > 1) == pack
    means = score_split(score_step, params, batches, pieces).means()
    expected = plain_means(TALKS, template, reference, length)
    assert means.keys() == expected.keys()
    for name, mean in means.items():
        assert mean.count == expected[name].count, name
        exact = not name.endswith("loss")
        assert mean.total == pytest.approx(expected[name].total, rel=0 if exact else 1e-5), name
    assert 0 < means["response_accuracy"].value < 1
    assert 0 < means["token_accuracy"].value < 1


def test_order_and_batch_size_change_no_figure(tmp_path, template, params, score_step, capsys):
    """Each dialogue counts once, wherever it stands; how far it is, is told where it is asked."""
    means = []
    for name, dialogues, rows in (("a", TALKS, 3), ("b", TALKS[::-1], 2)):
        pieces = make_pieces(dialogues, template, tmp_path / name)
        batches = Batches(pieces, rows=rows, length=2 * WHOLE, shuffle=False)
        with Progress(batches.num_steps(0), f"scoring {name}", "batch") as progress:
            told = progress if name == "b" else None
            means.append(score_split(score_step, params, batches, pieces, told).means())
    steps = batches.num_steps(0)
    assert f"scoring b: batch {steps}/{steps}" in capsys.readouterr().out.splitlines()[-1]
    first, second = means
    for name in first:
        assert first[name].count == second[name].count
        assert first[name].value == pytest.approx(second[name].value, rel=1e-6), name


def test_a_score_step_scores_what_is_learned_and_nothing_else(params, score_step):
    """0 and False where the weight is 0; the weight itself does not scale a position's loss."""
    batch = empty_batch(3, 2 * WHOLE, 2)
    batch.segment_ids[0, :20] = 1
    batch.positions[0, :20] = np.arange(20)
    batch.loss_weights[0, 5:9] = (0.5, 1.0, 0.0, 2.0)
    losses, correct = map(np.asarray, score_step(params, batch))
    assert losses.shape == correct.shape == (3, 2 * WHOLE)
    assert np.flatnonzero(losses).tolist() == [5, 6, 8]
    assert not correct[batch.loss_weights == 0].any()
    batch.loss_weights[0, 5:9] = 1.0
    again, _ = score_step(params, batch)
    np.testing.assert_allclose(again[0, jnp.array([5, 6, 8])], losses[0, [5, 6, 8]], rtol=1e-6)
