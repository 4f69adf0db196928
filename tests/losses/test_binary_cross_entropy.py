"""Binary cross-entropy of two named tokens: the literature's formula and gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlm.core.errors import UserError
from dlm.losses.api import supervised_weights
from dlm.losses.binary_cross_entropy import binary_cross_entropy
from dlm.losses.check import check_token_loss

POSITIVE, NEGATIVE = 3, 1


def plain(logits, targets, aux, *, positive, negative):
    """-[y log p + (1 - y) log(1 - p)] by stable textbook steps, for autodiff."""
    z = logits[:, positive] - logits[:, negative]
    y = (targets == positive).astype(z.dtype)
    losses = -(y * jax.nn.log_sigmoid(z) + (1 - y) * jax.nn.log_sigmoid(-z))
    return jnp.where((targets == positive) | (targets == negative), losses, 0)


def test_equals_the_literature_value_and_gradient():
    """-[y log p + (1-y) log(1-p)], and -(y/p - (1-y)/(1-p)) dp/dtheta with dp/dz = p (1-p)."""
    with jax.enable_x64(True):
        logits = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)))
        targets = jnp.array([3, 1, 3, 1, 1, 3])
        losses, pull = jax.vjp(
            lambda z: binary_cross_entropy(z, targets, None, positive=POSITIVE, negative=NEGATIVE),
            logits,
        )
        z = np.asarray(logits[:, POSITIVE] - logits[:, NEGATIVE])
        p, y = 1 / (1 + np.exp(-z)), np.asarray(targets) == POSITIVE
        np.testing.assert_allclose(losses, -(y * np.log(p) + (1 - y) * np.log(1 - p)), rtol=1e-12)
        slope = -(y / p - (1 - y) / (1 - p)) * p * (1 - p)
        expected = np.zeros(logits.shape)
        expected[:, POSITIVE], expected[:, NEGATIVE] = slope, -slope
        np.testing.assert_allclose(pull(jnp.ones(6))[0], expected, atol=1e-12)


def test_analytic_gradient_equals_autodiff_and_finite_differences():
    check_token_loss(binary_cross_entropy, plain, positive=POSITIVE, negative=NEGATIVE)


@pytest.mark.parametrize(("target", "loss"), [(POSITIVE, 0.0), (NEGATIVE, 2e4)])
def test_far_logits_in_float32(target, loss):
    logits = jnp.zeros((1, 5)).at[0, POSITIVE].set(1e4).at[0, NEGATIVE].set(-1e4)
    args = {"positive": POSITIVE, "negative": NEGATIVE}
    value, pull = jax.vjp(
        lambda z: binary_cross_entropy(z, jnp.array([target]), None, **args), logits
    )
    np.testing.assert_allclose(value[0], loss)
    np.testing.assert_allclose(pull(jnp.ones(1))[0][0, POSITIVE], 0.0 if loss == 0 else 1.0)


def test_other_targets_have_no_weight():
    """The denominator counts what the numerator sums: the answers alone."""
    targets = jnp.array([POSITIVE, 0, NEGATIVE, 4])
    args = {"positive": POSITIVE, "negative": NEGATIVE}
    bound = jax.tree_util.Partial(binary_cross_entropy, **args)
    assert supervised_weights(bound, targets, jnp.full(4, 0.5)).tolist() == [0.5, 0, 0.5, 0]
    losses = bound(jnp.ones((4, 5)), targets, None)
    np.testing.assert_allclose(losses, [np.log(2), 0, np.log(2), 0], rtol=1e-6)


def test_one_token_cannot_be_both():
    with pytest.raises(UserError, match="one token"):
        binary_cross_entropy(jnp.ones((1, 5)), jnp.array([2]), None, positive=2, negative=2)
