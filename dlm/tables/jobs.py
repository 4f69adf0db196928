"""The runs behind a table: one for each variant, task and seed, and what they may differ in."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from dlm.core.errors import UserError
from dlm.tables.spec import Table, Task, Variant
from dlm.tables.store import read_run


class Resolved(NamedTuple):
    """What a command line means.

    Attributes:
      config: flat, every setting.
      identity: of the run; "" where it was not asked for.
    """

    config: Mapping[str, Any]
    identity: str


class Resolve(Protocol):
    """What the words of a command line mean; without the identity where `identified` is False."""

    def __call__(self, words: list[str], *, identified: bool = True) -> Resolved: ...  # noqa: D102


@dataclass(frozen=True)
class Job:
    """One run of a table, made or yet to be made.

    Attributes:
      variant, task, seed: what it is for.
      words: of its command line, behind the verb, without the workdir.
      config: resolved and flat; empty where it is wrong and not asked for.
      identity: equal ones are one run; "" while a run that it begins from is not done, or without
        a config.
      workdir: where it lives.
    """

    variant: Variant
    task: Task
    seed: int
    words: tuple[str, ...]
    config: Mapping[str, Any]
    identity: str
    workdir: Path


def expand(
    table: Table,
    folder: Path,
    resolve: Resolve,
    *,
    quick: bool = False,
    rows: Collection[str] | None = None,
) -> list[Job]:
    """All runs of a table, checked; two of one identity share a workdir.

    Overrides of the task come first, then the variant's, then the table's quick ones. A run that
    begins from another's has no identity until that one is done; nor has one of a row that is not
    asked for and whose config is wrong here, for instance for want of a checkpoint.

    Args:
      table: the declaration.
      folder: holds `runs/NAME-IDENTITY`, the identity cut to 8 digits.
      resolve: the words of a command line -> what they mean.
      quick: the version of minutes.
      rows: names of the variants that are asked for; None = all.

    Raises:
      UserError: a config of these is wrong, a row differs from its base in other keys than it
        declares, or the best checkpoint would not be chosen by a validation figure.
    """
    runs: dict[tuple[str, str, int], Job] = {}
    workdirs: dict[str, Path] = {}
    for variant in table.variants:
        for task, seed in product(table.tasks_of(variant), table.seeds):
            sources = {k: runs[row, task.name, seed] for k, row in variant.sources.items()}
            read = {key: str(source.workdir) for key, source in sources.items()}
            words = words_of(table, variant, task, seed, read, quick=quick)
            try:
                config, identity = resolve(words, identified=all(map(done, sources.values())))
                check_selection(config["train.metric"])
            except UserError as error:
                if rows is None or variant.name in rows:
                    where = f"variant {variant.name!r}, task {task.name!r}"
                    raise UserError(f"{where}: {error}") from None
                config, identity = {}, ""
            name = f"{slug(variant.name)}-{slug(task.name)}-{seed}"
            known = folder / "runs" / name
            if identity:
                known = workdirs.setdefault(identity, workdir_of(folder / "runs", name, identity))
            run = Job(variant, task, seed, tuple(words), config, identity, known)
            runs[variant.name, task.name, seed] = run
    for run in runs.values():
        base = table.base_of(run.variant)
        other = base and runs.get((base.name, run.task.name, run.seed))
        if other and run.config and other.config:
            check_difference(run, other, table.quick if quick else ())
    return list(runs.values())


def done(run: Job) -> bool:
    """Whether a run is finished, by its workdir."""
    record = read_run(run.workdir) if run.identity else None
    return record is not None and (record.state, record.identity) == ("done", run.identity)


def words_of(
    table: Table, variant: Variant, task: Task, seed: int, read: Mapping[str, str], *, quick: bool
) -> list[str]:
    """The command line of a run; `read` are the workdirs that overrides name, by their keys."""
    settings = {**task.overrides, **variant.overrides, **read, **(table.quick if quick else {})}
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    return [f"--config={task.config}", *flags, f"--config.seed={seed}"]


def check_selection(metric: str) -> None:
    """Refuses a run whose best checkpoint is chosen by anything but validation."""
    if not metric.startswith("validation/"):
        raise UserError(
            f"train.metric={metric!r} would choose the checkpoint by what is no validation figure; "
            "name one, 'validation/...'"
        )


def check_difference(run: Job, base: Job, same: Collection[str] = ()) -> None:
    """Refuses two runs that differ in other keys than their rows declare.

    Declared are the overrides that one has and the other has not, or has with another value; the
    keys of `same` are set alike in both, whatever their rows say.
    """
    ours, theirs = run.variant.overrides, base.variant.overrides
    keys = ours.keys() | theirs.keys()
    declared = {key for key in keys if key not in ours or key not in theirs}
    declared |= {key for key in keys - declared if ours[key] != theirs[key]}
    declared -= {*same}
    settings = run.config.keys() | base.config.keys()
    absent = object()
    differing = {
        name for name in settings if run.config.get(name, absent) != base.config.get(name, absent)
    }
    where = f"variant {run.variant.name!r} against {base.variant.name!r}, task {run.task.name!r}"
    for name in sorted(differing):
        if not any(name == key or name.startswith(f"{key}.") for key in declared):
            values = f"{base.config.get(name)!r} and {run.config.get(name)!r}"
            raise UserError(f"{where}: {name} differs ({values}) and is not declared; override it")
    for key in sorted(declared):
        if not any(name == key or name.startswith(f"{key}.") for name in differing):
            raise UserError(f"{where}: {key} is declared and does not differ; leave it out")


def workdir_of(folder: Path, name: str, identity: str) -> Path:
    """Where a run of this identity lies already, under whatever name; else where it will."""
    found = sorted(folder.glob(f"*-{identity[:8]}"))
    return found[0] if found else folder / f"{name}-{identity[:8]}"


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^\w.=+]+", "_", name).strip("_")[:60]
