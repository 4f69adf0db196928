"""The divergence of two softmaxes: published values, three gradients to either side."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlm.losses.check import check_token_loss
from dlm.losses.divergence import divergence

STUDENT, TEACHER = [[2.0, 1.0, 0.0]], [[3.0, 1.0, 0.0]]
P = [0.66524096, 0.24472847, 0.09003057]


def value(p, q, **options) -> float:
    with jax.enable_x64(True):
        return float(divergence(jnp.array(p), jnp.array(q), **options)[0])


def test_published_values():
    """p against [.5, .3, .2] both ways; T^2 KL at T = 2; soft cross-entropy less its entropy."""
    other = np.log([[0.5, 0.3, 0.2]]).tolist()
    assert value(STUDENT, other) == pytest.approx(0.0682593524, abs=1e-9)
    assert value(other, STUDENT) == pytest.approx(0.0779529504, abs=1e-9)
    assert 4 * value(TEACHER, STUDENT, temperature=2.0) == pytest.approx(0.1206669846, abs=1e-9)
    q = np.exp(TEACHER[0]) / np.exp(TEACHER[0]).sum()
    entropy = -(q * np.log(q)).sum()
    assert value(TEACHER, STUDENT) + entropy == pytest.approx(0.6058212961, abs=1e-9)
    assert value(STUDENT, STUDENT) == 0


def textbook(a, b, temperature):
    p, q = (jax.nn.log_softmax(z / temperature) for z in (a, b))
    return jnp.sum(jnp.exp(p) * (p - q), axis=-1)


def to_others(logits, targets, aux, *, temperature, plain: bool = False):
    function = textbook if plain else lambda a, b, t: divergence(a, b, temperature=t)
    return function(logits, aux.others, temperature)


def from_others(logits, targets, aux, *, temperature, plain: bool = False):
    function = textbook if plain else lambda a, b, t: divergence(a, b, temperature=t)
    return function(aux.others, logits, temperature)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("loss", [to_others, from_others])
def test_analytic_gradient_equals_autodiff_and_finite_differences(loss, temperature):
    """To the logits on either side, with logits of +-1e4, a vocabulary of one, equal ones."""

    def plain(logits, targets, aux, *, temperature):
        return loss(logits, targets, aux, temperature=temperature, plain=True)

    check_token_loss(loss, plain, temperature=temperature)


@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
def test_a_token_hidden_in_either_is_in_neither(temperature):
    """As if the vocabulary had no such token; no gradient to it."""
    least = float(jnp.finfo(jnp.float32).min)
    a = jnp.array([[2.0, 1.0, 0.0, 7.0, least]])
    b = jnp.array([[0.5, -1.0, 2.0, least, 9.0]])
    few = divergence(a[:, :3], b[:, :3], temperature=temperature)
    losses, pull = jax.vjp(lambda x, y: divergence(x, y, temperature=temperature), a, b)
    np.testing.assert_allclose(losses, few, rtol=1e-6)
    for gradient in pull(jnp.ones(1)):
        assert jnp.isfinite(gradient).all()
        assert (gradient[:, 3:] == 0).all()
        assert (jnp.abs(gradient[:, :3]) > 0).all()
