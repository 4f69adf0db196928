"""One sweep over the supervised positions, chunk by chunk; what `head` builds its totals from.

Positions of weight > 0 are gathered and swept in chunks of a fixed size; the number of chunks
follows the data. What a sweep does with a chunk, given hidden states h [C, D], the kernel E [V, D]
and the cotangents c [C] of the losses:

    logits = h E'      losses = loss(logits)      dlogits = c * d losses / d logits
    dh = dlogits E     dE += dlogits' h

Accelerators multiply tiles: there the rows of a part are filled up to whole ones for the products,
and cut off again before the loss sees them. An H100 trains a GPT-2 of 124M with 50,257 tokens 1.2
times as fast by it, and 1.3 times as fast in chunks of 2,048 positions as in those of 256.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dlm.core.errors import UserError
from dlm.core.mean import Mean
from dlm.losses.api import Aux, TokenLoss, loss_name, told_apart
from dlm.models.vocabulary import Kernel, hide


def chunk_size(asked: int) -> int:
    """Positions whose logits exist at once: as asked or, for 0, what the device does best."""
    if asked:
        return asked
    return 256 if jax.default_backend() == "cpu" else 2048


def _tile() -> int:
    """Rows of a kernel that the device multiplies together."""
    return 1 if jax.default_backend() == "cpu" else 128


class TokenScores(NamedTuple):
    """What every position scored, unweighted; 0 and False where it is not supervised.

    Attributes:
      losses: [N] float32 (float64 for float64 hidden states).
      correct: [N] bool, the target has the highest logit (of equal ones, the first).
      parts: {name: Mean([N], [N])}, what the loss tells apart; see `api.Parts`.
    """

    losses: jax.Array
    correct: jax.Array
    parts: dict[str, Mean]


_Parts = dict[str, Mean]
_Totals = tuple[jax.Array | None, ...]


class Inputs(NamedTuple):
    """What a sweep reads; positions of weight 0 are skipped.

    Attributes:
      kernels: of each look at the positions, or one for all.
      hidden: of each look, [N, D]; the logits of the second are `aux.others`.
      targets: [N] int32.
      weights: [N] float32.
      aux: arrays [N, ...].
    """

    kernels: tuple[Kernel, ...]
    hidden: tuple[jax.Array, ...]
    targets: jax.Array
    weights: jax.Array
    aux: Aux


class Wanted(NamedTuple):
    """Which gradients a sweep makes: of each part of each kernel, of each look's hidden states."""

    kernels: tuple[tuple[bool, ...], ...]
    hidden: tuple[bool, ...]


class Gradients(NamedTuple):
    """Of `sum_i cotangents_i * losses_i`; None where nobody asked."""

    kernels: tuple[_Totals, ...]
    hidden: _Totals

    def cotangents(self) -> Inputs:
        """As a rule of `custom_vjp` returns them: None is a gradient of 0."""
        kernels: Any = tuple(map(Kernel, self.kernels))  # type: ignore[arg-type]
        return Inputs(kernels, self.hidden, None, None, None)  # type: ignore[arg-type]


class _Rows(NamedTuple):
    """A kernel ready for products: its parts in one dtype and whole tiles, and their true sizes."""

    parts: tuple[jax.Array, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, kernel: Kernel, dtype: Any) -> _Rows:
        """The rows of a kernel, for hidden states of that dtype."""
        parts = tuple(_in_tiles(part.astype(dtype)) for part in kernel.parts)
        return cls(parts, tuple(len(part) for part in kernel.parts))

    def logits(self, h: jax.Array) -> jax.Array:
        """[C, D] -> [C, V]; masked tokens are not hidden yet."""
        products = zip(self.parts, self.sizes, strict=True)
        return jnp.concatenate([_product(h, part.T)[:, :n] for part, n in products], axis=1)

    def pull(
        self, d_logits: jax.Array, h: jax.Array, totals: _Totals, move: bool
    ) -> tuple[_Totals, Any]:
        """Adds to the gradients of the parts; and makes that of h, where it is asked for."""
        ends = list(accumulate(self.sizes))[:-1]
        pieces = [_in_tiles(piece.T).T for piece in jnp.split(d_logits, ends, axis=1)]
        totals = tuple(
            None if total is None else total + _product(piece.T, h)
            for total, piece in zip(totals, pieces, strict=True)
        )
        pairs = zip(pieces, self.parts, strict=True)
        return totals, sum(_product(piece, part) for piece, part in pairs) if move else None

    def zeros(self, wanted: tuple[bool, ...], dtype: Any) -> _Totals:
        """Where the gradients of the parts are added up."""
        pairs = zip(self.parts, wanted, strict=True)
        return tuple(jnp.zeros(part.shape, dtype) if asked else None for part, asked in pairs)


