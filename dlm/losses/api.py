"""What a loss is: its three levels, what it is given, how it is named and bound to a config.

    TokenLoss     (logits [N, V], targets [N], aux, *, hyper-parameters) -> losses [N]
    SequenceLoss  (log_probs [U], aux, *, hyper-parameters) -> values [U], weights [U]
    Objective     (params, batch, context, *, hyper-parameters) -> {term: Mean}

The first parameter's name tells the level. Hyper-parameters are keyword-only; `loss.args` sets
them. An objective is also given what it names among `SUPPLIED` (the model, the config's normaliser
and chunk, whether it trains).
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, NewType, TypeVar, get_type_hints

import jax
import jax.numpy as jnp

from dlm.core.errors import UserError

TokenLoss = Callable[..., jax.Array]
Token = NewType("Token", int)
"""Annotates a hyper-parameter that is a token: its text in `loss.args`, its id for the loss."""

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
      others: arrays [N, ...] of a second pass or a teacher; None unless an objective gives them.
    """

    weight: jax.Array
    channel: jax.Array
    position: jax.Array
    previous: jax.Array | None = None
    others: Any = None


class Context(NamedTuple):
    """What an objective knows beside parameters and batch.

    Attributes:
      key: [B] random keys, one a row, already folded with the step and the row's place in the whole
        batch: whatever is drawn from them does not depend on micro-batches or devices.
      step: int32 scalar, batches seen.
      updates: int32 scalar, optimiser updates made.
      frozen: parameters that are read and never trained (a teacher, a reference), or None.
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


def find(name: str) -> Callable[..., Any]:
    """Finds a loss: `cross_entropy` in this folder, or `package.module:function` anywhere.

    Raises:
      UserError: no such module or no such function.
    """
    path = name if ":" in name else f"{__package__}.{name}:{name}"
    module_name, _, function = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not module_name.startswith(error.name or module_name):
            raise
        raise UserError(
            f"loss.name={name!r}: no module {module_name!r}; name a file of dlm/losses or a "
            "function as 'package.module:function'"
        ) from None
    loss = getattr(module, function, None)
    if not callable(loss):
        raise UserError(f"loss.name={name!r}: module {module_name!r} has no function {function!r}")
    return loss


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


def bind(
    loss: Callable[..., Any], args: Mapping[str, Any], token_id: Callable[[str], int]
) -> Callable[..., Any]:
    """Fixes a loss's hyper-parameters, checked against its signature.

    Args:
      loss: the function found.
      args: hyper-parameters by name, from `loss.args`.
      token_id: gives the id of a text that is one token (`Tokenizer.token_id`).

    Returns:
      `functools.partial(loss, **resolved)`.

    Raises:
      UserError: an unknown, missing or wrongly typed hyper-parameter.
    """
    known = {
        name: parameter
        for name, parameter in inspect.signature(loss).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in SUPPLIED
    }
    hints = get_type_hints(loss)
    resolved = {}
    for name, value in args.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {sorted(known) or 'none'}"
            raise UserError(
                f"loss.args.{name}: loss {loss_name(loss)!r} has no such argument; {hint}"
            )
        resolved[name] = _convert(f"loss.args.{name}", value, hints.get(name), token_id)
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in resolved:
            raise UserError(
                f"loss.args.{name}: loss {loss_name(loss)!r} needs it and has no default"
            )
    return partial(loss, **resolved)


def _convert(where: str, value: Any, hint: Any, token_id: Callable[[str], int]) -> Any:
    if hint is Token:
        if not isinstance(value, str):
            raise UserError(f"{where}: {value!r} is not the text of a token")
        return token_id(value)
    if hint is float and type(value) in (int, float):
        return float(value)
    if hint in (bool, int, float, str) and type(value) is not hint:
        raise UserError(f"{where}: {value!r} is a {type(value).__name__}, not a {hint.__name__}")
    return value


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


def reads_previous(loss: Loss) -> Loss:
    """Declares that a token loss reads `aux.previous`, which is made for those that do alone."""
    setattr(loss, "reads_previous", True)  # noqa: B010  (as in `covers`)
    return loss


def asks_for_previous(loss: TokenLoss) -> bool:
    """Whether a token loss, bound or not, reads `aux.previous`."""
    function = loss.func if isinstance(loss, partial) else loss
    return getattr(function, "reads_previous", False)


def supervised_weights(loss: TokenLoss, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """The weights that a token loss gives to targets: 0 on those it does not cover.

    Args:
      loss: a token loss, bound or not.
      targets: any shape, int32.
      weights: the same shape, float32.
    """
    function, hyper = (loss.func, loss.keywords) if isinstance(loss, partial) else (loss, {})
    mask = getattr(function, "covers", None)
    return weights if mask is None else jnp.where(mask(targets, **hyper), weights, 0)
