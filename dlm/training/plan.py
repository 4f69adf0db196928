"""What a train step takes, known before it runs: memory by part, and whether a TPU has as much."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import jax
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dlm.core.errors import UserError
from dlm.core.paths import flatten, split
from dlm.data.batch import Batch
from dlm.models.devices import ROWS
from dlm.training.mesh import shaped
from dlm.training.step import State, TrainStep

CACHE = "jax_enable_compilation_cache"
# A compiler without chips need not ask the cloud what machine this is, nor shut others out.
ALONE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
REMEDY = "lower data.rows, raise train.accumulate or mesh.fsdp, or set model.remat"


class Memory(NamedTuple):
    """What one device holds in a step, in bytes.

    Attributes:
      parameters: those of the state, trained or not.
      frozen: those that the step reads beside it (a teacher's).
      moments: the optimiser's state.
      gradients: of the trained parameters; the compiler counts them among the temporaries.
      temporaries: everything made and dropped within the step, as compiled.
      other: the batch, metrics, the program, and what the device pads.
      total: parameters + frozen + moments + temporaries + other.
    """

    parameters: int
    frozen: int
    moments: int
    gradients: int
    temporaries: int
    other: int
    total: int


def compile_step(
    step: TrainStep, state: State, batch: Batch, mesh: Mesh, frozen: Any = None
) -> Any:
    """Compiles a train step for the mesh's devices, which need not be there.

    Args:
      step: of `make_train_step`.
      state: shapes with their shardings.
      batch: numpy arrays.
      mesh: the devices.
      frozen: shapes with their shardings of what the step reads beside the state; None = nothing.

    Raises:
      UserError: the compiler finds no room for it on a device.
    """
    rows = NamedSharding(mesh, PartitionSpec(ROWS))
    dealt = shaped(batch, jax.tree.map(lambda _: rows, batch))
    try:
        with jax.set_mesh(mesh), _compiling_for(platform_of(mesh)):
            return cast(Any, step).lower(state, dealt, frozen).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        kind = mesh.devices.flat[0].device_kind
        raise UserError(
            f"does not fit into the memory of a {kind}: {_reason(str(error))}; {REMEDY}"
        ) from None


def check_room(found: Memory, device: Any) -> str:
    """What is known of a device's room for a compiled step, in words.

    The compiler of a TPU has refused already what does not fit; that of a GPU never does, and knows
    what share of the memory JAX takes; a CPU has what its machine has, shared with everyone.

    Raises:
      UserError: it has less than the step needs.
    """
    if device.platform == "tpu":
        return "it fits"
    room = (device.memory_stats() or {}).get("bytes_limit")
    if room is None:
        return "whether it fits is up to what else runs here"
    if found.total > room:
        raise UserError(
            f"does not fit into the memory of a {device.device_kind}: {found.total / 1e6:,.0f} MB "
            f"of {room / 1e6:,.0f} MB; {REMEDY}"
        )
    return f"it fits into {room / 1e6:,.0f} MB"


def platform_of(mesh: Mesh) -> str:
    """What the devices of the mesh are: "cpu", "gpu" or "tpu"."""
    return mesh.devices.flat[0].platform


@contextmanager
def _compiling_for(platform: str) -> Iterator[None]:
    """Lets the step be traced and compiled as on that platform, where it is not the one here.

    What a model leaves open (kernels, sizes of chunks) is chosen by `jax.default_backend()`, which
    knows this machine alone. And what no device here can run cannot be read back from the
    compilation cache.
    """
    here = jax.default_backend
    if platform == here():
        yield
        return
    try:
        jax.default_backend = lambda: platform
        with uncached():
            yield
    finally:
        jax.default_backend = here


@contextmanager
def uncached() -> Iterator[None]:
    """Compiles anew what is compiled: a kept program names the lines of code of its own day."""
    cached = getattr(jax.config, CACHE)
    try:
        jax.config.update(CACHE, False)
        reset_cache()  # it asks for the setting once
        yield
    finally:
        jax.config.update(CACHE, cached)
        reset_cache()


def _reason(message: str) -> str:
    """The sentence of a compiler's complaint that holds the sizes."""
    lines = message.replace("RESOURCE_EXHAUSTED:", "").strip().splitlines()
    sized = [line for line in lines if re.search(r"\d+(\.\d+)?[KMG]", line)]
    return (sized or lines)[0].strip().rstrip(".")


def memory(
    compiled: Any, state: State, trainable: Mapping[str, bool], frozen: Any = None
) -> Memory:
    """Memory by part of a compiled step.

    Args:
      compiled: see `compile_step`.
      state: shapes with their shardings.
      trainable: {path: bool} of the parameters.
      frozen: as in `compile_step`.
    """
    known = compiled.memory_analysis()
    kept = known.argument_size_in_bytes + known.output_size_in_bytes - known.alias_size_in_bytes
    total = kept + known.temp_size_in_bytes + known.generated_code_size_in_bytes
    parameters, moments = on_device(state.params), on_device(state.opt_state)
    temporaries = known.temp_size_in_bytes
    beside = on_device(frozen)
    other = total - parameters - beside - moments - temporaries
    gradients = on_device(split(state.params, trainable)[0])
    return Memory(parameters, beside, moments, gradients, temporaries, other, total)


def on_device(tree: Any) -> int:
    """Bytes of the tree's leaves, shapes with their shardings, on one device of them."""
    size = 0
    for leaf in jax.tree.leaves(tree):
        part = jax.ShapeDtypeStruct(leaf.sharding.shard_shape(leaf.shape), leaf.dtype)
        size += part.size * part.dtype.itemsize
    return size


def parameter_counts(params: Any, trainable: Mapping[str, bool]) -> tuple[int, int]:
    """How many parameters there are, and how many of them are trained; a mask holds none."""
    sizes = {
        path: leaf.size
        for path, leaf in flatten(params).items()
        if jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)
    }
    return sum(sizes.values()), sum(size for path, size in sizes.items() if trainable[path])


def topology_devices(name: str) -> list[Any]:
    """The chips of a TPU that is not here, for the compiler alone; `name` such as "v5e:2x2".

    Raises:
      UserError: libtpu is not installed, or there is no such TPU.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            "--topology needs the TPU compiler, libtpu (0.7 GB installed): "
            f'pip install "jax[tpu]=={jax.__version__}"'
        )
    from jax.experimental import topologies

    if jax.default_backend() != "tpu":
        for variable, value in ALONE.items():
            os.environ.setdefault(variable, value)
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except (jax.errors.JaxRuntimeError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--topology={name}: {reason}") from None
    return list(found.devices)