def sweep(
    loss: TokenLoss, chunk: int, inputs: Inputs, cotangents: jax.Array, wanted: Wanted
) -> tuple[TokenScores, Gradients]:
    """Sweeps the supervised positions, gathered first, and puts what they give back in place.

    Args:
      loss: a bound token loss.
      chunk: positions whose logits exist at once, see `chunk_size`.
      inputs: what is read.
      cotangents: [N], of the losses.
      wanted: which gradients are made.

    Raises:
      UserError: the loss returns another shape than [N] or a dtype below float32.
    """
    kernels, hidden, targets, weights, aux = inputs
    size = min(chunk_size(chunk), targets.size)
    order = jnp.argsort(weights == 0, stable=True)
    count = jnp.sum(weights != 0)
    padded = jnp.pad(order, (0, -order.size % size))
    rows = [_Rows.of(kernel, h.dtype) for kernel, h in zip(kernels, hidden, strict=False)]
    looks = [min(look, len(kernels) - 1) for look in range(len(hidden))]  # the kernel of each
    asked = [any(wanted.kernels[k]) or wanted.hidden[look] for look, k in enumerate(looks)]

    def read(start: Any) -> tuple[jax.Array, list[jax.Array], Any]:
        index = lax.dynamic_slice(padded, (start,), (size,))
        valid = start + jnp.arange(size) < count
        states = [jnp.where(valid[:, None], h[index], 0) for h in hidden]
        return valid, states, jax.tree.map(lambda x: x[index], (targets, cotangents, aux))

    def shown(states: list[jax.Array]) -> list[jax.Array]:
        return [rows[k].logits(h) for k, h in zip(looks, states, strict=True)]

    def score(logits: Sequence[jax.Array], y: jax.Array, extra: Aux) -> tuple[jax.Array, _Parts]:
        held = [z if ask else lax.stop_gradient(z) for z, ask in zip(logits, asked, strict=True)]
        first, *others = (hide(z, kernels[k].mask) for k, z in zip(looks, held, strict=True))
        return _checked(loss, first, y, extra._replace(others=others[0]) if others else extra)

    def sweep_chunk(i: Any, carry: tuple[TokenScores, Gradients]) -> tuple[TokenScores, Gradients]:
        scores, gradients = carry
        start = i * size
        valid, states, (y, pulls, extra) = read(start)
        logits = shown(states)
        losses, pull, parts = jax.vjp(lambda *z: score(z, y, extra), *logits, has_aux=True)
        correct = _is_argmax(hide(logits[0], kernels[0].mask), y)
        found = TokenScores(losses, correct, parts)
        scores = _put(scores, jax.tree.map(lambda x: jnp.where(valid, x, 0), found), start)
        d_kernels, d_hidden = list(gradients.kernels), list(gradients.hidden)
        pulled = pull(jnp.where(valid, pulls, 0).astype(losses.dtype)) if any(asked) else ()
        for look, d_logits in enumerate(pulled):
            if asked[look]:
                k, h, move = looks[look], states[look], wanted.hidden[look]
                d_logits = jnp.where(valid[:, None], d_logits, 0).astype(h.dtype)
                d_kernels[k], moved = rows[k].pull(d_logits, h, d_kernels[k], move)
                d_hidden[look] = _put(d_hidden[look], moved, start) if move else None
        return scores, Gradients(tuple(d_kernels), tuple(d_hidden))

    def first_parts() -> _Parts:
        _, states, (y, _, extra) = read(0)
        return score(shown(states), y, extra)[1]

    def column(like: Any) -> jax.Array:
        return jnp.zeros((padded.size, *like.shape[1:]), like.dtype)

    dtype = jnp.promote_types(hidden[0].dtype, jnp.float32)
    parts = jax.tree.map(column, jax.eval_shape(first_parts))
    scores = TokenScores(jnp.zeros(padded.size, dtype), jnp.zeros(padded.size, bool), parts)
    totals = (r.zeros(asked, dtype) for r, asked in zip(rows, wanted.kernels, strict=True))
    moves = (column(h) if ask else None for h, ask in zip(hidden, wanted.hidden, strict=True))
    carry = (scores, Gradients(tuple(totals), tuple(moves)))
    scores, gradients = lax.fori_loop(0, (count + size - 1) // size, sweep_chunk, carry)
    back = jnp.zeros_like(order).at[order].set(jnp.arange(order.size), unique_indices=True)
    scores, moved = jax.tree.map(lambda array: array[back], (scores, gradients.hidden))
    pairs = zip(gradients.kernels, kernels, strict=True)
    return scores, Gradients(tuple(_cut(*pair) for pair in pairs), moved)


def _cut(totals: _Totals, kernel: Kernel) -> _Totals:
    """Gradients without the rows that fill tiles, in the dtypes of the parts."""
    pairs = zip(totals, kernel.parts, strict=True)
    return tuple(None if t is None else t[: len(part)].astype(part.dtype) for t, part in pairs)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """A product with sums in at least float32."""
    return jnp.matmul(a, b, preferred_element_type=jnp.promote_types(a.dtype, jnp.float32))


def _in_tiles(rows: jax.Array) -> jax.Array:
    """Fills [V, ...] up with zeros to a multiple of `_tile()` rows."""
    filled = -len(rows) % _tile()
    return jnp.pad(rows, ((0, filled), (0, 0))) if filled else rows


def _checked(
    loss: TokenLoss, logits: jax.Array, targets: jax.Array, aux: Aux
) -> tuple[jax.Array, _Parts]:
    losses, parts = told_apart(loss(logits, targets, aux))
    if losses.shape != targets.shape:
        raise UserError(
            f"loss {loss_name(loss)!r} returned shape {list(losses.shape)} for "
            f"{targets.size} targets; it must return one value a target, [N]"
        )
    if losses.dtype.name not in ("float32", "float64"):
        raise UserError(
            f"loss {loss_name(loss)!r} returned {losses.dtype}; compute it in at least float32"
        )
    return losses, parts


def _is_argmax(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Whether each target is the first of the highest logits; no for a NaN anywhere in the row."""
    mine = jnp.take_along_axis(logits, targets[:, None], axis=-1)
    earlier = jnp.arange(logits.shape[-1]) < targets[:, None]
    return ~jnp.any(~(logits <= mine) | (earlier & (logits == mine)), axis=-1)


def _put(buffers: Any, rows: Any, start: jax.Array) -> Any:
    """Writes rows into buffers at `start`, array by array."""
    return jax.tree.map(
        lambda buffer, row: lax.dynamic_update_slice_in_dim(
            buffer, row.astype(buffer.dtype), start, axis=0
        ),
        buffers,
        rows,
    )
