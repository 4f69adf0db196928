"""Writes a table in every format: Markdown, LaTeX, CSV, HTML, and plots."""

from __future__ import annotations

import base64
import csv
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dlm.core.errors import UserError
from dlm.core.files import write_atomic
from dlm.evaluation.pages import markdown_text
from dlm.tables import plots
from dlm.tables.cells import Results
from dlm.tables.latex import latex
from dlm.tables.layout import Entry, Grid, Row, Sheet, complete, lay_out
from dlm.tables.page import page
from dlm.tables.spec import Column, Published, Variant

NAME = "table"


def write(results: Results, folder: Path) -> Path:
    """Writes `table.md`, `.tex`, `.csv`, `.html` and `plots/*.png` and `*.pdf` into a folder.

    All but the learning curves, which are read from the runs' `metrics.jsonl`, is a function of
    the results alone.

    Returns:
      The path of table.md.
    """
    sheet = lay_out(results)
    pictures = plots.draw(results, folder / "plots")
    linked = {title: path.relative_to(folder).as_posix() for title, path in pictures.items()}
    embedded = {
        title: "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        for title, path in pictures.items()
    }
    written = {
        "tex": latex(sheet),
        "csv": comma_separated(results),
        "html": page(results, sheet, folder, embedded),
        "md": markdown(sheet, linked),
    }
    for suffix, text in written.items():
        write_atomic(folder / f"{NAME}.{suffix}", text)
    return folder / f"{NAME}.md"


def collect(folder: Path, target: Path) -> str:
    """The `table.md` of every folder in `folder`, as one Markdown file that will be `target`.

    Headings move down a level and pictures are linked from where the file stands.

    Raises:
      UserError: there is none.
    """
    paths = sorted(folder.glob(f"*/{NAME}.md"))
    if not paths:
        raise UserError(f"{folder} holds no folder with a {NAME}.md; name the one of the tables")
    parts = [
        "# Results",
        f"Generated from the tables of `{folder.as_posix()}`; not edited by hand.",
    ]
    for path in paths:
        beside = os.path.relpath(path.parent, target.parent)
        text = re.sub(r"^#", "##", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        text = re.sub(r"^(!\[.*\])\((.*)\)$", rf"\1({quote(beside)}/\2)", text, flags=re.MULTILINE)
        parts.append(text.strip())
    return "\n\n".join(parts) + "\n"


def markdown(sheet: Sheet, pictures: Mapping[str, str]) -> str:
    """The sheet as Markdown; `pictures` are title -> path relative to it."""
    lines = [f"# {markdown_text(sheet.title)}", "", markdown_text(sheet.caption), ""]
    lines += _markdown_rows(("", *map(markdown_text, sheet.header)), "---:")
    lines += [_markdown_row(row) for row in (*sheet.published, *sheet.ours)]
    lines += ["", *(f"- {markdown_text(note)}" for note in sheet.notes), ""]
    for grid in sheet.grids:
        lines += _markdown_grid(grid)
    for title, path in pictures.items():
        lines += [f"## {title}", "", f"![{title}]({path})", ""]
    return "\n".join(lines)


def _markdown_rows(header: Sequence[str], rule: str) -> list[str]:
    rules = ("---", *(rule for _ in header[1:]))
    return ["| " + " | ".join(cells) + " |" for cells in (header, rules)]


def _markdown_row(row: Row) -> str:
    return "| " + " | ".join(map(_markdown_entry, (row.name, *row.entries))) + " |"


def _markdown_entry(entry: Entry) -> str:
    text = markdown_text(entry.text)
    if entry.bold:
        text = f"**{text}**"
    return f"{text}<br>{markdown_text(entry.under)}" if entry.under else text


def _markdown_grid(grid: Grid) -> list[str]:
    lines = [f"## {grid.title}", "", *_markdown_rows(grid.header, "---")]
    return [*lines, *("| " + " | ".join(map(markdown_text, row)) + " |" for row in grid.rows), ""]


def comma_separated(results: Results) -> str:
    """One line a cell, ours once for each published figure held against it, then the others'.

    Figures are in printed units, unrounded; `difference`, `low`, `high`, `p` and `p_holm` are
    against the base row, `from_published` is ours - published.
    """
    seeds = [f"seed_{seed}" for seed in results.table.seeds]
    out = io.StringIO()
    fields = (
        *("kind", "quick", "row", "column", "task", "metric", "scale", "state", *seeds),
        *("n", "mean", "deviation", "mean_low", "mean_high"),
        *("base", "difference", "low", "high", "p", "p_holm"),
        *("source", "mark", "published_row", "published", "from_published", "tolerance", "verdict"),
    )
    writer = csv.DictWriter(out, fields, restval="", lineterminator="\n")
    writer.writeheader()
    for column in results.table.columns:
        common = {
            "quick": str(results.quick).lower(),
            "column": column.title,
            "task": column.task,
            "metric": column.metric,
            "scale": f"{column.scale:g}",
        }
        for variant in results.table.variants:
            for record in _our_records(results, variant, column):
                writer.writerow({**common, **record})
        for row in results.table.published:
            if column.title in row.cells:
                writer.writerow({**common, **_published_record(row, column)})
    return out.getvalue()


def _our_records(results: Results, variant: Variant, column: Column) -> Iterator[dict[str, Any]]:
    key = (variant.name, column.title)
    cell = results.cells.get(key)
    if cell is None:
        return
    record: dict[str, Any] = {"kind": "ours", "row": variant.name}
    record["state"] = "; ".join(
        f"{state}: {reason}" if reason else state
        for state, reason in zip(cell.states, cell.reasons, strict=True)
    )
    if cell.whole:
        record["state"] = "done"
    for seed, value in zip(results.table.seeds, cell.values, strict=True):
        record[f"seed_{seed}"] = _scaled(value, column)
    if (summary := cell.summary) is not None and complete(cell):
        record["n"] = summary.n
        names = ("mean", "deviation", "mean_low", "mean_high")
        values = (summary.mean, summary.deviation, summary.low, summary.high)
        record |= {n: _scaled(value, column) for n, value in zip(names, values, strict=True)}
    base = results.table.base_of(variant)
    if base is not None and key in results.comparisons:
        comparison = results.comparisons[key]
        paired = comparison.paired
        record |= {"base": base.name, "p": paired.p, "p_holm": comparison.p_holm}
        record["difference"] = _scaled(paired.difference.mean, column)
        record["low"] = _scaled(paired.difference.low, column)
        record["high"] = _scaled(paired.difference.high, column)
    held = [
        {
            "published_row": row.name,
            "source": row.source,
            "mark": row.mark,
            "published": verdict.value,
            "from_published": verdict.difference,
            "tolerance": row.tolerance.get(column.title, ""),
            "verdict": verdict.verdict,
        }
        for row in results.table.published
        if (verdict := results.verdicts.get((row.name, variant.name, column.title))) is not None
    ]
    for beside in held or [{}]:
        yield {**record, **beside}


def _published_record(row: Published, column: Column) -> dict[str, Any]:
    return {
        "kind": "published",
        "row": row.name,
        "mean": row.cells[column.title],
        "source": row.source,
        "mark": row.mark,
    }


def _scaled(value: float | None, column: Column) -> float | None:
    return None if value is None else value * column.scale
