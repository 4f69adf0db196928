"""Says before a run starts what it will take: parameters, memory, operations, hours.

    python run.py plan --config=FILE[:ARG] [--config.a.b=VALUE] [--steps=3]
    python run.py plan --config=FILE[:ARG] --topology=v5e:2x2
    python run.py plan --workdir=DIR

Compiles the run's own train step and times --steps of it on this machine's devices (0 = none, and
no parameters are made). With --topology it compiles for that TPU instead, which need not be here,
and says whether the step fits into its memory; that needs libtpu. Nothing is written to the
workdir.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from dlm.commands.build import Training, Unclaimed, build, training_batches
from dlm.commands.setup import Setup, parse_options, take_flag
from dlm.commands.start import model_config
from dlm.core.errors import UserError
from dlm.data.batch import Batch
from dlm.training.flop import FORMULA, step_flop
from dlm.training.mesh import make_mesh, shaped
from dlm.training.plan import (
    Memory,
    check_room,
    compile_step,
    memory,
    parameter_counts,
    topology_devices,
)


def run(argv: list[str]) -> int:
    """The verb `plan`."""
    steps, rest = take_flag(argv, "steps")
    topology, rest = take_flag(rest, "topology")
    options = parse_options(rest, saved=True)
    if options.rest:
        raise UserError(f"plan does not know {options.rest[0]!r}; see python run.py plan --help")
    if steps is not None and not steps.isdecimal():
        raise UserError(f"--steps={steps} is no number of steps")
    if topology and steps:
        raise UserError(f"--topology={topology} is no machine to time on; leave --steps out")
    setup = Unclaimed(options)
    model_config(setup.settings)  # an unknown source is refused before anything is encoded
    devices = topology_devices(topology) if topology else None
    mesh = make_mesh(setup.settings.mesh, devices)
    plan(setup, mesh, 0 if topology else int(steps or 3))
    return 0


def plan(setup: Setup, mesh: Mesh, steps: int) -> None:
    """Prints what a run takes on a mesh, whose devices are there if steps are to be timed."""
    batches = training_batches(setup)
    shapes = jax.eval_shape(setup.model.init, jax.random.key(0))
    training = build(setup, mesh, batches, shapes)
    print(describe_run(setup, mesh, training))
    total, trained = parameter_counts(shapes, training.trainable)
    print(f"parameters       {total:,}, trained {trained:,}", flush=True)
    first = [batches.batch(step) for step in range(max(1, steps + 1))]
    print(describe_flop(setup, first, training), flush=True)

    state = shaped(jax.eval_shape(training.make_state, shapes), training.shardings)
    start = time.perf_counter()
    compiled = compile_step(training.step, state, first[0], mesh, training.frozen)
    seconds = time.perf_counter() - start
    found = memory(compiled, state, training.trainable, training.frozen)
    device = mesh.devices.flat[0]
    print(describe_memory(found))
    room = check_room(found, device)
    print(f"\ncompiled         for {device.device_kind} in {seconds:.1f} s; {room}", flush=True)
    if steps:
        with jax.set_mesh(mesh):
            print(describe_time(setup, mesh, training, compiled, first))


def describe_run(setup: Setup, mesh: Mesh, training: Training) -> str:
    """The run in a line: updates, batch, devices."""
    batches = training.batches
    axes = " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
    updates, epochs = training.total, training.total / batches.num_steps()
    return (
        f"run              {updates:,} updates ({epochs:.3g} epochs) of {batches.rows} rows of "
        f"{batches.length} tokens\n"
        f"devices          {mesh.size} x {mesh.devices.flat[0].device_kind}: {axes}"
    )


def describe_flop(setup: Setup, batches: list[Batch], training: Training) -> str:
    """Useful operations of a step, the mean over the batches, and the formula."""
    config = setup.model.config
    mean = statistics.fmean(step_flop(config, batch, training.trainable) for batch in batches)
    held, learned = (
        statistics.fmean(int(np.sum(getattr(batch, name) > 0)) for batch in batches)
        for name in ("segment_ids", "loss_weights")
    )
    return (
        f"operations       {mean / 1e9:,.2f} GFLOP a step = {FORMULA}\n"
        f"                 {held:,.0f} tokens, {learned:,.0f} of them supervised; batches: the "
        f"first {len(batches)}"
    )


def describe_memory(found: Memory) -> str:
    """Memory by part, in MB of 10^6 bytes."""
    lines = {
        "parameters": found.parameters,
        **({"frozen": found.frozen} if found.frozen else {}),
        "moments": found.moments,
        "temporaries": found.temporaries,
        "  gradients": found.gradients,
        "other": found.other,
        "total": found.total,
    }
    notes = {
        "frozen": "of the runs that the loss reads",
        "moments": "the optimiser's",
        "temporaries": "of the compiled step, gradients among them",
        "other": "the batch, metrics, the program, padding",
    }
    rows = [f"  {n:<14} {v / 1e6:>12,.1f}  {notes.get(n, '')}".rstrip() for n, v in lines.items()]
    return "\n".join(["", "memory of a step, MB a device", *rows])


def estimate(setup: Setup, steps: int = 3) -> tuple[int, float]:
    """Updates of a run, and seconds of one: the median of so many timed steps on this machine."""
    mesh = make_mesh(setup.settings.mesh)
    batches = training_batches(setup)
    shapes = jax.eval_shape(setup.model.init, jax.random.key(0))
    training = build(setup, mesh, batches, shapes)
    first = [batches.batch(step) for step in range(steps + 1)]
    state = shaped(jax.eval_shape(training.make_state, shapes), training.shardings)
    with jax.set_mesh(mesh):
        compiled = compile_step(training.step, state, first[0], mesh, training.frozen)
        return training.total, step_seconds(setup, mesh, training, compiled, first)


def step_seconds(
    setup: Setup, mesh: Mesh, training: Training, compiled: Any, batches: list[Batch]
) -> float:
    """Seconds of a step, the median of all but the first."""
    params = setup.initial_params(mesh)
    state = jax.device_put(training.make_state(params), training.shardings)
    frozen, seconds = setup.frozen.params(mesh), []
    for batch in batches:
        start = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(state, training.place(batch), frozen))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def describe_time(
    setup: Setup, mesh: Mesh, training: Training, compiled: Any, batches: list[Batch]
) -> str:
    """Seconds of a step; from them tokens/s and hours."""
    step = step_seconds(setup, mesh, training, compiled, batches)
    tokens = statistics.fmean(int(np.sum(batch.segment_ids > 0)) for batch in batches)
    flop = statistics.fmean(
        step_flop(setup.model.config, batch, training.trainable) for batch in batches
    )
    return (
        f"step             {step:.3g} s (median of {len(batches) - 1}), {tokens / step:,.0f} "
        f"tokens/s, {flop / step / 1e9:,.0f} GFLOP/s\n"
        f"whole run        {training.total * step / 3600:.2f} hours = {training.total:,} updates x "
        f"{step:.3g} s; evaluations come on top"
    )
