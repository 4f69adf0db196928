"""Softmax cross-entropy: the published value, three gradients, hard logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlm.losses.check import check_token_loss
from dlm.losses.cross_entropy import cross_entropy


def plain(logits, targets, aux):
    """The same by textbook steps, for autodiff."""
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probs, targets[:, None], axis=-1)[:, 0]


def test_value_and_gradient_of_fixture_a():
    with jax.enable_x64(True):
        logits, target = jnp.array([[2.0, 1.0, 0.0]]), jnp.array([0])
        loss, pull = jax.vjp(lambda z: cross_entropy(z, target, None), logits)
        np.testing.assert_allclose(loss[0], 0.4076059644, atol=1e-10)
        expected = [[0.66524096 - 1, 0.24472847, 0.09003057]]
        np.testing.assert_allclose(pull(jnp.ones(1))[0], expected, atol=1e-8)


def test_analytic_gradient_equals_autodiff_and_finite_differences():
    """Every path, one loss: the rule, `jax.grad` of the plain formula, float64 differences."""
    check_token_loss(cross_entropy, plain)


@pytest.mark.parametrize("gap", [1e4, -1e4])
def test_far_logits_in_float32(gap):
    logits = jnp.array([[gap, 0.0, 0.0]])
    loss, pull = jax.vjp(lambda z: cross_entropy(z, jnp.array([0]), None), logits)
    np.testing.assert_allclose(loss[0], 0.0 if gap > 0 else 1e4 + np.log(2), rtol=1e-7)
    expected = [[0, 0, 0]] if gap > 0 else [[-1, 0.5, 0.5]]
    np.testing.assert_allclose(pull(jnp.ones(1))[0], expected, atol=1e-7)


def test_a_small_loss_far_from_zero_stays_exact():
    """log-sum-exp minus the target's logit would round 4.5e-5 to 0 or 1e-3 at logits of 1e4."""
    logits = jnp.array([[1e4, 1e4 - 10.0]])
    loss = cross_entropy(logits, jnp.array([0]), None)
    np.testing.assert_allclose(loss[0], np.log1p(np.exp(-10.0)), rtol=2e-3)


def test_masked_columns_get_no_probability():
    """Columns at minus infinity or at the least float get neither probability nor gradient."""
    for least in (-jnp.inf, jnp.finfo(jnp.float32).min):
        logits = jnp.array([[2.0, 1.0, 0.0, least, least]])
        loss, pull = jax.vjp(lambda z: cross_entropy(z, jnp.array([0]), None), logits)
        np.testing.assert_allclose(loss[0], 0.4076059644, rtol=1e-6)
        assert (pull(jnp.ones(1))[0][0, 3:] == 0).all()
