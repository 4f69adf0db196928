"""The other token losses: published values, three gradients, hard logits, hidden tokens."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlm.core.errors import UserError
from dlm.data.batch import empty_batch
from dlm.losses.api import Aux, asks_for_previous
from dlm.losses.check import check_token_loss
from dlm.losses.cross_entropy import cross_entropy
from dlm.losses.focal import focal
from dlm.losses.label_smoothing import label_smoothing
from dlm.losses.objective import earlier_tokens
from dlm.losses.unlikelihood import unlikelihood
from dlm.losses.z_loss import z_loss

LOGITS, TARGET = [[2.0, 1.0, 0.0]], [0]


def value(loss, aux=None, **hyper) -> float:
    with jax.enable_x64(True):
        return float(loss(jnp.array(LOGITS), jnp.array(TARGET), aux, **hyper)[0])


def previous(*tokens: int) -> Aux:
    one = jnp.ones(1)
    return Aux(one, one, one, jnp.array([tokens]))


def smoothed(logits, targets, aux, *, epsilon, over):
    """-sum_k q_k log p_k with q written out, for autodiff."""
    number = logits.shape[-1]
    share = epsilon / (number if over == "all" else max(number - 1, 1))
    q = jnp.full(logits.shape, share)
    mine = share + 1 - epsilon if over == "all" or number == 1 else 1 - epsilon
    q = q.at[jnp.arange(len(targets)), targets].set(mine)
    return -jnp.sum(q * jax.nn.log_softmax(logits), axis=-1)


@pytest.mark.parametrize(
    ("loss", "aux", "hyper", "expected"),
    [
        (label_smoothing, None, {"epsilon": 0.1}, 0.5076059644),
        (label_smoothing, None, {"epsilon": 0.0}, 0.4076059644),
        (label_smoothing, None, {"epsilon": 0.1, "over": "others"}, 0.4076059644 + 0.1 * 1.5),
        (focal, None, {"gamma": 2.0}, 0.0456777990),
        (focal, None, {"gamma": 2.0, "alpha": 0.25}, 0.0114194497),
        (focal, None, {"gamma": 0.0}, 0.4076059644),
        (z_loss, None, {}, 0.4076059644 + 5.796566e-4),
        (unlikelihood, previous(1, 2), {}, 0.4076059644 + 0.3750222303),
        (unlikelihood, previous(2, 1, 2, 0, -1), {}, 0.4076059644 + 0.3750222303),
        (unlikelihood, previous(1, 2), {"alpha": 0.5}, 0.4076059644 + 0.5 * 0.3750222303),
        (unlikelihood, previous(0, -1), {}, 0.4076059644),
    ],
)
def test_published_values(loss, aux, hyper, expected):
    """A set: repetitions count once, the target never, -1 is nothing."""
    assert value(loss, aux, **hyper) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("over", ["all", "others"])
def test_label_smoothing_has_the_gradient_of_its_definition(epsilon, over):
    check_token_loss(label_smoothing, smoothed, epsilon=epsilon, over=over)


def test_label_smoothing_over_all_is_that_of_optax():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(6, 9)), jnp.float32)
    targets = jnp.arange(6)
    q = optax.smooth_labels(jax.nn.one_hot(targets, 9), 0.2)
    ours = label_smoothing(logits, targets, None, epsilon=0.2)
    np.testing.assert_allclose(ours, optax.softmax_cross_entropy(logits, q), rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal_has_the_gradient_of_its_formula(gamma):
    """Also where p is 1 to the last digit and gamma below 1, where autodiff gives NaN."""
    check_token_loss(focal, gamma=gamma)
    logits, target = jnp.array([[1e4, 0.0]]), jnp.array([0])
    assert (jax.grad(lambda z: focal(z, target, None, gamma=gamma)[0])(logits) == 0).all()


def test_z_loss_and_unlikelihood_have_the_gradients_of_their_values():
    check_token_loss(z_loss, coefficient=1e-4)
    check_token_loss(unlikelihood, alpha=0.7)


@pytest.mark.parametrize("loss", [label_smoothing, focal, z_loss, unlikelihood])
def test_hidden_tokens_are_in_no_sum(loss):
    """As if the vocabulary had no such tokens, and no gradient to them."""
    least = jnp.finfo(jnp.float32).min
    few = jnp.array([[2.0, 1.0, 0.0], [0.5, -1.0, 2.0]])
    many = jnp.pad(few, ((0, 0), (0, 2)), constant_values=least)
    targets = jnp.array([0, 2])
    aux = Aux(targets, targets, targets, jnp.array([[1, 2], [0, -1]]))
    losses, pull = jax.vjp(lambda z: loss(z, targets, aux), many)
    np.testing.assert_allclose(losses, loss(few, targets, aux), rtol=1e-6)
    (gradient,) = pull(jnp.ones(2))
    assert (gradient[:, 3:] == 0).all()
    expected = jax.grad(lambda z: loss(z, targets, aux).sum())(few)
    np.testing.assert_allclose(gradient[:, :3], expected, atol=1e-6)


def test_earlier_tokens_are_those_of_the_segment():
    """Up to the position itself: its target is the next one. Nothing of a neighbour, no padding."""
    batch = empty_batch(1, 6, 2)._replace(
        tokens=np.array([[5, 6, 7, 8, 9, 0]]), segment_ids=np.array([[1, 1, 1, 2, 2, 0]])
    )
    sets = [set(row.tolist()) - {-1} for row in earlier_tokens(batch)[:5]]
    assert sets == [{5}, {5, 6}, {5, 6, 7}, {8}, {8, 9}]


def test_only_a_loss_that_declares_it_is_given_what_came_before():
    assert asks_for_previous(partial(unlikelihood, alpha=2.0))
    assert not asks_for_previous(cross_entropy)


@pytest.mark.parametrize(
    ("loss", "hyper", "message"),
    [
        (label_smoothing, {"epsilon": 1.5}, "loss.args.epsilon=1.5"),
        (label_smoothing, {"over": "both"}, "loss.args.over='both'"),
        (focal, {"gamma": -1.0}, "loss.args.gamma=-1.0"),
    ],
)
def test_mistakes_are_told(loss, hyper, message):
    with pytest.raises(UserError, match=message):
        loss(jnp.array(LOGITS), jnp.array(TARGET), None, **hyper)
