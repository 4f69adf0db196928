"""Tensors as they lie in files, and the strict step from them to the parameters of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlm.core.errors import UserError
from dlm.core.paths import flatten, unflatten
from dlm.models.decoder import Model
from dlm.models.table import Weight

Place = Callable[[str, np.ndarray], jax.Array]

_FIRST = "layers/0/"
_NAMED = 3  # problems that one message names


@dataclass(frozen=True)
class Tensor:
    """A tensor that is not read yet.

    Attributes:
      shape: as numpy reads it, the last axis the fastest.
      read: gives it as float32; owned by the caller.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def place_on_default(path: str, array: np.ndarray) -> jax.Array:
    """Puts a leaf on the default device."""
    return jnp.asarray(array)


def load(
    tensors: Mapping[str, Tensor],
    table: Sequence[Weight],
    model: Model,
    *,
    where: str,
    place: Place = place_on_default,
) -> dict[str, Any]:
    """Builds a model's parameters from tensors, one after the other.

    Beside the parameters themselves no more than about two tensors are held at a time. Nothing is
    read before names and shapes have all been found right.

    Args:
      tensors: by their name.
      table: where each leaf lies in them.
      model: whose parameters are wanted.
      where: the file or folder, for messages.
      place: puts a float32 leaf on its device or mesh, given its path.

    Returns:
      The parameters, float32, as `model.init` shapes them.

    Raises:
      UserError: a tensor is missing, extra, of another shape, or cut short.
    """
    shapes = leaf_shapes(model)
    by_path = {weight.path: weight for weight in table}
    check(tensors, by_path, shapes, where)
    flat: dict[str, jax.Array] = {}
    held: tuple[str, np.ndarray] | None = None  # some hold several leaves of ours
    for path, shape in shapes.items():
        weight = by_path[path]
        if held is None or held[0] != weight.name:
            held = None  # before the next is read
            held = weight.name, tensors[weight.name].read()
        leaf = place(path, np.ascontiguousarray(weight.read(held[1], shape)))
        flat[path] = jax.block_until_ready(leaf)  # a copy under way would keep more tensors alive
    return unflatten(flat)


def leaf_shapes(model: Model) -> dict[str, tuple[int, ...]]:
    """The shapes of a model's leaves; one layer is traced, for the others are like it."""
    shallow = replace(model, config=replace(model.config, num_layers=1))
    shapes = flatten(jax.eval_shape(shallow.init, jax.random.key(0)))
    layer = {
        path.removeprefix(_FIRST): leaf.shape
        for path, leaf in shapes.items()
        if path.startswith(_FIRST)
    }
    around = {path: leaf.shape for path, leaf in shapes.items() if not path.startswith(_FIRST)}
    return around | {
        f"layers/{i}/{path}": shape
        for i in range(model.config.num_layers)
        for path, shape in layer.items()
    }


def check(
    tensors: Mapping[str, Tensor],
    table: Mapping[str, Weight],
    shapes: Mapping[str, tuple[int, ...]],
    where: str,
) -> None:
    """Compares what is there with what the leaves need; see `load`.

    Raises:
      UserError: names up to three tensors with what was wanted.
    """
    problems, wanted = [], set()
    for path, shape in shapes.items():
        weight = table[path]
        theirs, found = weight.their_shape(shape), tensors.get(weight.name)
        wanted.add(weight.name)
        if found is None:
            problems.append(f"{path}: missing, wanted {theirs} as {weight.name!r}")
        elif found.shape != theirs:
            problems.append(
                f"{path}: file has {found.shape}, model wants {theirs}, from {weight.name!r}"
            )
    problems += [
        f"{name!r} {tensor.shape}: extra, the model has no place for it"
        for name, tensor in tensors.items()
        if name not in wanted
    ]
    if problems:
        more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise UserError(f"{where} does not fit the model: {'; '.join(problems[:_NAMED])}{more}")


def narrowed(name: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """An array in another dtype, contiguous.

    Raises:
      UserError: a number is beyond what the dtype can hold.
    """
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(array.astype(dtype))
    if np.isfinite(array).all() and not np.isfinite(cast.astype(np.float32)).all():
        raise UserError(
            f"{name}: {np.abs(array).max():.3g} is beyond the range of {dtype.name}; "
            "export as float32"
        )
    return cast
