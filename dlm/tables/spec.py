"""What a table is: its rows, columns, tasks and seeds, and the published rows beside them.

A file of `experiments/` defines `get_table()`, which returns a `Table`. Nothing here runs anything;
every mistake in a declaration is a `UserError` of one line.
"""

from __future__ import annotations

import difflib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlm.core.config import run_file
from dlm.core.errors import UserError

MARKS = {
    "V": "verified at the source",
    "V2": "verified at a second source",
    "C": "computed",
    "R": "recalled",  # printed with a dagger
}


@dataclass(frozen=True)
class Task:
    """What every row is trained and scored on.

    Attributes:
      name: in the names of runs.
      config: `FILE[:ARG]`, as behind `--config=`.
      overrides: dotted config keys and their values, the same for all rows.
    """

    name: str
    config: str
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name or not self.config:
            raise UserError(f"Task({self.name!r}, {self.config!r}): name and config must be given")
        _check_overrides(f"task {self.name!r}", self.overrides)


@dataclass(frozen=True)
class RunOf:
    """As the value of an override: the workdir of another row's run, of the same task and seed.

    What `init` begins from, what a loss learns from. That run is made first, and the identity of
    this one holds its.

    Attributes:
      row: its name; it stands above in the table.
    """

    row: str


@dataclass(frozen=True)
class Variant:
    """A row: what is changed, and against which row it is held.

    Attributes:
      name: printed in front of the row.
      overrides: dotted config keys and their values, which may be a `RunOf`; over those of the
        task.
      tasks: names of the tasks that it runs on; () = all of them.
      base: name of the row that it is compared with; "" = the table's first.
      note: printed below the table.
    """

    name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    base: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise UserError("a Variant must have a name")
        _check_overrides(f"variant {self.name!r}", self.overrides)

    @property
    def sources(self) -> dict[str, str]:
        """The rows whose runs this one reads, by the keys that name them."""
        return {k: v.row for k, v in self.overrides.items() if isinstance(v, RunOf)}


def grid(axes: Mapping[str, Sequence[Any]]) -> tuple[Variant, ...]:
    """A row for every combination of values, the last key varying fastest.

    Example:
      >>> [v.name for v in grid({"data.rows": [8, 16], "data.pack": [True]})]
      ['data.rows=8, data.pack=True', 'data.rows=16, data.pack=True']
    """
    return _variants(axes, itertools.product(*axes.values()))


def pairs(axes: Mapping[str, Sequence[Any]]) -> tuple[Variant, ...]:
    """A row for the first values of all keys, one for the second, and so on.

    Raises:
      UserError: a key has more values than another.
    """
    if len({len(values) for values in axes.values()}) > 1:
        counts = ", ".join(f"{key} {len(values)}" for key, values in axes.items())
        raise UserError(f"pairs() needs as many values of every key, got {counts}")
    return _variants(axes, zip(*axes.values(), strict=True))


def _variants(keys: Iterable[str], rows: Iterable[tuple]) -> tuple[Variant, ...]:
    settings = [dict(zip(keys, values, strict=True)) for values in rows]
    return tuple(
        Variant(", ".join(f"{key}={value}" for key, value in setting.items()), setting)
        for setting in settings
    )


@dataclass(frozen=True)
class Column:
    """A figure of one task.

    Attributes:
      title: printed on top.
      task: the name of its task.
      metric: its name in the log, for instance `test/response_accuracy`.
      higher_is_better: which end of a column is its best.
      scale: what is printed = figure x scale; a share in 0..1 is printed as percent.
      digits: behind the point.
    """

    title: str
    task: str
    metric: str
    higher_is_better: bool = True
    scale: float = 100.0
    digits: int = 2

    def __post_init__(self) -> None:
        if "/" not in self.metric:
            raise UserError(
                f"column {self.title!r}: metric {self.metric!r} names no split; write it as in the "
                "log, for instance 'test/response_accuracy'"
            )


@dataclass(frozen=True)
class Published:
    """A row of someone else, in the units that are printed.

    Attributes:
      name: of the system.
      source: paper and table.
      cells: column title -> value.
      mark: how it is known; see `MARKS`.
      tolerance: column title -> the greatest difference that counts as the same, set beforehand.
      beside: the names of our rows whose cells are held against it.
    """

    name: str
    source: str
    cells: Mapping[str, float]
    mark: str
    tolerance: Mapping[str, float] = field(default_factory=dict)
    beside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.mark not in MARKS:
            known = ", ".join(f"{mark} ({text})" for mark, text in MARKS.items())
            raise UserError(f"published row {self.name!r}: mark {self.mark!r}; marks are {known}")
        if not self.source:
            raise UserError(f"published row {self.name!r} has no source")
        if isinstance(self.beside, str):
            raise UserError(
                f"published row {self.name!r}: beside is one text; write ({self.beside!r},)"
            )
        for title in self.tolerance:
            _known(title, self.cells, f"published row {self.name!r}: tolerance of the cell")


