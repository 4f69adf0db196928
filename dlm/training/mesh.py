"""Where arrays live: a mesh of devices, and rules over parameter paths that lay leaves over it.

The mesh has three axes. Rows of a batch are dealt over `data` and `fsdp`; parameters and moments
are cut over `fsdp` (gathered when they are used) and `tensor` (never gathered: heads, feed-forward
columns and vocabulary rows). On one device all three are 1 and nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dlm.core.errors import UserError
from dlm.core.paths import Rules, flatten, resolve, unflatten
from dlm.data.batch import Batch
from dlm.models.devices import AXES, ROWS
from dlm.training.step import State

Axes = tuple[str | None, ...]

# Of each path, the mesh axis of each dimension; dimensions that are not named are whole.
DEFAULTS: Rules[Axes] = (
    (r"(embedding/tokens|head/kernel)", ("tensor", "fsdp")),
    (r"embedding/positions", (None, "fsdp")),
    (r"layers/\d+/attention/(query|key|value)/kernel", ("fsdp", "tensor")),
    (r"layers/\d+/attention/(query|key|value)/bias", ("tensor",)),
    (r"layers/\d+/attention/output/kernel", ("tensor", None, "fsdp")),
    (r"layers/\d+/mlp/(up|gate)/kernel", ("fsdp", "tensor")),
    (r"layers/\d+/mlp/(up|gate)/bias", ("tensor",)),
    (r"layers/\d+/mlp/down/kernel", ("tensor", "fsdp")),
    (r".*", ()),
)


@dataclass(frozen=True)
class MeshConfig:
    """The `mesh` section of a config: how many devices each axis has.

    Attributes:
      data: copies of the parameters, each with rows of its own; None = as many as the devices
        that the other two axes leave.
      fsdp: devices that share the parameters and deal out the rows.
      tensor: devices that share each layer's products and the vocabulary.
      rules: ordered (regex over parameter paths, axis of each dimension), asked before the
        built-in ones; an axis that does not divide its dimension is left out.
    """

    data: int | None = None
    fsdp: int = 1
    tensor: int = 1
    rules: tuple[tuple[str, Axes], ...] = ()

    def __post_init__(self) -> None:
        for name in AXES:
            devices = getattr(self, name)
            if devices is not None and devices < 1:
                raise UserError(f"mesh.{name}={devices} must be at least 1")


def make_mesh(config: MeshConfig, devices: Any = None) -> Mesh:
    """Lays the devices (default: all) out as data x fsdp x tensor.

    Raises:
      UserError: the axes need another number of devices than there are.
    """
    devices = jax.devices() if devices is None else devices
    shared = config.fsdp * config.tensor
    data = config.data or max(1, len(devices) // shared)
    if data * shared != len(devices):
        raise UserError(
            f"mesh data={data} x fsdp={config.fsdp} x tensor={config.tensor} needs "
            f"{data * shared} devices, found {len(devices)}"
        )
    grid = np.array(devices).reshape(data, config.fsdp, config.tensor)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def partition(
    params: Mapping[str, Any], mesh: Mesh, rules: Rules[Axes] = ()
) -> dict[str, PartitionSpec]:
    """Which axis cuts which dimension of each leaf: `{path: PartitionSpec}`.

    Args:
      params: nested dict of arrays or shapes.
      mesh: its sizes decide; an axis that does not divide a dimension is left out there.
      rules: the config's, asked before the built-in ones.

    Raises:
      UserError: a rule that matches nothing, an unknown axis, or more axes than dimensions.
    """
    flat = flatten(params)
    resolved = resolve(rules, flat, name="mesh.rules", defaults=DEFAULTS)
    specs = {}
    for path, axes in resolved.items():
        shape = flat[path].shape
        if unknown := [axis for axis in axes if axis is not None and axis not in AXES]:
            raise UserError(f"mesh.rules: {path}: no axis {unknown[0]!r}; there are {AXES}")
        if len(axes) > len(shape):
            raise UserError(f"mesh.rules: {path} has {len(shape)} dimensions, not {len(axes)}")
        sizes = zip(axes, shape, strict=False)
        fitting = [axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in sizes]
        specs[path] = PartitionSpec(*fitting)
    return specs


def param_shardings(
    params: Mapping[str, Any], mesh: Mesh, rules: Rules[Axes] = ()
) -> dict[str, Any]:
    """`partition` as a nested dict of shardings, shaped like the parameters."""
    specs = partition(params, mesh, rules)
    return unflatten({path: NamedSharding(mesh, spec) for path, spec in specs.items()})


def state_shardings(state: State, params: Mapping[str, Any]) -> State:
    """Shardings of a whole state: moments lie as their parameters do, all else is everywhere.

    Args:
      state: its shapes, such as `jax.eval_shape` gives.
      params: nested dict of the parameters' shardings.
    """
    mesh = next(iter(flatten(params).values())).mesh
    everywhere: Any = NamedSharding(mesh, PartitionSpec())
    flat = flatten(params)

    # The optimiser holds moments of the trainable parameters alone, under their own paths.
    def of_path(path: Any, leaf: Any) -> NamedSharding:
        names = [str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)]
        return flat.get("/".join(names), everywhere)

    opt_state = jax.tree_util.tree_map_with_path(of_path, state.opt_state)
    return State(everywhere, everywhere, dict(params), opt_state, everywhere)


def shaped(tree: Any, shardings: Any) -> Any:
    """The tree (arrays or shapes) as shapes that lie as the shardings say."""

    def one(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(one, tree, shardings)


def rows_of_devices(mesh: Mesh, rows: int) -> dict[Any, range]:
    """Which rows of a batch each device of this process holds."""
    parts = NamedSharding(mesh, PartitionSpec(ROWS)).addressable_devices_indices_map((rows,))
    return {device: range(rows)[index[0]] for device, index in parts.items() if index}


def own_rows(mesh: Mesh, rows: int) -> list[int]:
    """The rows of a batch that this process's devices hold, ascending."""
    return sorted(set().union(*rows_of_devices(mesh, rows).values()))


def make_placer(mesh: Mesh, rows: int) -> Callable[[Batch], Batch]:
    """Makes the function that puts this process's rows of a batch onto its devices.

    Args:
      mesh: all devices.
      rows: of the whole batch; a process has `own_rows` of it.

    Raises:
      UserError: the devices that rows are dealt over do not divide them.
    """
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    if rows % ways:
        raise UserError(
            f"a batch of {rows} rows cannot be dealt over data x fsdp = {ways} devices; "
            "change data.rows or the mesh"
        )
    sharding = NamedSharding(mesh, PartitionSpec(ROWS))

    place = {row: i for i, row in enumerate(own_rows(mesh, rows))}
    blocks = {
        device: slice(place[held[0]], place[held[-1]] + 1)
        for device, held in rows_of_devices(mesh, rows).items()
    }

    def put(array: np.ndarray) -> jax.Array:
        shape = (rows, *array.shape[1:])
        placed = [jax.device_put(array[block], device) for device, block in blocks.items()]
        return jax.make_array_from_single_device_arrays(shape, sharding, placed)

    return lambda batch: jax.tree.map(put, batch)
