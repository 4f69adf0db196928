"""Makes the runs of an experiment that are missing, and writes its table.

    python run.py table --experiment=experiments/NAME.py [--workdir=DIR] [--processes=N]
                        [--only=ROW,...] [--seeds=0,1] [--quick] [--dry-run]
                        [--launcher=slurm [--slurm.OPTION=VALUE]]

Runs lie in DIR/runs (default DIR: `runs/NAME`), each under its name and identity: a finished one is
never made again, a stopped one goes on, a failed one stands in the table with its reason and is
tried again by the next call. The table shows every row and seed of the experiment; --only and
--seeds say which of them are made now; a row that --only leaves out need not be possible here (its
checkpoint may be absent). --quick makes the experiment's short version, of the same rows, beside it
in DIR/quick. --dry-run lists the runs and, of each row and task, times a few steps of training.
Each of N processes gets its share of the cores and GPUs; Ctrl-C loses nothing.

--launcher=slurm makes the runs as one array of Slurm jobs, at most N at a time where it is given.
--slurm.OPTION=VALUE is sbatch's --OPTION, for all of them: --slurm.partition=gpu,
--slurm.gpus-per-node=1, --slurm.cpus-per-task=8; --slurm.time is in minutes (default 60), and a run
that needs longer saves, queues again and goes on, as does a preempted one. DIR and the corpora must
be on a file system that all nodes see. Ctrl-C leaves the jobs: the same command watches them again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from dlm.commands.build import Unclaimed
from dlm.commands.identity import identify
from dlm.commands.plan import estimate
from dlm.commands.rescoring import rescored
from dlm.commands.setup import Setup, parse_options, take_flag
from dlm.core.config import flat
from dlm.core.errors import UserError
from dlm.core.files import hold_folder, read_json
from dlm.tables import cluster, render, runner
from dlm.tables.collect import collect
from dlm.tables.jobs import Job, Resolve, Resolved, done, expand
from dlm.tables.spec import Table, load
from dlm.tables.store import STORE_FILE, Record, Store, read_run

VALUES = ("experiment", "workdir", "processes", "only", "seeds", "launcher")
Make = Callable[..., None]  # (runs, *, ended)


def run(argv: list[str]) -> int:
    """The verb `table`."""
    given: dict[str, str | None] = {}
    rest = argv
    for name in VALUES:
        given[name], rest = take_flag(rest, name)
    options = dict(map(slurm_option, [word for word in rest if word.startswith("--slurm.")]))
    quick, dry = "--quick" in rest, "--dry-run" in rest
    known = ("--quick", "--dry-run")
    unknown = [word for word in rest if word not in known and not word.startswith("--slurm.")]
    if unknown:
        raise UserError(f"table does not know {unknown[0]!r}; see python run.py table --help")
    if not given["experiment"]:
        raise UserError("no experiment is named; add --experiment=experiments/NAME.py")
    processes = given["processes"]
    if processes is not None and (not processes.isdecimal() or not int(processes)):
        raise UserError(f"--processes={processes} is no number of processes")
    path = Path(given["experiment"])
    table = load(path)
    if quick:
        table = replace(table, seeds=table.quick_seeds)
    folder = Path(given["workdir"] or f"runs/{path.stem}") / ("quick" if quick else "")
    rows = rows_of(table, given["only"])
    expanded = partial(expand, table, folder, resolver(), quick=quick, rows=rows)
    chosen = partial(choose, table, rows=rows, seeds=given["seeds"])
    runs = expanded()
    if dry:
        for line in describe(chosen(runs), int(processes or 1)):
            print(line, flush=True)
        return 0
    launch = launcher(given["launcher"], folder, int(processes) if processes else None, options)
    with hold_folder(folder):
        tried = {""}
        while ready := [run for run in chosen(runs) if run.identity not in tried]:
            make(folder, ready, launch)
            tried |= {run.identity for run in ready}
            if not all(run.identity for run in runs):  # those that wait for others of them
                runs = expanded()
        print(write(table, folder, runs, quick=quick))
    print(f"written: {folder}/table.md, .tex, .csv and .html, plots, results.sqlite")
    return 0


def slurm_option(word: str) -> tuple[str, str]:
    """`--slurm.cpus-per-task=8` as name and value."""
    name, _, value = word.removeprefix("--slurm.").partition("=")
    return name, value


def launcher(name: str | None, folder: Path, at_most: int | None, options: dict[str, str]) -> Make:
    """What makes runs: processes of this machine, or jobs of a cluster.

    Raises:
      UserError: there is no such way, or options of another.
    """
    if name == "slurm":
        executor = cluster.slurm(folder / cluster.FOLDER, at_most, options)
        return partial(cluster.make, executor=executor, held=cluster.in_slurm)
    if name is not None:
        raise UserError(f"--launcher={name}: there is slurm; without it runs are made here")
    if options:
        raise UserError(f"--slurm.{next(iter(options))} needs --launcher=slurm")
    return partial(runner.make, processes=at_most or 1)


def resolver() -> Resolve:
    """What a command line of `train` means; corpora are opened once."""
    corpora: dict[str, Any] = {}

    def resolve(words: list[str], *, identified: bool = True) -> Resolved:
        setup = unclaimed(words)
        if not identified:
            return Resolved(flat(setup.resolved), "")
        key = repr((setup.settings.data.name, setup.settings.data.corpus_options(), setup.cache))
        if key not in corpora:
            corpora[key] = setup.corpus
        setup.corpus = corpora[key]
        return Resolved(flat(setup.resolved), identify(setup)["identity"])

    return resolve


def unclaimed(words: Sequence[str]) -> Setup:
    """The parts of a run that is only looked at."""
    options = parse_options(list(words))
    if options.rest:
        raise UserError(f"{options.rest[0]!r} is no setting")
    return Unclaimed(options)


def rows_of(table: Table, only: str | None) -> set[str]:
    """The rows that `--only` (a row's name, or several with commas) asks for; without it, all.

    Rows that one of them begins from are asked for with it.

    Raises:
      UserError: a row is not of the table.
    """
    rows = [variant.name for variant in table.variants]
    names = rows if only is None else [only] if only in rows else only.split(",")
    check_there("only", names, rows)
    needed = set(names)
    for variant in reversed(table.variants):
        needed |= set(variant.sources.values()) if variant.name in needed else set()
    return needed


def choose(table: Table, runs: list[Job], rows: Collection[str], seeds: str | None) -> list[Job]:
    """The runs of these rows that `--seeds` leaves.

    Raises:
      UserError: a seed is not of the table.
    """
    numbers = [str(seed) for seed in table.seeds]
    kept = numbers if seeds is None else seeds.split(",")
    check_there("seeds", kept, numbers)
    return [run for run in runs if run.variant.name in rows and str(run.seed) in kept]


def check_there(flag: str, wanted: Sequence[str], there: Sequence[str]) -> None:
    """Refuses a flag that names what the table has not."""
    for name in wanted:
        if name not in there:
            known = ", ".join(map(repr, there))
            raise UserError(f"--{flag}: {name!r} is not in the table; it has {known}")


def state(run: Job) -> str:
    """The state of a run by its workdir."""
    record = read_run(run.workdir)
    return record.state if record and record.identity == run.identity else "missing"


def describe(runs: Sequence[Job], processes: int) -> Iterator[str]:
    """A line for each run; of one that is to be made, updates x a timed step; then the hours."""
    costs: dict[tuple[str, str], tuple[int, float]] = {}
    seconds, seen = 0.0, set()
    for run in runs:
        if not run.identity:
            rows = ", ".join(run.variant.sources.values())
            yield f"{'waits':<8} {run.workdir.name}: for {rows}, which is not done"
            continue
        now = "as above" if run.identity in seen else state(run)
        seen.add(run.identity)
        if now == "done":
            yield f"{now:<8} {run.workdir.name}"
            continue
        key = run.variant.name, run.task.name
        if key not in costs:
            costs[key] = estimate(unclaimed(run.words))
        updates, step = costs[key]
        seconds += updates * step * (now != "as above")
        cost = f"{updates:,} updates x {step:.3g} s = {updates * step / 60:.1f} min"
        yield f"{now:<8} {run.workdir.name}: {cost}"
    yield (
        f"{len(seen)} runs; those that are not done: {seconds / 3600:.2f} hours of training on "
        f"what this process uses, one at a time (--processes={processes} shares the same "
        "cores out); compiling and evaluations come on top"
    )


def make(folder: Path, chosen: Sequence[Job], launch: Make) -> None:
    """Makes those of the chosen runs that are not done, and stores what is known of all."""
    store = Store(folder / STORE_FILE)

    def ended(run: Job) -> None:
        record = read_run(run.workdir)
        store.put([record] if record else [])

    launch([run for run in chosen if not done(run)], ended=ended)
    store.rebuild([folder / "runs"])


def write(table: Table, folder: Path, runs: Sequence[Job], *, quick: bool) -> str:
    """Collects the table's figures, writes it in every form, and returns it as text."""
    by_workdir = {str(run.workdir.absolute()): run for run in runs}
    records = {
        record.workdir: record
        for record in Store(folder / STORE_FILE).records()
        if record.workdir in by_workdir and record.identity == by_workdir[record.workdir].identity
    }
    results = collect(
        table,
        runs,
        records,
        quick=quick,
        provenance=provenance(list(records.values())),
        rescored=lambda record: rescored(Path(record.workdir)),
    )
    return render.write(results, folder).read_text(encoding="utf-8")


def provenance(records: Sequence[Record]) -> dict[str, str]:
    """Commits, versions and devices of the runs, and when the last of them began."""
    found: dict[str, set[str]] = {"commit": set(), "jax": set(), "devices": set()}
    begun = []
    for record in records:
        workdir = Path(record.workdir)
        if not (workdir / "environment.json").exists():  # it failed before it began
            continue
        environment = read_json(workdir / "environment.json")
        found["commit"].add(record.commit or "unknown")
        found["jax"].add(environment["libraries"]["jax"])
        found["devices"].add(", ".join(environment["devices"]))
        begun.append(environment.get("began", ""))
    said = {name: ", ".join(sorted(values)) for name, values in found.items() if values}
    if last := max(begun, default=""):
        said["last run began"] = f"{datetime.fromisoformat(last):%Y-%m-%d %H:%M} UTC"
    return said
