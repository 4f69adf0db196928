"""Distillation, R-Drop and scheduled sampling: by full logits in float64, term by term."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlm.core.errors import UserError
from dlm.losses.api import Context
from dlm.losses.cross_entropy import cross_entropy
from dlm.losses.distillation import distillation
from dlm.losses.objective import make_objective, more_keys
from dlm.losses.r_drop import r_drop
from dlm.losses.scheduled_sampling import gold_share, scheduled_sampling
from tests.losses.test_objective import VOCABULARY, WEIGHTS, Bigram, make_batch, make_params

KEYS = jax.random.split(jax.random.key(0), 3)


class Dropping(Bigram):
    """With dropout, as its config says."""

    config = SimpleNamespace(dropout=0.5)


def wide(tree):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), tree)


def log_softmax(hidden, head, temperature=1.0):
    return jax.nn.log_softmax(hidden @ head.T / temperature)


def likelihood(log_p, batch):
    return jnp.take_along_axis(log_p, jnp.asarray(batch.targets)[..., None], -1)[..., 0]


def mean(losses):
    return jnp.sum(losses * WEIGHTS) / WEIGHTS.sum()


def kl(log_p, log_q):
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def run(loss, params, *, model=None, batch=None, frozen=None, updates=0, train=True, **hyper):
    """Value of the loss, its gradient, and all terms."""
    model, batch = model or Bigram(), batch or make_batch()
    objective = make_objective(partial(loss, **hyper), model, chunk=3, train=train)

    def value(params):
        terms = objective(params, batch, Context(KEYS, 0, updates, frozen))
        return terms["loss"].total / terms["loss"].count, terms

    (total, terms), gradient = jax.value_and_grad(value, has_aux=True)(params)
    return total, gradient, terms


def assert_same(ours, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), ours, expected)


def teacher_params():
    """Of another width: a teacher is larger."""
    random = np.random.default_rng(5)
    return {name: random.normal(size=(VOCABULARY, 7)) for name in ("embedding", "head")}


@pytest.mark.parametrize(
    ("direction", "temperature", "alpha"),
    [("forward", 1.0, 0.5), ("forward", 2.0, 1.0), ("reverse", 3.0, 0.3), ("forward", 2.0, 0.0)],
)
def test_distillation_is_its_equation(direction, temperature, alpha):
    with jax.enable_x64(True):
        batch, params, taught = make_batch(), wide(make_params()), wide(teacher_params())

        def plain(params):
            hidden = params["embedding"][batch.tokens]
            q = log_softmax(taught["embedding"][batch.tokens], taught["head"], temperature)
            p = log_softmax(hidden, params["head"], temperature)
            apart = temperature**2 * mean(kl(q, p) if direction == "forward" else kl(p, q))
            certain = -mean(likelihood(log_softmax(hidden, params["head"]), batch))
            return (1 - alpha) * certain + alpha * apart, (certain, apart)

        (value, parts), gradient = jax.value_and_grad(plain, has_aux=True)(params)
        hyper = {"direction": direction, "temperature": temperature, "alpha": alpha}
        ours = run(
            distillation, params, model=Dropping(), frozen={"teacher": taught}, train=False,
            teacher=Bigram(), **hyper,
        )  # fmt: skip
        assert_same(ours[:2], (value, gradient))
        told = [ours[2][f"term:{name}/loss"] for name in ("cross_entropy", "divergence")]
        assert_same([t.total / t.count for t in told], list(parts))


def test_the_student_has_dropout_and_the_teacher_none():
    """A teacher that is the student itself says the same, but for the student's dropout."""
    params = make_params()
    hyper = {"frozen": {"teacher": params}, "teacher": Dropping(), "alpha": 1.0}
    assert run(distillation, params, train=False, **hyper)[0] == pytest.approx(0, abs=1e-7)
    assert run(distillation, params, train=True, **hyper)[0] > 0.01


def test_r_drop_is_its_equation():
    """Gradients go through both passes, each with a dropout of its own."""
    with jax.enable_x64(True):
        batch, params, model = make_batch(), wide(make_params()), Dropping()

        def plain(params):
            hidden = partial(model.hidden, params, batch.tokens, 0, 0)
            p, q = (
                log_softmax(hidden(dropout_keys=keys), params["head"])
                for keys in (KEYS, more_keys(KEYS))
            )
            apart = mean(kl(p, q) + kl(q, p)) / 2
            return -mean(likelihood(p, batch) + likelihood(q, batch)) / 2 + 0.7 * apart, apart

        (value, apart), gradient = jax.value_and_grad(plain, has_aux=True)(params)
        ours = run(r_drop, params, model=model, alpha=0.7)
        assert_same(ours[:2], (value, gradient))
        assert apart > 0.1
        told = ours[2]["term:divergence/loss"]
        np.testing.assert_allclose(told.total / told.count, apart, rtol=1e-9)


