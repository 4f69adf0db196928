"""A table as one HTML file: sorted by a click, each figure leading to its runs; nothing fetched."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from dlm.evaluation.pages import html_document
from dlm.tables.cells import Cell, Results
from dlm.tables.layout import Entry, Grid, Row, Sheet, figure
from dlm.tables.spec import Column, Variant

STYLE = """
main { max-width: 75rem }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0 }
th button, summary { cursor: pointer }
th[aria-sort=ascending] button::after { content: " ▲"; font-size: .7em }
th[aria-sort=descending] button::after { content: " ▼"; font-size: .7em }
td { vertical-align: top }
td small { display: block; color: #777; white-space: nowrap }
td:first-child small { white-space: normal }
td a { color: inherit; text-decoration: underline dotted #999; white-space: nowrap }
.text td, .text th { text-align: left; white-space: pre-line }
.published td { color: #555; background: #f8f8f5 }
.failed { color: #a33 }
caption { text-align: left; padding: .4rem 0; color: #555 }
details { margin: .3rem 0 }
details table { margin: .4rem 0 1rem 1rem }
details code { white-space: pre-wrap; overflow-wrap: anywhere }
figure { margin: 1rem 0 }
""".lstrip()

# A click on a heading sorts its column, a second one the other way; rows without a figure stay
# last. A link to a figure's runs opens them.
SCRIPT = """
const number = (text) => (text === "" || isNaN(text) ? null : Number(text));
const compare = (a, b) => {
  const [x, y] = [number(a), number(b)];
  return x !== null && y !== null ? x - y : a.localeCompare(b);
};
for (const head of document.querySelectorAll("table.sortable th")) {
  head.firstElementChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = head.closest("table").tBodies[0];
    const key = (row) => row.cells[head.cellIndex].dataset.key ?? "";
    const rows = [...body.rows].sort((a, b) => {
      if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");
      return down ? compare(key(b), key(a)) : compare(key(a), key(b));
    });
    body.append(...rows);
  });
}
const open = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) target.open = true;
};
addEventListener("hashchange", open);
open();
""".lstrip()

FILES = ("config.json", "report.html", "metrics.jsonl", "log.txt", "predictions")


def page(results: Results, sheet: Sheet, folder: Path, pictures: Mapping[str, str]) -> str:
    """The page of a table.

    Args:
      results: the table.
      sheet: its text.
      folder: where the page will stand; links to the runs' workdirs are relative to it.
      pictures: title -> data URI.
    """
    parts = [f"<h1>{escape(sheet.title)}</h1>", f"<p>{escape(sheet.caption)}</p>", _main(sheet)]
    notes = "".join(f"<li>{escape(note)}</li>" for note in sheet.notes)
    parts.append(f'<ul class="notes">{notes}</ul>')
    parts += [
        f'<figure><h2>{escape(title)}</h2><img alt="{escape(title)}" src="{uri}"></figure>'
        for title, uri in pictures.items()
    ]
    parts += [sortable(grid) for grid in sheet.grids]
    parts.append("<h2>Where each figure comes from</h2>")
    for place, variant in enumerate(results.table.variants):
        for number, column in enumerate(results.table.columns):
            cell = results.cells.get((variant.name, column.title))
            if cell is not None:
                text = sheet.ours[place].entries[number].text
                parts.append(_evidence(results, cell, variant, column, text, folder))
    return html_document(sheet.title, parts, style=STYLE, script=SCRIPT)


def sortable(grid: Grid, links: Sequence[str] = ()) -> str:
    """A table of text, sorted by a click; `links` lead from each row's first cell."""
    body = []
    for row, target in zip(grid.rows, links or [""] * len(grid.rows), strict=True):
        shown = [escape(cell) for cell in row]
        if target:
            shown[0] = f'<a href="{target}">{shown[0]}</a>'
        cells = (_td(_key(cell), markup) for cell, markup in zip(row, shown, strict=True))
        body.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<h2>{escape(grid.title)}</h2>\n<div class="wide"><table class="sortable text">\n'
        f"{_header(grid.header)}\n<tbody>\n" + "\n".join(body) + "\n</tbody>\n</table></div>"
    )


