"""The gradient check of a token loss, for our tests and for those of a fork."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np

from dlm.losses.api import Aux, Token, TokenLoss, loss_name, told_apart

TOLERANCE = 1e-6
STEP = 1e-4  # of the central differences; float64 leaves errors near 1e-8 for logits of 1e4


def check_token_loss(loss: TokenLoss, plain: TokenLoss | None = None, /, **hyper: Any) -> None:
    """Checks value and gradient of a token loss on hard cases, in float64.

    The cases: ordinary logits, logits of +-1e4, rows of equal logits, a vocabulary of one token, a
    single position. In each the gradient (the loss's own rule, if it has one) must equal central
    finite differences and, where `plain` is given, `jax.grad` of it, within 1e-6 of the largest
    entry or of 1; a cotangent of 0 must give a gradient of 0; losses must be finite, one a target,
    the same in any order of the targets, and of at least float32 (float64 for float64 logits).

    Args:
      loss: (logits [N, V], targets [N], aux, *, hyper-parameters) -> [N].
      plain: the same function without a gradient rule of its own.
      **hyper: the loss's hyper-parameters; a `Token` as its id.

    Raises:
      AssertionError: naming the loss, the case, the property, and the values that differ.

    Example:
      >>> from dlm.losses.cross_entropy import cross_entropy
      >>> check_token_loss(cross_entropy)
    """
    tokens = [hyper[name] for name, hint in get_type_hints(loss).items() if hint is Token]
    with jax.enable_x64(True):
        for case, logits, targets in _cases(tokens):
            where = f"loss {loss_name(loss)!r}, {case}"
            _check_values(where, loss, hyper, logits, targets)
            _check_gradients(where, loss, plain, hyper, logits, targets)


def _cases(tokens: list[int]) -> Iterator[tuple[str, jax.Array, jax.Array]]:
    random = np.random.default_rng(0)
    vocabulary = max([5, *tokens]) + 2
    targets = random.integers(0, vocabulary, 5 + len(tokens))
    targets[: len(tokens)] = tokens
    normal = random.normal(size=(targets.size, vocabulary))
    signs = np.where(normal > 0, 1e4, -1e4)
    for case, logits in [
        ("ordinary logits", normal),
        ("logits of +-1e4", signs),
        ("logits near +-1e4", signs + normal),
        ("equal logits", np.zeros_like(normal)),
        ("one position", normal[:1]),
    ]:
        yield case, jnp.asarray(logits), jnp.asarray(targets[: len(logits)], jnp.int32)
    if not tokens:
        yield "a vocabulary of one", jnp.asarray(normal[:, :1]), jnp.zeros(targets.size, jnp.int32)


def _aux(targets: jax.Array, logits: jax.Array) -> Aux:
    """Arrays as the library gives them; `others` are the logits with their tokens turned round."""
    count = jnp.arange(targets.size, dtype=jnp.int32)
    previous = jnp.stack([targets[::-1], jnp.full_like(targets, -1), targets], axis=1)
    return Aux(
        jnp.ones(targets.size, jnp.float32), jnp.zeros_like(count), count, previous, logits[:, ::-1]
    )


def _check_values(
    where: str, loss: TokenLoss, hyper: dict[str, Any], logits: jax.Array, targets: jax.Array
) -> None:
    aux = _aux(targets, logits)
    for given, allowed in [("float64", ["float64"]), ("float32", ["float32", "float64"])]:
        losses = _losses(loss, logits.astype(given), targets, aux, hyper)
        assert losses.shape == targets.shape, (
            f"{where}: shape {list(losses.shape)} for {targets.size} targets; one value a target"
        )
        assert losses.dtype.name in allowed, (
            f"{where}: {losses.dtype} from {given} logits; at least float32, float64 stays"
        )
        assert jnp.all(jnp.isfinite(losses)), f"{where}: not finite in {given}: {losses}"
    losses = _losses(loss, logits, targets, aux, hyper)
    z, y, extra = jax.tree.map(lambda array: array[::-1], (logits, targets, aux))
    turned = _losses(loss, z, y, extra, hyper)[::-1]
    _assert_close(f"{where}: targets in reverse order", turned, losses)


def _losses(
    loss: TokenLoss, logits: jax.Array, targets: jax.Array, aux: Aux, hyper: dict[str, Any]
) -> jax.Array:
    return told_apart(loss(logits, targets, aux, **hyper)).losses


def _check_gradients(
    where: str,
    loss: TokenLoss,
    plain: TokenLoss | None,
    hyper: dict[str, Any],
    logits: jax.Array,
    targets: jax.Array,
) -> None:
    aux = _aux(targets, logits)
    cotangents = jnp.linspace(0.5, 2.0, targets.size)

    def total(function: TokenLoss, weights: jax.Array) -> Callable[[jax.Array], jax.Array]:
        return lambda z: jnp.sum(weights * _losses(function, z, targets, aux, hyper))

    gradient = jax.grad(total(loss, cotangents))(logits)
    _assert_close(
        f"{where}: gradient against finite differences",
        gradient,
        _finite_differences(total(loss, cotangents), logits),
    )
    masked = jax.grad(total(loss, jnp.zeros_like(cotangents)))(logits)
    assert jnp.all(masked == 0), f"{where}: gradient {masked} where every weight is 0"
    if plain is not None:
        value, expected = jax.value_and_grad(total(plain, cotangents))(logits)
        _assert_close(f"{where}: value against plain", total(loss, cotangents)(logits), value)
        _assert_close(f"{where}: gradient against jax.grad of plain", gradient, expected)


def _finite_differences(function: Callable[[jax.Array], jax.Array], at: jax.Array) -> jax.Array:
    moves = STEP * jnp.eye(at.size, dtype=at.dtype).reshape(-1, *at.shape)
    slopes = jax.vmap(lambda move: (function(at + move) - function(at - move)) / (2 * STEP))
    return slopes(moves).reshape(at.shape)


def _assert_close(what: str, got: jax.Array, expected: jax.Array) -> None:
    error = np.abs(np.asarray(got) - np.asarray(expected))
    allowed = TOLERANCE * max(1.0, np.abs(expected).max(initial=0))
    if not (error <= allowed).all():  # a NaN anywhere fails too
        worst = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error)), error.shape)
        place = [int(i) for i in worst]
        raise AssertionError(f"{what}: at {place} {got[worst]!r}, expected {expected[worst]!r}")
