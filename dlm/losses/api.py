"""What a loss is: its three levels, what it is given, what it declares.

    TokenLoss     (logits [N, V], targets [N], aux, *, hyper-parameters) -> losses [N], or `Parts`
    SequenceLoss  (log_probs [U], aux, *, hyper-parameters) -> values [U], weights [U]
    Objective     (params, batch, context, *, hyper-parameters) -> {term: Mean}

The first parameter's name tells the level. Hyper-parameters are keyword-only; `loss.args` sets
them. An objective is also given what it names among `SUPPLIED` (the model, the config's normaliser
and chunk, whether it trains).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, NewType, TypeVar

import jax
import jax.numpy as jnp

from dlm.core.errors import UserError
from dlm.core.mean import Mean
from dlm.models.decoder import Model

TokenLoss = Callable[..., Any]  # an array or `Parts`
Token = NewType("Token", int)
"""Annotates a hyper-parameter that is a token: its text in `loss.args`, its id for the loss."""
Frozen = NewType("Frozen", Model)
"""Annotates a hyper-parameter that is another run: its workdir in `loss.args`, its model for the
objective, which finds its parameters in `context.frozen` under the hyper-parameter's name.
"""


class Term(NamedTuple):
    """One of several losses: its name, its weight, and itself, bound."""

    name: str
    weight: float
    loss: TokenLoss


Losses = NewType("Losses", tuple[Term, ...])
"""Annotates a hyper-parameter that is several token losses: in `loss.args` `{name: weight}`, or
`{name: {"weight": w, hyper-parameter: value}}`.
"""

LEVELS = {"logits": "token", "log_probs": "sequence", "params": "objective"}
NORMALISERS = ("token", "turn", "dialogue", "sequence", "risk")
SUPPLIED = ("model", "normaliser", "chunk", "train")


class Aux(NamedTuple):
    """Arrays beside the logits of N positions, gathered alike.

    Attributes:
      weight: [N] float32 > 0, the weight of the target; the library multiplies by it, not the loss.
      channel: [N] int32, role or channel of the target.
      position: [N] int32, position in the dialogue.
      previous: [N, P] int32, earlier tokens of the segment, -1 where there is none; None unless
        the loss is declared by `reads_previous`.
      others: [N, V] logits of a second pass or of a teacher, made in the same chunk; None unless an
        objective gives them.
    """

    weight: jax.Array
    channel: jax.Array
    position: jax.Array
    previous: jax.Array | None = None
    others: jax.Array | None = None


class Parts(NamedTuple):
    """What a token loss may return in place of its losses: these, and what they are made of.

    Attributes:
      losses: [N].
      parts: {name: Mean([N], [N])}, logged as `term:NAME/loss`: of each position the part's loss,
        and 1 where the part speaks about its target, else 0.
    """

    losses: jax.Array
    parts: dict[str, Mean]


def told_apart(result: jax.Array | Parts) -> Parts:
    """What a token loss returned, as losses and parts."""
    return result if isinstance(result, Parts) else Parts(result, {})


class SequenceAux(NamedTuple):
    """Arrays beside the log probabilities of the U segments of a row, which holds whole groups.

    Attributes:
      pair_ids: [U] int32, equal for the endings of one group; -1 where there is no segment.
      chosen: [U] bool, the ending that is preferred, one of each group.
      lengths: [U] float32, supervised targets.
      reference_log_probs: [U] float32, log probabilities under the model that training began with;
        None unless the loss is declared to need the `reference`.
    """

    pair_ids: jax.Array
    chosen: jax.Array
    lengths: jax.Array
    reference_log_probs: jax.Array | None = None


class Context(NamedTuple):
    """What an objective knows beside parameters and batch.

    Attributes:
      key: [B] random keys, one a row, already folded with the step and the row's place in the whole
        batch: whatever is drawn from them does not depend on micro-batches or devices.
      step: int32 scalar, batches seen.
      updates: int32 scalar, optimiser updates made.
      frozen: parameters that are read and never trained (a teacher, a reference), by the name of
        the `Frozen` hyper-parameter; None where the loss has none.
    """

    key: jax.Array
    step: jax.Array
    updates: jax.Array
    frozen: Any = None


@dataclass(frozen=True)
class LossConfig:
    """The `loss` section of a config.

    Attributes:
      name: a file of `dlm/losses` that holds a function of its own name, or
        `package.module:function`.
      args: the loss's hyper-parameters; a `Token` is given as its text.
      normaliser: what the mean is taken over: token, turn, dialogue, sequence or risk.
      chunk: supervised positions whose logits exist at once, 0 = what the device does best: speed
        and memory, never the result.
    """

    name: str = "cross_entropy"
    args: dict[str, Any] = field(default_factory=dict)
    normaliser: str = "token"
    chunk: int = 0


def level(loss: Callable[..., Any]) -> str:
    """The level of a loss, `token`, `sequence` or `objective`, by its first parameter's name.

    Raises:
      UserError: the first parameter has another name.
    """
    first = next(iter(inspect.signature(loss).parameters), None)
    if first not in LEVELS:
        raise UserError(
            f"loss {loss_name(loss)!r}: its first parameter is {first!r}; a token loss begins with "
            "'logits', a sequence loss with 'log_probs', an objective with 'params'"
        )
    return LEVELS[first]


def loss_name(loss: Callable[..., Any]) -> str:
    """The name of a loss, bound or not, for messages."""
    function = loss.func if isinstance(loss, partial) else loss
    return getattr(function, "__name__", repr(function))


Loss = TypeVar("Loss", bound=Callable[..., Any])


def covers(mask: Callable[..., jax.Array]) -> Callable[[Loss], Loss]:
    """Declares which targets a token loss speaks about; the others count nowhere.

    `mask(targets, **hyper-parameters) -> bool`, of the shape of targets. Where it is false the
    position has weight 0 for this loss: it enters neither total nor count (a loss of 0 that is
    counted would dilute the mean), and its logits are not computed.
    """

    def declare(loss: Loss) -> Loss:
        setattr(loss, "covers", mask)  # noqa: B010  (an attribute of a function has no type)
        return loss

    return declare


def _always(**_: Any) -> bool:
    return True


def reads_previous(when: Callable[..., bool] = _always) -> Callable[[Loss], Loss]:
    """Declares that a token loss reads `aux.previous`, which is made for those that do alone.

    `when(**hyper-parameters)` says whether it does.
    """

    def declare(loss: Loss) -> Loss:
        setattr(loss, "reads_previous", when)  # noqa: B010  (as in `covers`)
        return loss

    return declare


def asks_for_previous(loss: TokenLoss) -> bool:
    """Whether a token loss, bound or not, reads `aux.previous`."""
    function, hyper = _unbound(loss)
    when = getattr(function, "reads_previous", None)
    return when is not None and when(**hyper)


def needs(*what: str) -> Callable[[Loss], Loss]:
    """Declares what a sequence loss needs.

    Args:
      what: "pairs" = groups of two endings, no more; "reference" = `reference_log_probs`, which are
        made for those that need them alone.
    """

    def declare(loss: Loss) -> Loss:
        setattr(loss, "needs", what)  # noqa: B010  (as in `covers`)
        return loss

    return declare


def compares_pairs(loss: Callable[..., Any]) -> bool:
    """Whether a sequence loss, bound or not, is one of pairs."""
    return "pairs" in _needs(loss)


def reads_reference(loss: Callable[..., Any]) -> bool:
    """Whether a loss, bound or not, reads `reference_log_probs`."""
    return "reference" in _needs(loss)


def _needs(loss: Callable[..., Any]) -> tuple[str, ...]:
    return getattr(loss.func if isinstance(loss, partial) else loss, "needs", ())


def supervised_weights(loss: TokenLoss, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """The weights that a token loss gives to targets: 0 on those it does not cover.

    Args:
      loss: a token loss, bound or not.
      targets: any shape, int32.
      weights: the same shape, float32.
    """
    function, hyper = _unbound(loss)
    mask = getattr(function, "covers", None)
    return weights if mask is None else jnp.where(mask(targets, **hyper), weights, 0)


def _unbound(loss: TokenLoss) -> tuple[Callable[..., Any], dict[str, Any]]:
    return (loss.func, loss.keywords) if isinstance(loss, partial) else (loss, {})
