"""Shows what a train step spends its time on, operation by operation.

    python run.py profile --config=FILE[:ARG] [--config.a.b=VALUE] [--steps=3] [--top=25]
    python run.py profile --workdir=DIR

Runs --steps of the run's own train step under the profiler, after two that are not looked at, and
prints the longest operations with the line of code that they come from; loops and branches count
as what is in them. The trace goes to --output (default: `profile` in the workdir), to be opened at
https://ui.perfetto.dev or in TensorBoard. Nothing is trained: the run's checkpoints stay as they
are.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax

from dlm.commands.build import Training, Unclaimed, build, training_batches
from dlm.commands.setup import parse_options, take_flag
from dlm.commands.start import model_config
from dlm.core.errors import UserError
from dlm.core.progress import Progress
from dlm.training.mesh import make_mesh, shaped
from dlm.training.plan import compile_step, uncached
from dlm.training.step import State
from dlm.training.trace import Row, find_traces, measured, profile

BEFORE = 2  # steps that are run before those that are looked at


def run(argv: list[str]) -> int:
    """The verb `profile`."""
    given = {}
    for name in ("steps", "top", "output"):
        given[name], argv = take_flag(argv, name)
    options = parse_options(argv, saved=True)
    if options.rest:
        unknown = options.rest[0]
        raise UserError(f"profile does not know {unknown!r}; see python run.py profile --help")
    for name in ("steps", "top"):
        value = given[name]
        if value is not None and (not value.isdecimal() or int(value) < 1):
            raise UserError(f"--{name}={value} is no number above 0")
    setup = Unclaimed(options)
    model_config(setup.settings)  # an unknown source is refused before anything is encoded
    mesh = make_mesh(setup.settings.mesh)
    batches = training_batches(setup)
    steps, folder = int(given["steps"] or 3), Path(given["output"] or options.workdir / "profile")
    with jax.set_mesh(mesh):
        params = setup.initial_params(mesh)
        training = build(setup, mesh, batches, params)
        state = jax.device_put(training.make_state(params), training.shardings)
        shapes = shaped(state, training.shardings)
        print("compiling the train step", flush=True)
        with uncached():
            compiled = compile_step(training.step, shapes, batches.batch(0), mesh, training.frozen)
        frozen = setup.frozen.params(mesh)
        seconds = trace(compiled, state, training, steps, folder, frozen)
    path = find_traces(folder)[-1]
    rows = profile(measured(path), compiled.as_text())
    print(table(rows, steps, seconds, int(given["top"] or 25)))
    print(f"\ntrace: {path.parent / 'perfetto_trace.json.gz'} (open it at https://ui.perfetto.dev)")
    return 0


def trace(
    compiled: Any, state: State, training: Training, steps: int, folder: Path, frozen: Any
) -> float:
    """Runs steps under the profiler, which writes into the folder; returns seconds a step."""
    batches = [training.place(training.batches.batch(step)) for step in range(BEFORE + steps)]
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # the host's calls would drown the step's operations
    with Progress(BEFORE + steps, "profiling") as progress:
        for done, batch in enumerate(batches[:BEFORE], 1):
            state, _ = jax.block_until_ready(compiled(state, batch, frozen))
            progress.update(done)
        with jax.profiler.trace(folder, create_perfetto_trace=True, profiler_options=options):
            start = time.perf_counter()
            for number, batch in enumerate(batches[BEFORE:], BEFORE):
                with jax.profiler.StepTraceAnnotation("train", step_num=number):
                    state, _ = jax.block_until_ready(compiled(state, batch, frozen))
                progress.update(number + 1)
            return (time.perf_counter() - start) / steps


def table(rows: list[Row], steps: int, seconds: float, top: int) -> str:
    """The longest operations: milliseconds and calls a step, and their share of all of them."""
    total = sum(row.seconds for row in rows)
    shown = rows[:top]
    cells = [("operation", "part", "code"), *(row.operation for row in shown)]
    widths = [max(len(cell[i]) for cell in cells) for i in range(3)]

    def line(numbers: str, names: tuple[str, ...]) -> str:
        padded = (f"{name:<{width}}" for name, width in zip(names, widths, strict=True))
        return f"{numbers}  {'  '.join(padded)}".rstrip()

    lines = [line(f"{'ms':>10}  {'share':>6}  {'calls':>6}", cells[0])]
    for row in shown:
        ms, share, calls = 1e3 * row.seconds / steps, row.seconds / total, row.calls / steps
        lines.append(line(f"{ms:10,.2f}  {share:6.1%}  {calls:6,.0f}", row.operation))
    rest = sum(row.seconds for row in rows[top:])
    if rest:
        names = (f"{len(rows) - top} more", "", "")
        lines.append(line(f"{1e3 * rest / steps:10,.2f}  {rest / total:6.1%}  {'':6}", names))
    heading = (
        f"\na step took {1e3 * seconds:,.1f} ms; its operations, over all threads or streams, "
        f"{1e3 * total / steps:,.1f} ms:\n"
    )
    return "\n".join([heading, *lines])
