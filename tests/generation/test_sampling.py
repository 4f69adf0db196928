"""Sampling: the right distribution, whatever stands in the other rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlm.generation.sampling import NUM_CANDIDATES, Knobs, choose, gumbel_noise, kept, rank
from dlm.models.vocabulary import hide


def knobs(temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0) -> Knobs:
    return Knobs(jnp.int32(seed), jnp.float32(temperature), jnp.int32(top_k), jnp.float32(top_p))


def draw(logits: list[float], count: int, mode: str, **settings: float) -> np.ndarray:
    """Shares of the first candidate over `count` samples."""
    rows = jnp.broadcast_to(jnp.array(logits), (count, len(logits)))
    samples = jnp.arange(count)
    ids = choose(rows, samples, jnp.full(count, 7), knobs(**settings), mode=mode).ids[:, 0]
    return np.bincount(np.asarray(ids), minlength=len(logits)) / count


PROBS = [0.5, 0.3, 0.15, 0.05]
LOGITS = np.log(PROBS).tolist()


def test_greedy_orders_by_logit_and_ties_by_id():
    ranking = choose(
        jnp.array([[1.0, 3.0, 2.0, 3.0]]), jnp.zeros(1), jnp.zeros(1), knobs(0.0), mode="greedy"
    )
    assert ranking.ids.tolist() == [[1, 3, 2, 0]]
    expected = jax.nn.log_softmax(jnp.array([3.0, 3.0, 2.0, 1.0]))
    np.testing.assert_allclose(ranking.log_probs[0], expected, rtol=1e-6)


def test_samples_follow_the_softmax_at_the_temperature():
    # Tolerances: four standard deviations of a share over 4,000 draws.
    np.testing.assert_allclose(draw(LOGITS, 4000, "sampled"), PROBS, atol=0.032)
    sharp = np.array(PROBS) ** 2
    found = draw(LOGITS, 4000, "sampled", temperature=0.5)
    np.testing.assert_allclose(found, sharp / sharp.sum(), atol=0.032)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_k": 1}, [1, 0, 0, 0]),
        ({"top_p": 0.79}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.81}, [0.5263, 0.3158, 0.1579, 0]),
        ({"top_p": 1e-6}, [1, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.5}, [1, 0, 0, 0]),
        ({"top_k": 9}, PROBS),
    ],
)
def test_filters_leave_the_renormalised_rest(settings: dict, expected: list[float]):
    # In falling order of probability and not, so that the way back to token ids is seen.
    found = draw(LOGITS[::-1], 4000, "filtered", **settings)[::-1]
    np.testing.assert_allclose(found, expected, atol=0.032)
    assert (found[np.array(expected) == 0] == 0).all()


def test_top_p_of_the_rest_that_top_k_leaves():
    # Of {0.5, 0.3} renormalised the first holds 0.625 >= 0.6.
    mask = kept(jnp.array([LOGITS]), jnp.int32(2), jnp.float32(0.6))
    assert mask.tolist() == [[True, False, False, False]]


def test_first_allowed_candidate_is_an_exact_draw_from_the_allowed():
    """Constrained sampling is exact: a draw from what is allowed, renormalised."""
    count, allowed = 4000, np.array([1, 3])
    rows = jnp.broadcast_to(jnp.array(LOGITS), (count, 4))
    ids = choose(rows, jnp.arange(count), jnp.zeros(count), knobs(), mode="sampled").ids
    first = [next(token for token in row if token in allowed) for row in ids.tolist()]
    np.testing.assert_allclose(np.mean(np.array(first) == 1), 0.3 / 0.35, atol=0.032)


def test_noise_depends_on_seed_sample_and_position_only():
    alone = gumbel_noise(jnp.int32(5), jnp.array([4]), jnp.array([11]), 13)
    among = gumbel_noise(jnp.int32(5), jnp.array([0, 4, 4]), jnp.array([11, 11, 12]), 13)
    np.testing.assert_array_equal(alone[0], among[1])
    assert not np.any(among[0] == among[1])
    assert not np.any(among[1] == among[2])
    other = gumbel_noise(jnp.int32(6), jnp.array([4]), jnp.array([11]), 13)
    assert not np.any(other == alone)


def test_filtered_tokens_are_no_candidates():
    scores = jnp.array([[-jnp.inf, 2.0, -jnp.inf, 3.0]])
    assert rank(jnp.zeros((1, 4)), scores).ids.tolist() == [[3, 1, -1, -1]]


def test_candidates_are_few():
    ranking = rank(jnp.zeros((2, 101)), jnp.zeros((2, 101)))
    assert ranking.ids.shape == ranking.log_probs.shape == (2, NUM_CANDIDATES)
    assert ranking.scores.shape == (2, 101)


@pytest.mark.parametrize("mode", ["greedy", "sampled", "filtered"])
@pytest.mark.parametrize("temperature", [0.1, 20.0])
def test_masked_tokens_are_no_candidates(mode, temperature):
    """Growth: at any temperature, and in the log-probabilities of the others they do not count."""
    logits = hide(jnp.array([[1.0, 9.0, 2.0]]), jnp.array([True, False, True]))
    ranking = choose(logits, jnp.zeros(1), jnp.zeros(1), knobs(temperature, top_p=0.9), mode=mode)
    assert 1 not in ranking.ids[0].tolist()
    assert ranking.scores[0, 1] == -jnp.inf
    expected = jax.nn.log_softmax(jnp.array([1.0, 2.0]))[(ranking.ids[0, 0] + 1) // 2]
    np.testing.assert_allclose(ranking.log_probs[0, 0], expected, rtol=1e-6)
