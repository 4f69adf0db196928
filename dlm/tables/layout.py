"""A table as text: what stands in each cell, and what is said below it. Formats only escape it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dlm.tables.cells import Cell, Comparison, Key, Results
from dlm.tables.spec import MARKS, Column, Published, Variant
from dlm.tables.statistics import LEVEL

DAGGER = "†"
NONE = "–"
NOT_RUN = "not run"
FEW = 5  # with fewer seeds each value is printed
LONGEST_REASON = 32  # in a cell; the notes have it whole


@dataclass(frozen=True)
class Entry:
    """One cell as it is shown.

    Attributes:
      text: the figure, or why there is none; "" where none belongs.
      under: what stands below it, smaller.
      bold: see `Results.best`.
      number: what it is sorted by, in printed units; None where there is no figure.
    """

    text: str = ""
    under: str = ""
    bold: bool = False
    number: float | None = None


@dataclass(frozen=True)
class Row:
    """A row's name (and, of a published one, its source) and its cells."""

    name: Entry
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Grid:
    """A smaller table below the main one; all text, its first three columns names."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Sheet:
    """All that is shown of a table, as text without markup.

    Attributes:
      title, caption: above it.
      header: of the columns, with an arrow to their better end.
      published, ours: the rows, others' first.
      grids: published figures beside ours, and rows against their base.
      notes: what the signs mean, how metrics are measured, where the figures come from.
    """

    title: str
    caption: str
    header: tuple[str, ...]
    published: tuple[Row, ...]
    ours: tuple[Row, ...]
    grids: tuple[Grid, ...]
    notes: tuple[str, ...]


def lay_out(results: Results) -> Sheet:
    """Writes a table's figures as text.

    A mean stands only where every seed is done: `mean ± s (n)`, s the sample deviation, and each
    seed's value below it where n < 5. One seed has no deviation. Where seeds are not done, their
    share stands in place of a mean.
    """
    table = results.table
    grids = (_beside_grid(results), _base_grid(results))
    return Sheet(
        title=f"{table.title} (quick)" if results.quick else table.title,
        caption=table.caption,
        header=tuple(f"{c.title} {'↑' if c.higher_is_better else '↓'}" for c in table.columns),
        published=tuple(_published_row(row, table.columns) for row in table.published),
        ours=tuple(
            Row(Entry(v.name), tuple(entry(results, v, column) for column in table.columns))
            for v in table.variants
        ),
        grids=tuple(grid for grid in grids if grid.rows),
        notes=tuple(_notes(results)),
    )


def figure(value: float, column: Column) -> str:
    """A figure in the log's units as it is printed: scaled, with the column's digits."""
    return printed(value * column.scale, column)


def printed(value: float, column: Column, sign: str = "") -> str:
    """A number in printed units, with a true minus and never as -0; `sign` "+" shows a plus."""
    text = f"{value:{sign}.{column.digits}f}"
    if not text.strip("+-0."):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def entry(results: Results, variant: Variant, column: Column) -> Entry:
    """One of our cells."""
    cell = results.cells.get((variant.name, column.title))
    if cell is None:
        return Entry()
    summary = cell.summary
    if summary is None:
        reason = next(filter(None, map(told, cell.reasons)), "")
        return Entry(f"failed: {_shortened(reason)}" if "failed" in cell.states else NOT_RUN)
    each = ", ".join(
        (NOT_RUN if state == "missing" else "failed") if value is None else figure(value, column)
        for value, state in zip(cell.values, cell.states, strict=True)
    )
    if not complete(cell):
        return Entry(f"{summary.n}/{len(cell.values)} seeds", each)
    text = figure(summary.mean, column)
    if summary.deviation is not None:
        text += f" ± {figure(summary.deviation, column)}"
    return Entry(
        text=f"{text} ({summary.n})",
        under=each if 1 < summary.n < FEW else "",
        bold=variant.name in results.best.get(column.title, ()),
        number=summary.mean * column.scale,
    )


def complete(cell: Cell) -> bool:
    """Whether every seed is done and has the figure."""
    return cell.whole and None not in cell.values


def told(reason: str) -> str:
    """Why a run failed, on one line, without the word that the command line puts in front."""
    return " ".join(reason.split()).removeprefix("error: ")


def _shortened(reason: str) -> str:
    return reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 1].rstrip() + "…"


def published_name(row: Published) -> str:
    """The name of a published row, with a dagger where its figures are recalled."""
    return f"{row.name} {DAGGER}" if row.mark == "R" else row.name


def _published_row(row: Published, columns: tuple[Column, ...]) -> Row:
    entries = [
        Entry(printed(row.cells[c.title], c), number=row.cells[c.title])
        if c.title in row.cells
        else Entry()
        for c in columns
    ]
    return Row(Entry(published_name(row), f"{row.source} [{row.mark}]"), tuple(entries))


def _beside_grid(results: Results) -> Grid:
    """Rows: published cells that one of ours is held against."""
    variants = {variant.name: variant for variant in results.table.variants}
    columns = {column.title: column for column in results.table.columns}
    rows = []
    for (_, name, title), verdict in results.verdicts.items():
        row, column, difference = verdict.published, columns[title], verdict.difference
        allowed = row.tolerance.get(title)
        rows.append(
            (
                published_name(row),
                name,
                title,
                printed(verdict.value, column),
                entry(results, variants[name], column).text,
                NONE if difference is None else printed(difference, column, "+"),
                NONE if allowed is None else f"± {printed(allowed, column)}",
                verdict.verdict,
            )
        )
    header = ("published", "our row", "column", "figure", "ours", "difference", "tolerance")
    return Grid("Beside the published figures", (*header, "verdict"), tuple(rows))


def _base_grid(results: Results) -> Grid:
    """Rows: our cells that are compared with the base row's, over the same seeds."""
    rows = [
        (
            variant.name,
            base.name,
            column.title,
            str(comparison.paired.difference.n),
            figure_signed(comparison.paired.difference.mean, column),
            _interval(comparison, column),
            _probability(comparison.paired.p),
            _probability(comparison.p_holm),
        )
        for variant, base, column, comparison in compared(results)
    ]
    header = ("row", "base", "column", "seeds", "difference", "95 % interval", "p", "p (Holm)")
    return Grid("Against the base row", header, tuple(rows))