def test_r_drop_without_dropout_is_refused_and_without_training_cross_entropy():
    params, model = make_params(), Dropping()
    ours = run(r_drop, params, model=model, train=False)
    np.testing.assert_allclose(ours[0], run(cross_entropy, params, train=False)[0], rtol=1e-6)
    model.config = SimpleNamespace(dropout=0.0)
    with pytest.raises(UserError, match=r"model.dropout=0: the two passes of r_drop would be one"):
        run(r_drop, params, model=model)


@pytest.mark.parametrize(
    ("updates", "options", "expected"),
    [
        (0, {"k": 10.0}, 10 / 11),
        (20, {"k": 10.0}, 0.57507),
        (40, {"k": 10.0}, 0.15480),
        (10**6, {"k": 10.0, "least": 0.2}, 0.2),
        (100, {"k": 0.99, "decay": "exponential"}, 0.36603),
        (30, {"k": 0.9, "decay": "linear", "slope": 0.01}, 0.6),
        (0, {"k": 1.5, "decay": "linear", "slope": 0.01}, 1.0),
    ],
)
def test_published_schedules(updates, options, expected):
    assert float(gold_share(updates, **options)) == pytest.approx(expected, abs=5e-6)


NEVER_GOLD = {"k": 1e-9, "decay": "linear", "slope": 1.0}


def test_scheduled_sampling_reads_what_the_model_would_write():
    """With no gold left: each token that the model has to write is its own best one, no other."""
    batch, params = make_batch(), make_params()
    best = np.argmax(params["embedding"][batch.tokens] @ params["head"].T, axis=-1)
    own = np.zeros_like(best, dtype=bool)
    own[:, 1:] = (WEIGHTS > 0)[:, :-1] & (batch.segment_ids[:, 1:] == batch.segment_ids[:, :-1])
    tokens = batch.tokens.copy()
    tokens[:, 1:] = np.where(own[:, 1:], best[:, :-1], tokens[:, 1:])
    changed = batch._replace(tokens=tokens)
    assert (tokens != batch.tokens).sum() > 5
    ours = run(scheduled_sampling, params, model=Bigram(), updates=5, **NEVER_GOLD)
    expected = run(cross_entropy, params, batch=changed)
    np.testing.assert_allclose(ours[0], expected[0], rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), ours[1], expected[1])
    assert ours[2]["replaced"] == (own.sum(), own.sum())


def test_scheduled_sampling_begins_as_cross_entropy():
    ours = run(scheduled_sampling, make_params(), model=Bigram(), k=1e9)
    np.testing.assert_allclose(ours[0], run(cross_entropy, make_params())[0], rtol=1e-6)
    assert ours[2]["replaced"].total == 0


def test_a_rows_coins_do_not_depend_on_its_neighbours():
    """Half of the tokens are replaced, the same whether rows come together or one by one."""
    hyper = {"model": Bigram(), "k": 10.0, "updates": 23}
    objective = make_objective(partial(scheduled_sampling, k=10.0), Bigram(), chunk=3, train=True)
    whole = run(scheduled_sampling, make_params(), **hyper)[2]
    rows = [
        objective(make_params(), jax.tree.map(lambda a: a[i : i + 1], make_batch()),  # noqa: B023
                  Context(KEYS[i : i + 1], 0, 23))
        for i in range(3)
    ]  # fmt: skip
    assert 0 < whole["replaced"].total < whole["replaced"].count
    for name in ("loss", "replaced"):
        total = sum(float(row[name].total) for row in rows)
        np.testing.assert_allclose(whole[name].total, total, rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "hyper", "message"),
    [
        (distillation, {"temperature": 0.0}, r"loss.args.temperature=0.0 must be above 0"),
        (distillation, {"alpha": 1.5}, r"loss.args.alpha=1.5 must be from 0 to 1"),
        (distillation, {"direction": "both"}, r"loss.args.direction='both': choose one of"),
        (r_drop, {"alpha": -1.0}, r"loss.args.alpha=-1.0 must be at least 0"),
        (scheduled_sampling, {"k": 2.0, "decay": "exponential"}, "exponential does not fall"),
        (scheduled_sampling, {"k": 2.0, "decay": "linear"}, "linear does not fall with these"),
        (scheduled_sampling, {"k": 2.0, "decay": "slow"}, r"loss.args.decay='slow': choose"),
        (scheduled_sampling, {"k": 2.0, "least": 2.0}, r"loss.args.least=2.0 must be from 0"),
    ],
)
def test_mistakes_are_told(loss, hyper, message):
    teacher = {"teacher": Bigram()} if loss is distillation else {}
    with pytest.raises(UserError, match=message):
        run(loss, make_params(), model=Dropping(), **teacher, **hyper)
