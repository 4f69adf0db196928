"""From the `loss` section of a config to a loss: found by its name, its hyper-parameters bound."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, get_type_hints

from dlm.core.errors import UserError
from dlm.losses.api import SUPPLIED, Frozen, Losses, Term, Token, level, loss_name
from dlm.models.decoder import Model


def find(name: str, where: str = "loss.name") -> Callable[..., Any]:
    """Finds a loss: `cross_entropy` in this folder, or `package.module:function` anywhere.

    Args:
      name: of the loss.
      where: the config key that says it, for messages.

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
            f"{where}={name!r}: no module {module_name!r}; name a file of dlm/losses or a "
            "function as 'package.module:function'"
        ) from None
    loss = getattr(module, function, None)
    if not callable(loss):
        raise UserError(f"{where}={name!r}: module {module_name!r} has no function {function!r}")
    return loss


class Known(NamedTuple):
    """What hyper-parameters are resolved by.

    Attributes:
      token_id: gives the id of a text that is one token (`Tokenizer.token_id`).
      model: gives the model of the run that a `Frozen` hyper-parameter names, by its own name.
    """

    token_id: Callable[[str], int]
    model: Callable[[str], Model]


def bind(
    loss: Callable[..., Any], args: Mapping[str, Any], known: Known, where: str = "loss.args"
) -> Callable[..., Any]:
    """Fixes a loss's hyper-parameters, checked against its signature.

    Args:
      loss: the function found.
      args: hyper-parameters by name, from `loss.args`.
      known: resolves those that are tokens or runs.
      where: the config key that says them, for messages.

    Returns:
      `functools.partial(loss, **resolved)`.

    Raises:
      UserError: an unknown, missing or wrongly typed hyper-parameter.
    """
    taken = {
        name: parameter
        for name, parameter in inspect.signature(loss).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in SUPPLIED
    }
    hints = get_type_hints(loss)
    resolved = {}
    for name, value in args.items():
        if name not in taken:
            near = difflib.get_close_matches(name, taken, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {sorted(taken) or 'none'}"
            raise UserError(
                f"{where}.{name}: loss {loss_name(loss)!r} has no such argument; {hint}"
            )
        resolved[name] = _convert(f"{where}.{name}", value, hints.get(name), known)
    for name, parameter in taken.items():
        if parameter.default is parameter.empty and name not in resolved:
            raise UserError(f"{where}.{name}: loss {loss_name(loss)!r} needs it and has no default")
    return partial(loss, **resolved)


def frozen_runs(loss: Callable[..., Any], args: Mapping[str, Any]) -> dict[str, str]:
    """The `Frozen` hyper-parameters among `args`: the workdir of each, by name.

    Raises:
      UserError: one of them is no text.
    """
    hints = get_type_hints(loss)
    found = {name: value for name, value in args.items() if hints.get(name) is Frozen}
    for name, value in found.items():
        if not isinstance(value, str):
            raise UserError(f"loss.args.{name}: {value!r} is not the workdir of a run")
    return found


def _convert(where: str, value: Any, hint: Any, known: Known) -> Any:
    if hint is Token:
        if not isinstance(value, str):
            raise UserError(f"{where}: {value!r} is not the text of a token")
        return known.token_id(value)
    if hint is Frozen:
        return known.model(where.rpartition(".")[2])
    if hint is Losses:
        return _terms(where, value, known)
    if hint is float and type(value) in (int, float):
        return float(value)
    if hint in (bool, int, float, str) and type(value) is not hint:
        raise UserError(f"{where}: {value!r} is a {type(value).__name__}, not a {hint.__name__}")
    return value


def _terms(where: str, value: Any, known: Known) -> Losses:
    if not isinstance(value, Mapping) or not value:
        raise UserError(f"{where}: {value!r} is not {{name of a loss: weight}}")
    terms = []
    for name, said in value.items():
        place, loss = f"{where}.{name}", find(name, where)
        args = dict(said) if isinstance(said, Mapping) else {"weight": said}
        if level(loss) != "token":
            raise UserError(f"{place}: only token losses can be summed on one forward pass")
        if "weight" not in args:
            raise UserError(f"{place}: say its 'weight'")
        weight = _convert(f"{place}.weight", args.pop("weight"), float, known)
        terms.append(Term(name, weight, bind(loss, args, known, place)))
    return Losses(tuple(terms))
