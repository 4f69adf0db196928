"""The leaves of a state as a checkpoint knows them: by path, shape and dtype."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dlm.core.errors import UserError


def leaves_of(tree: Any) -> dict[str, Any]:
    """Every leaf of a pytree by its path, such as `params/layers/0/mlp/up/kernel`."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def spell(leaf: Any) -> str:
    """Spells a leaf's dtype and shape, for instance `float32[3,5]`."""
    if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)):
        raise TypeError(f"a state holds arrays only, not {type(leaf).__name__} {leaf!r}")
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    """A leaf's shape, dtype and sharding; without one, the first device's, never the saved one."""
    sharding = getattr(leaf, "sharding", None)
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def check_tree(saved: Mapping[str, str], wanted: Mapping[str, str], path: Path) -> None:
    """Refuses a checkpoint whose leaves are not exactly the wanted ones; names up to three."""
    problems = [f"{n}: missing, wanted {wanted[n]}" for n in sorted(wanted.keys() - saved.keys())]
    problems += [f"{n}: extra, {saved[n]}" for n in sorted(saved.keys() - wanted.keys())]
    problems += [
        f"{name}: saved as {saved[name]}, wanted {wanted[name]}"
        for name in sorted(saved.keys() & wanted.keys())
        if saved[name] != wanted[name]
    ]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"checkpoint {path} does not fit: {'; '.join(problems[:3])}{more}")