def compared(results: Results) -> Iterator[tuple[Variant, Variant, Column, Comparison]]:
    """Our cells that are compared with their base row's: row, base row, column, comparison."""
    for variant in results.table.variants:
        base = results.table.base_of(variant)
        for column in results.table.columns:
            key: Key = (variant.name, column.title)
            if base is not None and key in results.comparisons:
                yield variant, base, column, results.comparisons[key]


def figure_signed(value: float, column: Column) -> str:
    """A difference in the log's units as it is printed, with its sign."""
    return printed(value * column.scale, column, "+")


def _interval(comparison: Comparison, column: Column) -> str:
    low, high = comparison.paired.difference.low, comparison.paired.difference.high
    if low is None or high is None:
        return NONE
    return f"{figure_signed(low, column)} to {figure_signed(high, column)}"


def _probability(p: float | None) -> str:
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _failures(results: Results) -> dict[tuple[str, str], list[int]]:
    """(row, reason) -> the seeds whose runs failed by it."""
    failures: dict[tuple[str, str], list[int]] = {}
    for (variant, _), cell in results.cells.items():
        for seed, reason in zip(results.table.seeds, map(told, cell.reasons), strict=True):
            seeds = failures.setdefault((variant, reason), []) if reason else []
            if seed not in seeds:
                seeds.append(seed)
    return failures


def _signatures(results: Results) -> Iterator[str]:
    """How columns are measured: those that are measured alike in one line."""
    alike: dict[str, list[str]] = {}
    for title, text in results.signatures.items():
        alike.setdefault(text, []).append(title)
    for text, titles in alike.items():
        every = len(titles) == len(results.table.columns)
        yield f"{'Every column' if every else '; '.join(titles)}: {text}"


def _notes(results: Results) -> Iterator[str]:
    """What is said below a table."""
    table = results.table
    seeds = ", ".join(map(str, table.seeds))
    if results.quick:
        changes = ", ".join(f"{key}={value}" for key, value in table.quick.items())
        yield (
            f"Quick version: every run with {changes or 'no change'}. It shows that the way to "
            "the table works; its figures are not the table's."
        )
    if len(table.seeds) == 1:
        yield f"Seed {seeds} alone: no deviation."
    else:
        yield (
            f"Seeds {seeds}. ± is the sample deviation over seeds, their number in brackets; with "
            f"fewer than {FEW} each seed's value stands below. One seed has no deviation."
        )
    if any(not complete(cell) for cell in results.cells.values()):
        yield "k/n seeds: only k of n runs are done; a mean is printed when all are."
    for (variant, reason), failed in _failures(results).items():
        yield f"Failed: {variant}, seeds {', '.join(map(str, failed))}: {reason}"
    if results.comparisons:
        yield (
            "Against the base row: row minus base, seed by seed; t interval and p of the paired t "
            f"test, p (Holm) corrected over a column's comparisons; {NONE}: one seed, or "
            "differences that are all the same."
        )
    if results.comparisons:
        yield (
            "Bold: the best mean of ours in a column all of whose runs are done, better than its "
            f"base row with p (Holm) below {1 - LEVEL:.2g}."
        )
    marks = dict.fromkeys(row.mark for row in table.published)
    if marks:
        named = "; ".join(f"{DAGGER * (mark == 'R')}{mark}: {MARKS[mark]}" for mark in marks)
        yield f"Published rows, how their figures are known: {named}."
    yield from _signatures(results)
    yield from (f"{variant.name}: {variant.note}" for variant in table.variants if variant.note)
    if results.provenance:
        yield "; ".join(f"{name} {text}" for name, text in results.provenance.items())
