"""From the runs of a table to its cells: figures, comparisons, verdicts, what may be bold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product

from dlm.core.errors import UserError
from dlm.tables.cells import Cell, Comparison, Key, Results, Verdict
from dlm.tables.jobs import Job
from dlm.tables.runner import shown
from dlm.tables.spec import Column, Published, Table
from dlm.tables.statistics import LEVEL, holm, paired
from dlm.tables.store import Record

FORCED = {
    *("loss", "perplexity", "token_accuracy", "response_accuracy", "dialogue_accuracy"),
    *("call_accuracy", "state_accuracy"),
}
LIVE = ("rollout", "simulated")
Rescored = Callable[[Record], Mapping[str, float]]


def collect(
    table: Table,
    runs: Sequence[Job],
    records: Mapping[str, Record],
    *,
    quick: bool,
    provenance: Mapping[str, str],
    rescored: Rescored,
) -> Results:
    """Fills a table from what its runs left behind.

    A figure of generated responses is scored again from the stored predictions; where that is not
    what the run said, or where a run measured otherwise than the others of its column, the run
    counts as failed, with that as its reason.

    Args:
      table: the declaration.
      runs: of `jobs.expand`.
      records: of the runs that were started, by workdir.
      quick: whether they are those of the quick version.
      provenance: see `Results`.
      rescored: the figures of a run's stored predictions, `SPLIT/METRIC`, without its model.
    """
    again = {
        workdir: _again(rescored, record)
        for workdir, record in records.items()
        if record.state == "done"
    }
    cells: dict[Key, Cell] = {}
    signatures: dict[str, str] = {}
    for column in table.columns:
        for variant in table.variants:
            if column.task in [task.name for task in table.tasks_of(variant)]:
                own = [r for r in runs if (r.variant, r.task.name) == (variant, column.task)]
                cells[variant.name, column.title] = _cell(own, records, again, column, signatures)
    comparisons = compare(table, cells)
    verdicts = {
        (row.name, ours, column.title): judge(row, column, cells[ours, column.title])
        for row in table.published
        for ours, column in product(row.beside, table.columns)
        if column.title in row.cells and (ours, column.title) in cells
    }
    best = {column.title: bold(table, column, cells, comparisons) for column in table.columns}
    return Results(table, cells, comparisons, verdicts, best, signatures, quick, provenance)


def _again(rescored: Rescored, record: Record) -> Mapping[str, float] | str:
    """What a run's predictions score, or why they cannot be scored."""
    try:
        return rescored(record)
    except UserError as error:
        return str(error)


def _cell(
    runs: Sequence[Job],
    records: Mapping[str, Record],
    again: Mapping[str, Mapping[str, float] | str],
    column: Column,
    signatures: dict[str, str],
) -> Cell:
    """One cell; the first run of a column that is done gives the column's signature."""
    values: list[float | None] = []
    states, reasons = [], []
    for run in runs:
        record = records.get(str(run.workdir.absolute()))
        if record is None or record.state == "missing":
            value, problem, state = None, "", "missing"
        elif record.state == "failed":
            value, problem, state = None, record.reason, "failed"
        else:
            value = record.figures.get(column.metric)
            problem = _problem(record, column, again[record.workdir], signatures)
            value, state = (None, "failed") if problem else (value, "done")
        values.append(value)
        states.append(state)
        reasons.append(problem)
    return Cell(
        tuple(values),
        tuple(states),  # type: ignore[arg-type]
        tuple(reasons),
        tuple(str(run.workdir) for run in runs),
        tuple(shown(run) for run in runs),
    )


def _problem(
    record: Record,
    column: Column,
    again: Mapping[str, float] | str,
    signatures: dict[str, str],
) -> str:
    """Why a finished run's figure cannot stand in a column; "" where it can."""
    value = record.figures.get(column.metric)
    if value is None:
        return f"it measured no finite {column.metric}"
    if isinstance(again, str):
        return again
    if column.metric in again and again[column.metric] != value:
        return f"its predictions score {again[column.metric]}, it said {value}"
    signature = signature_of(record.signatures, column.metric)
    if signatures.setdefault(column.title, signature) != signature:
        return f"it measured otherwise than the column's first run: {signature}"
    return ""


def signature_of(signatures: Mapping[str, str], metric: str) -> str:
    """How a metric is measured, of what a run says of all of its metrics."""
    scope, *_, name = metric.split("/")
    if scope == "train":
        return "of the run's training; evaluations are left out of its time"
    if scope in LIVE:
        names = [f"success, {scope}"]
    elif name in FORCED:
        names = ["loss, accuracies"]
    else:
        spoken = name.replace("_", " ")
        stems = [key for key in signatures if spoken.startswith((key, key.split()[0]))]
        names = ["generated", *stems]
    return "; ".join(signatures[name] for name in names if name in signatures)


def compare(table: Table, cells: Mapping[Key, Cell]) -> dict[Key, Comparison]:
    """Each whole cell against its base row's, p-values adjusted over the column (Holm)."""
    comparisons: dict[Key, Comparison] = {}
    for column in table.columns:
        found: dict[Key, Comparison] = {}
        for variant in table.variants:
            base = table.base_of(variant)
            ours = cells.get((variant.name, column.title))
            theirs = base and cells.get((base.name, column.title))
            if ours and theirs and ours.whole and theirs.whole:
                pair = paired(_done(ours), _done(theirs))
                found[variant.name, column.title] = Comparison(pair, None)
        tested = [key for key, one in found.items() if one.paired.p is not None]
        adjusted = holm([found[key].paired.p or 0.0 for key in tested])
        for key, p in zip(tested, adjusted, strict=True):
            found[key] = replace(found[key], p_holm=p)
        comparisons.update(found)
    return comparisons


def _done(cell: Cell) -> list[float]:
    return [value for value in cell.values if value is not None]


def judge(row: Published, column: Column, cell: Cell) -> Verdict:
    """Our cell against a published one; only a whole cell is judged."""
    value = row.cells[column.title]
    if not cell.whole or cell.summary is None:
        return Verdict(row, value, None, "not run")
    difference = cell.summary.mean * column.scale - value
    if column.title not in row.tolerance:
        return Verdict(row, value, difference, "no tolerance set")
    within = abs(difference) <= row.tolerance[column.title]
    return Verdict(row, value, difference, "within tolerance" if within else "outside")


def bold(
    table: Table,
    column: Column,
    cells: Mapping[Key, Cell],
    comparisons: Mapping[Key, Comparison],
) -> frozenset[str]:
    """The rows of a column that may be bold.

    Of the whole cells those with the best mean, if they are better than their base row's after
    Holm; a base row, and a column in which a cell is not whole, has none.
    """
    sign = 1 if column.higher_is_better else -1
    means = {}
    for variant in table.variants:
        cell = cells.get((variant.name, column.title))
        if cell is not None and (not cell.whole or cell.summary is None):
            return frozenset()
        if cell is not None and cell.summary is not None:
            means[variant.name] = sign * cell.summary.mean
    # Of a row that is the best its base is no better, so a difference that is real is a gain.
    adjusted = {name: comparisons.get((name, column.title)) for name in means}
    return frozenset(
        name
        for name, one in adjusted.items()
        if one is not None and one.p_holm is not None and one.p_holm < 1 - LEVEL
        if means[name] == max(means.values())
    )