def link(target: str | Path, folder: Path) -> str:
    """The address of a file or folder, relative to the folder that the page stands in."""
    return quote(os.path.relpath(target, folder))


def _td(key: str, markup: str) -> str:
    return f'<td data-key="{escape(key)}">{markup}</td>'


def _key(text: str) -> str:
    """What a text is sorted by: a number that it begins with, else itself; "" sorts last."""
    first = text.replace("−", "-").replace("< ", "").replace(",", "").split(" ")[0]
    try:
        return repr(float(first))
    except ValueError:
        return "" if text == "–" else text


def _main(sheet: Sheet) -> str:
    rows = [_row(row, ' class="published"', None) for row in sheet.published]
    rows += [_row(row, "", place) for place, row in enumerate(sheet.ours)]
    return (
        f'<div class="wide"><table class="sortable">\n{_header(("row", *sheet.header))}\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody>\n</table></div>"
    )


def _header(titles: Sequence[str]) -> str:
    heads = (f'<th scope="col"><button type="button">{escape(t)}</button></th>' for t in titles)
    return f"<thead><tr>{''.join(heads)}</tr></thead>"


def _row(row: Row, kind: str, place: int | None) -> str:
    cells = [_td(row.name.text, _shown(row.name))]
    for number, entry in enumerate(row.entries):
        key = "" if entry.number is None else repr(entry.number)
        target = _anchor(place, number) if place is not None and entry.text else ""
        cells.append(_td(key, _shown(entry, target)))
    return f"<tr{kind}>{''.join(cells)}</tr>"


def _shown(entry: Entry, target: str = "") -> str:
    text = escape(entry.text)
    if entry.bold:
        text = f"<b>{text}</b>"
    if target:
        kind = ' class="failed"' if entry.text.startswith("failed") else ""
        text = f'<a{kind} href="#{target}">{text}</a>'
    return f"{text}<small>{escape(entry.under)}</small>" if entry.under else text


def _anchor(place: int, number: int) -> str:
    return f"cell-{place}-{number}"


def _evidence(
    results: Results, cell: Cell, variant: Variant, column: Column, text: str, folder: Path
) -> str:
    """The runs behind a cell: seed, state, value, workdir with its files, command."""
    table = results.table
    place, number = table.variants.index(variant), table.columns.index(column)
    runs = (cell.values, cell.states, cell.reasons, cell.workdirs, cell.commands)
    rows = []
    for seed, value, state, reason, workdir, command in zip(table.seeds, *runs, strict=True):
        said = f"{state}: {reason}" if reason else state
        shown = "" if value is None else figure(value, column)
        there = [path for path in (Path(workdir, name) for name in FILES) if path.exists()]
        files = " ".join(f'<a href="{link(path, folder)}">{path.name}</a>' for path in there)
        where = f'<a href="{link(workdir, folder)}">{escape(workdir)}</a><small>{files}</small>'
        rows.append(
            f"<tr><td>{seed}</td><td>{shown}</td><td>{escape(said)}</td><td>{where}</td>"
            f"<td><code>{escape(command)}</code></td></tr>"
        )
    title = f"{variant.name}, {column.title}: {text}"
    head = "".join(f"<th>{name}</th>" for name in ("seed", "figure", "state", "workdir", "command"))
    return (
        f'<details id="{_anchor(place, number)}"><summary>{escape(title)}</summary>\n'
        f"<p>{escape(column.metric)} of task {escape(column.task)}, times {column.scale:g}</p>\n"
        f'<div class="wide"><table class="text"><tr>{head}</tr>\n'
        + "\n".join(rows)
        + "</table></div></details>"
    )