@dataclass(frozen=True)
class Table:
    """A table over runs: variants x tasks x seeds.

    Figures of test splits may be shown; the best checkpoint of a run is never chosen by one.

    Attributes:
      title, caption: printed above it; the caption says what a figure means.
      tasks, columns, variants: see there; the first variant is the base of those that name none.
      seeds: of every cell.
      published: rows of others.
      quick: overrides of all runs, over those of their rows, for a version of minutes over the
        same path.
      quick_seeds: its seeds.
      tradeoff: the titles of two columns that are drawn against each other; () = none are.
    """

    title: str
    caption: str
    tasks: tuple[Task, ...]
    columns: tuple[Column, ...]
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    published: tuple[Published, ...] = ()
    quick: Mapping[str, Any] = field(default_factory=dict)
    quick_seeds: tuple[int, ...] = (0,)
    tradeoff: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        tasks = _names("tasks", [task.name for task in self.tasks])
        titles = _names("columns", [column.title for column in self.columns])
        rows = _names("variants", [variant.name for variant in self.variants])
        for kind, seeds in (("seeds", self.seeds), ("quick_seeds", self.quick_seeds)):
            _names(kind, list(map(str, seeds)))
        for column in self.columns:
            _known(column.task, tasks, f"column {column.title!r}: task")
        for variant in self.variants:
            for task in variant.tasks:
                _known(task, tasks, f"variant {variant.name!r}: task")
            _known(variant.base or rows[0], rows, f"variant {variant.name!r}: base")
            self._check_sources(variant)
        _names("published rows", [row.name for row in self.published], empty=True)
        self._check_published(titles)
        _check_overrides("quick", self.quick)
        for title in self.tradeoff:
            _known(title, titles, "tradeoff: column")
        if len(self.tradeoff) not in (0, 2):
            raise UserError(f"tradeoff: {len(self.tradeoff)} columns; give two, or none")

    def _check_published(self, titles: Sequence[str]) -> None:
        rows = {variant.name: variant for variant in self.variants}
        held: dict[tuple[str, str], str] = {}
        for row in self.published:
            what = f"published row {row.name!r}"
            for title in row.cells:
                _known(title, titles, f"{what}: column")
            for ours in row.beside:
                _known(ours, rows, f"{what}: beside")
                tasks = [task.name for task in self.tasks_of(rows[ours])]
                if not any(c.task in tasks for c in self.columns if c.title in row.cells):
                    raise UserError(f"{what}: beside {ours!r}, which has no cell in its columns")
            for ours, title in itertools.product(row.beside, row.cells):
                first = held.setdefault((ours, title), row.name)
                if first != row.name:
                    raise UserError(
                        f"{ours!r} is held against both {first!r} and {row.name!r} in column "
                        f"{title!r}; a cell has one verdict"
                    )

    def _check_sources(self, variant: Variant) -> None:
        above = {v.name: v for v in self.variants[: self.variants.index(variant)]}
        for key, row in variant.sources.items():
            what = f"variant {variant.name!r}: {key} is the run of"
            if row not in above:
                raise UserError(f"{what} {row!r}, which is no row above it")
            for task in self.tasks_of(variant):
                if task not in self.tasks_of(above[row]):
                    raise UserError(f"{what} {row!r}, which does not run on {task.name!r}")

    def base_of(self, variant: Variant) -> Variant | None:
        """The row that a row is compared with; None for one that is its own base."""
        name = variant.base or self.variants[0].name
        return None if name == variant.name else next(v for v in self.variants if v.name == name)

    def tasks_of(self, variant: Variant) -> tuple[Task, ...]:
        """The tasks that a row runs on."""
        return tuple(task for task in self.tasks if task.name in (variant.tasks or (task.name,)))


def load(path: str | Path) -> Table:
    """Reads the table that a file's `get_table()` declares.

    Raises:
      UserError: the file cannot be read or fails (with its line), or it declares no table.
    """
    table = run_file(Path(path), "get_table", kind="experiment file")
    if not isinstance(table, Table):
        raise UserError(f"{path}: get_table() must return a Table, got {table!r}")
    return table


def _check_overrides(where: str, overrides: Mapping[str, Any]) -> None:
    for key in overrides:
        if not isinstance(key, str) or key.startswith(("-", "config.")):
            raise UserError(f"{where}: override {key!r}; write the dotted key, 'train.steps'")
        if key == "seed":
            raise UserError(f"{where}: overrides seed; the table's seeds give it")


def _names(kind: str, names: list[str], *, empty: bool = False) -> list[str]:
    """The names, each there once."""
    if not names and not empty:
        raise UserError(f"a table needs {kind}")
    name, count = max(Counter(names).items(), key=lambda item: item[1], default=("", 0))
    if count > 1:
        raise UserError(f"{kind}: {name!r} is there {count} times; names must differ")
    return names


def _known(name: str, names: Iterable[str], what: str) -> None:
    names = list(names)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
        raise UserError(f"{what} {name!r} is unknown; {hint}")
