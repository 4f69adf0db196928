"""The gradient check finds the mistakes it is there for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from dlm.losses.check import check_token_loss
from dlm.losses.cross_entropy import cross_entropy


def test_accepts_a_loss_with_hyper_parameters():
    def focused(logits, targets, aux, *, power: float = 1.0):
        return cross_entropy(logits, targets, aux) ** power

    check_token_loss(focused, power=1.0)


def wrong_rule(logits, targets, aux):
    """A rule that forgets the target's -1."""
    value = cross_entropy(logits, targets, aux)
    return value + jax.lax.stop_gradient(logits[:, 0]) - logits[:, 0]


def mean_over_positions(logits, targets, aux):
    return cross_entropy(logits, targets, aux).mean()


def in_bfloat16(logits, targets, aux):
    return cross_entropy(logits, targets, aux).astype(jnp.bfloat16)


def always_float32(logits, targets, aux):
    return cross_entropy(logits.astype(jnp.float32), targets, aux)


def overflows(logits, targets, aux):
    exp = jnp.exp(logits)
    return -jnp.log(
        jnp.take_along_axis(exp / exp.sum(-1, keepdims=True), targets[:, None], 1)[:, 0]
    )


def relies_on_order(logits, targets, aux):
    return cross_entropy(logits, targets, aux) * jnp.arange(targets.size)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (wrong_rule, "'wrong_rule', ordinary logits: gradient against finite differences"),
        (mean_over_positions, r"'mean_over_positions', .*: shape \[\] for 5 targets"),
        (in_bfloat16, "'in_bfloat16', .*: bfloat16 from float64 logits"),
        (always_float32, "'always_float32', .*: float32 from float64 logits"),
        (overflows, r"'overflows', logits of \+-1e4: not finite"),
        (relies_on_order, "'relies_on_order', .*: targets in reverse order"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_names_what_is_wrong(loss, message):
    with pytest.raises(AssertionError, match=message):
        check_token_loss(loss)


def test_compares_with_the_plain_formula():
    def shifted(logits, targets, aux):
        return cross_entropy(logits, targets, aux) + 1

    with pytest.raises(AssertionError, match="value against plain"):
        check_token_loss(cross_entropy, shifted)
