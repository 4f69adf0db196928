"""The axes of a mesh of devices, and work that each device does on its own part.

Everything else is left to the compiler, which lays out plain array code by the shardings of its
inputs. What it lays out badly (loops over heads or chunks, kernels of its own) says here how its
arrays are cut, and then runs on each part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType

AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")  # the axes that rows are dealt over


def current_mesh() -> AbstractMesh | None:
    """The mesh that `jax.set_mesh` set; None without one, on one device, or on a device's part."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.axis_names != AXES or mesh.size == 1:
        return None
    return mesh if set(mesh.axis_types) == {AxisType.Auto} else None


def row_axes(mesh: AbstractMesh, rows: int) -> tuple[str, ...] | None:
    """The axes that so many rows are dealt over: none where they do not divide them."""
    return ROWS if rows % (mesh.shape["data"] * mesh.shape["fsdp"]) == 0 else None


def on_parts(
    work: Callable[..., Any], mesh: AbstractMesh, parts: Any, results: Any
) -> Callable[..., Any]:
    """`work` on each device's part of its arguments.

    Args:
      work: of arrays, positional.
      mesh: see `current_mesh`.
      parts: a `PartitionSpec` for each argument, or for all arrays of one.
      results: likewise for what `work` returns.
    """
    return jax.shard_map(work, mesh=mesh, in_specs=parts, out_specs=results, check_vma=False)
