"""The experiments on losses: their measures and their data, at hand's size."""

from __future__ import annotations

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from experiments import distillation_and_unlikelihood as taught  # noqa: E402
from experiments import plot_losses  # noqa: E402


def test_repetition_is_the_published_one():
    """Welleck et al.: seven 4-grams, four of them distinct."""
    assert taught.repeated(list("abcdabcdab")) == pytest.approx(3 / 7)
    assert taught.repeated(list("abcdefgh")) == 0


def test_walks_go_along_edges_and_seldom_where_they_have_been():
    path, edges = taught.walks(3, 0, 50), taught.graph(3) > 0
    assert edges[path[:, :-1], path[:, 1:]].all()
    assert (edges.sum(axis=1) == taught.DEGREE).all()
    np.testing.assert_array_equal(path, taught.walks(3, 0, 50))
    assert (path != taught.walks(3, 1, 50)).any()
    visited = [path[row, t] in path[row, :t] for row in range(50) for t in range(1, 30)]
    assert np.mean(visited) < 0.25


def test_only_what_follows_the_question_is_learned():
    batch = taught.batch_of(taught.walks(0, 0, 2))
    assert batch.loss_weights.sum() == 2 * (taught.WRITTEN + 1)
    assert (batch.targets[:, :-1] == batch.tokens[:, 1:]).all()
    assert batch.loss_weights[0, taught.ASKED - 1] == 1 > batch.loss_weights[0, taught.ASKED - 2]


def test_a_drawn_curve_is_the_loss():
    p = jnp.array([0.1, 0.5, 0.9])
    losses, slopes = plot_losses.curve(plot_losses.cross_entropy, p)
    np.testing.assert_allclose(losses, -np.log(p), rtol=1e-5)
    np.testing.assert_allclose(slopes, p - 1, rtol=1e-4)
