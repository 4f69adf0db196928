"""Several processes of one job: joining them, what the first one does, and what all agree on.

Every process runs the same program on rows of its own. Files are the first one's: it alone writes
logs, reports and manifests. With one process everything here does nothing.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from dlm.core.errors import UserError
from dlm.models.devices import AXES

T = TypeVar("T")

ADDRESS, NUMBER, WHICH = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
HEARTBEAT = 30  # seconds of silence after which a process counts as lost, and all others end


def join() -> None:
    """Makes this process one of its job's, where a cluster started several.

    JAX finds Slurm, Open MPI, GKE and TPU pods by itself; elsewhere the environment of each process
    names JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID.
    All but the first are silent.

    Raises:
      UserError: these variables do not name a place in a job.
    """
    given = {name: os.environ.get(name) for name in (ADDRESS, NUMBER, WHICH)}
    alone = "1" in (os.environ.get("SLURM_NTASKS"), os.environ.get("OMPI_COMM_WORLD_SIZE"))
    if jax.distributed.is_initialized() or (alone and not given[ADDRESS]):
        return
    try:
        number, which = (None if given[n] is None else int(given[n] or "") for n in (NUMBER, WHICH))
        with warnings.catch_warnings(action="ignore"):  # of clusters that this is not one of
            jax.distributed.initialize(
                num_processes=number,
                process_id=which,
                heartbeat_timeout_seconds=HEARTBEAT,
            )
    except ValueError as error:
        if any(given.values()):
            said = ", ".join(f"{name}={value}" for name, value in given.items())
            raise UserError(f"{said} name no place in a job: {error}") from None
        return  # no cluster
    except RuntimeError as error:
        if given[ADDRESS] or "must be called before" not in str(error):
            raise
        return  # JAX is in use already, by a program that calls the verb
    if not is_first():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def is_first() -> bool:
    """Whether this process writes files."""
    return jax.process_index() == 0


@contextmanager
def joined() -> Iterator[None]:
    """Joins the job; a process that fails leaves it at once, so that the others end as well.

    A failure between processes ends in one line, for mostly it is another one that failed.
    """
    join()
    number = jax.process_count()
    try:
        yield
    except Exception as error:
        if number == 1:
            raise
        # At exit JAX would wait for processes that wait for this one; this runs before that.
        atexit.register(os._exit, 2 if isinstance(error, UserError) else 1)
        if not isinstance(error, jax.errors.JaxRuntimeError):
            raise
        print(
            f"error: process {jax.process_index()} of {number} has lost another, or failed itself "
            f"({str(error).partition(chr(10))[0]}); look at what the others print, then start all "
            "again: the run goes on from its last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        raise SystemExit(1) from None


def from_first(make: Callable[[], T]) -> T:
    """What the first process makes (a JSON value), on every process; the others wait for it.

    Raises:
      UserError: `make` raised it, on the first process; all others raise it too.
    """
    if jax.process_count() == 1:
        return make()
    said: dict[str, Any] = {}
    if is_first():
        try:
            said = {"value": make()}
        except UserError as error:
            said = {"error": str(error)}
    written = np.frombuffer(json.dumps(said).encode(), np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(written))))
    text = multihost_utils.broadcast_one_to_all(np.resize(written, length))
    said = json.loads(np.asarray(text).tobytes())
    if "error" in said:
        raise UserError(said["error"])
    return said["value"]


def agreed(asked: Callable[[], bool]) -> Callable[[], bool]:
    """Makes a question that any process may answer yes, and all get the same answer to.

    All must ask equally often. The answer is that of the time before, so that no device waits.
    """
    if jax.process_count() == 1:
        return asked
    mesh = Mesh(np.array(jax.devices()), ("all",), axis_types=(AxisType.Auto,))
    votes = NamedSharding(mesh, PartitionSpec("all"))
    any_of = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def vote() -> jax.Array:
        mine = np.array([asked()])
        parts = [jax.device_put(mine, device) for device in jax.local_devices()]
        shape = (jax.device_count(),)
        return any_of(jax.make_array_from_single_device_arrays(shape, votes, parts))

    waiting = deque([vote()])

    def ask() -> bool:
        waiting.append(vote())
        return bool(jax.device_get(waiting.popleft()))

    return ask


def on_first(work: Callable[[Any], T], params: Any = None) -> T:
    """What `work` makes of parameters on the first process, by itself; see `from_first`.

    With several processes it gets a copy of them that is whole, on the process's first device.
    """
    if jax.process_count() == 1:
        return work(params)
    copied = multihost_utils.process_allgather(params, tiled=True)
    device = jax.local_devices()[0]
    grid = np.array([device]).reshape((1,) * len(AXES))
    home = Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))

    def alone() -> T:
        with jax.set_mesh(home):
            return work(jax.device_put(copied, device))

    return from_first(alone)
