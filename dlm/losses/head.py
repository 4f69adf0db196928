"""The head: token losses over the supervised positions only, in chunks, never [B*T, V] logits.

A linear total (`linear_total`) knows the cotangents of its losses beforehand, the weights, so value
and gradient come from one sweep: three products a position, nothing made twice. Where the total is
not linear in the losses (`token_losses`), the gradient sweeps again and makes the logits a second
time. How a sweep works: `sweep`.

A kernel in parts (`vocabulary.Kernel`) stays in parts: no second [V, D] is made, and a frozen part
has no gradient. Logits of masked tokens (padding, or new and not trained yet) reach the loss as the
lowest finite number; their gradient is 0, whatever the loss says. A loss that sums over the
vocabulary otherwise than by softmax leaves them out: `vocabulary.is_hidden(logits)`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dlm.losses.api import Aux, TokenLoss, supervised_weights
from dlm.losses.sweep import Gradients, Inputs, TokenScores, Wanted, sweep
from dlm.models.vocabulary import Kernel


class Other(NamedTuple):
    """A second look at the same positions, whose logits a loss reads as `aux.others`.

    Attributes:
      hidden: [N, D'], of another pass or of a teacher.
      kernel: [V, D'], whole or in parts; None = that of the first look.
    """

    hidden: jax.Array
    kernel: jax.Array | Kernel | None = None


def linear_total(
    loss: TokenLoss,
    kernel: jax.Array | Kernel,
    hidden: jax.Array,
    targets: jax.Array,
    scale: jax.Array,
    aux: Aux,
    *,
    chunk: int,
    other: Other | None = None,
) -> tuple[jax.Array, TokenScores]:
    """Computes `sum_i scale_i * loss_i`, and its gradients in the same sweep.

    Differentiable in `kernel`, `hidden` and `other`. The gradient of one that nobody differentiates
    (a frozen head, a teacher) is not computed, and without differentiation only the losses are.

    Args:
      loss: a bound token loss.
      kernel: [V, D], a row of output weights for each token; or such rows in parts, with a mask.
      hidden: [N, D] float32, or bfloat16 for products in bfloat16 with float32 sums.
      targets: [N] int32 in [0, V).
      scale: [N] float32 >= 0, the weight of each loss in the total; where it is 0 nothing is made.
      aux: arrays [N, ...], gathered along for the loss.
      chunk: positions whose logits exist at once, see `sweep.chunk_size`.
      other: makes `aux.others`, in the same chunks.

    Returns:
      The total, a float32 scalar, and the scores of every position, which are not differentiated.

    Raises:
      UserError: the loss returns another shape than [N] or a dtype below float32.
    """

    def swept(inputs: Inputs, wanted: Wanted) -> tuple[tuple[jax.Array, TokenScores], Gradients]:
        scores, gradients = sweep(loss, chunk, inputs, inputs.weights, wanted)
        return (jnp.sum(inputs.weights * scores.losses), scores), gradients

    def forward(primals: Any) -> tuple[tuple[jax.Array, TokenScores], Gradients]:
        return swept(_values(primals), _perturbed(primals))

    def backward(gradients: Gradients, cotangents: Any) -> tuple[Inputs]:
        def scaled(gradient: jax.Array) -> jax.Array:
            return (cotangents[0] * gradient).astype(gradient.dtype)

        return (jax.tree.map(scaled, gradients).cotangents(),)

    run = jax.custom_vjp(lambda inputs: swept(inputs, _nothing(inputs))[0])
    run.defvjp(forward, backward, symbolic_zeros=True)
    total, scores = run(_inputs(kernel, hidden, targets, scale, aux, other))
    return total, lax.stop_gradient(scores)


def token_losses(
    loss: TokenLoss,
    kernel: jax.Array | Kernel,
    hidden: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    aux: Aux,
    *,
    chunk: int,
) -> jax.Array:
    """Computes the loss of every position of weight > 0, for totals that are not linear in them.

    Arguments as in `linear_total`, but differentiable by any cotangents [N]. They are known only
    once all losses are, so the gradient makes the logits a second time, chunk by chunk.

    Returns:
      [N] float32, unweighted; 0 where the weight is 0.
    """

    def forward(primals: Any) -> tuple[jax.Array, tuple]:
        inputs = _values(primals)
        # Residuals are arrays: an empty tuple says "wanted", None says "not".
        marks = jax.tree.map(lambda wanted: () if wanted else None, _perturbed(primals))
        return run(inputs), (inputs, marks)

    def backward(residuals: tuple, cotangents: jax.Array) -> tuple[Inputs]:
        inputs, marks = residuals
        kernels = tuple(tuple(mark is not None for mark in of) for of in marks.kernels)
        wanted = Wanted(kernels, tuple(mark is not None for mark in marks.hidden))
        return (sweep(loss, chunk, inputs, cotangents, wanted)[1].cotangents(),)

    run = jax.custom_vjp(
        lambda inputs: sweep(loss, chunk, inputs, inputs.weights, _nothing(inputs))[0].losses
    )
    run.defvjp(forward, backward, symbolic_zeros=True)
    return run(_inputs(kernel, hidden, targets, weights, aux, None))


def token_scores(
    loss: TokenLoss,
    kernel: jax.Array | Kernel,
    hidden: jax.Array,
    targets: jax.Array,
    loss_weights: jax.Array,
    channel_ids: jax.Array,
    positions: jax.Array,
    *,
    chunk: int,
) -> tuple[jax.Array, jax.Array]:
    """Scores every supervised position of a batch, for evaluation: no gradient is made.

    Args:
      loss: a bound token loss.
      kernel: [V, D].
      hidden: [B, T, D].
      targets: [B, T] int32.
      loss_weights: [B, T] float32, as in `Batch`.
      channel_ids: [B, T] int32, as in `Batch`.
      positions: [B, T] int32, as in `Batch`.
      chunk: positions whose logits exist at once.

    Returns:
      losses [B, T] float32 and correct [B, T] bool (the target is the argmax); 0 and False where
      the weight is 0 or the loss does not cover the target.
    """
    weights = supervised_weights(loss, targets, loss_weights).reshape(-1)
    aux = Aux(weights, channel_ids.reshape(-1), positions.reshape(-1))
    flat = hidden.reshape(-1, hidden.shape[-1])
    _, scores = linear_total(loss, kernel, flat, targets.reshape(-1), weights, aux, chunk=chunk)
    return scores.losses.reshape(targets.shape), scores.correct.reshape(targets.shape)


def _inputs(
    kernel: jax.Array | Kernel,
    hidden: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    aux: Aux,
    other: Other | None,
) -> Inputs:
    looks = (hidden,) if other is None else (hidden, other.hidden)
    own = None if other is None else other.kernel
    kernels = (kernel,) if own is None else (kernel, own)
    inputs = Inputs(tuple(map(_in_parts, kernels)), looks, targets, weights, aux)
    return jax.tree.map(jnp.asarray, inputs)


def _values(primals: Any) -> Any:
    """The arrays behind what `symbolic_zeros` hands to a forward rule."""
    return jax.tree.map(lambda primal: primal.value, primals)


def _perturbed(primals: Any) -> Wanted:
    """Which of the operands are being differentiated."""
    kernels = tuple(tuple(part.perturbed for part in kernel.parts) for kernel in primals.kernels)
    return Wanted(kernels, tuple(hidden.perturbed for hidden in primals.hidden))


def _nothing(inputs: Inputs) -> Wanted:
    kernels = tuple((False,) * len(kernel.parts) for kernel in inputs.kernels)
    return Wanted(kernels, (False,) * len(inputs.hidden))


def _in_parts(kernel: Any) -> Kernel:
    return kernel if isinstance(kernel, Kernel) else Kernel((kernel,))
