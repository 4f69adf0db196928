"""Weighted sums of token losses: values, gradients, and who speaks about which target."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlm.losses.api import Aux, Term, asks_for_previous, supervised_weights
from dlm.losses.binary_cross_entropy import binary_cross_entropy
from dlm.losses.check import check_token_loss
from dlm.losses.cross_entropy import cross_entropy
from dlm.losses.focal import focal
from dlm.losses.unlikelihood import unlikelihood
from dlm.losses.weighted import weighted
from tests.losses.test_objective import WEIGHTS, evaluate, make_batch

BINARY = partial(binary_cross_entropy, positive=2, negative=5)
TERMS = (
    Term("cross_entropy", 1.0, cross_entropy),
    Term("focal", 0.5, partial(focal, gamma=2.0)),
    Term("unlikelihood", 0.25, unlikelihood),
)


def test_the_published_values_add_up():
    with jax.enable_x64(True):
        one = jnp.ones(1)
        aux = Aux(one, one, one, jnp.array([[1, 2]]))
        losses, parts = weighted(jnp.array([[2.0, 1.0, 0.0]]), jnp.array([0]), aux, terms=TERMS)
    told = {name: float(part.total[0]) for name, part in parts.items()}
    expected = [0.4076059644, 0.0456777990, 0.4076059644 + 0.3750222303]
    assert list(told.values()) == pytest.approx(expected, abs=1e-9)
    mixed = np.dot([1, 0.5, 0.25], expected)
    assert float(losses[0]) == pytest.approx(mixed, abs=1e-9)


def by_hand(logits, targets, aux, *, terms):
    return (
        cross_entropy(logits, targets, aux)
        + 0.5 * focal(logits, targets, aux, gamma=2.0)
        + 0.25 * unlikelihood(logits, targets, aux)
    )


def test_it_has_the_gradient_of_its_terms():
    check_token_loss(weighted, by_hand, terms=TERMS)


def test_earlier_tokens_are_made_for_those_who_ask():
    assert asks_for_previous(partial(weighted, terms=TERMS))
    assert not asks_for_previous(partial(weighted, terms=TERMS[:2]))


def test_each_term_is_a_mean_over_the_targets_of_its_own():
    """The loss counts what any term speaks about; totals add up, with their weights."""
    both = partial(weighted, terms=(TERMS[0], Term("binary", 3.0, BINARY)))
    terms, plain, binary = evaluate(both), evaluate(cross_entropy), evaluate(BINARY)
    np.testing.assert_allclose(terms["term:cross_entropy/loss"], plain["loss"], rtol=1e-6)
    np.testing.assert_allclose(terms["term:binary/loss"], binary["loss"], rtol=1e-6)
    assert 0 < binary["loss"].count < plain["loss"].count == terms["loss"].count
    total = plain["loss"].total + 3 * binary["loss"].total
    np.testing.assert_allclose(terms["loss"].total, total, rtol=1e-6)


@pytest.mark.parametrize("others", [(), (TERMS[0],)])
def test_what_no_term_speaks_about_counts_nowhere(others):
    batch = make_batch()
    loss = partial(weighted, terms=(Term("binary", 1.0, BINARY), *others))
    covered = supervised_weights(loss, batch.targets, jnp.asarray(WEIGHTS)) > 0
    answers = (batch.targets == 2) | (batch.targets == 5) | bool(others)
    np.testing.assert_array_equal(covered, answers & (WEIGHTS > 0))
