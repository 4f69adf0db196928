"""A report's page as Markdown and as one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

SAME, OTHER = "✓", "✗"


@dataclass(frozen=True)
class Table:
    """A heading, column names and rows of text.

    A row of a sample has three cells where the model wrote something and two where it only read.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Page:
    """What a report shows, as text; nothing in it is markup."""

    title: str
    tables: tuple[Table, ...]
    samples: tuple[Table, ...]
    notes: tuple[str, ...]
    next_command: str


def markdown_page(page: Page, picture: str) -> str:
    """The page as Markdown; `picture` is a path relative to it, or empty."""
    lines = [f"# {markdown_text(page.title)}", ""]
    for table in page.tables[:1]:
        lines += _markdown_table(table)
    lines += [f"- {markdown_text(note)}" for note in page.notes] + [""]
    if picture:
        lines += ["## Learning curve", "", f"![loss against updates]({picture})", ""]
    for table in page.tables[1:]:
        lines += _markdown_table(table)
    if page.samples:
        lines += ["## Dialogues, side by side", ""]
    for sample in page.samples:
        rows = tuple((*row, "", "")[:3] for row in map(_marked, sample.rows))
        lines += _markdown_table(Table(sample.title, sample.header, rows), level=3)
    lines += ["## Next", "", "    " + page.next_command, ""]
    return "\n".join(lines)


def _marked(row: tuple[str, ...]) -> tuple[str, ...]:
    """Puts a mark in front of what the model wrote: the corpus's own words, or others."""
    if len(row) < 3:
        return row
    return (*row[:2], f"{SAME if row[1] == row[2] else OTHER} {row[2]}")


def _markdown_table(table: Table, level: int = 2) -> list[str]:
    rows = [table.header, ("---",) * len(table.header), *table.rows]
    lines = ["| " + " | ".join(map(markdown_text, row)) + " |" for row in rows]
    return [f"{'#' * level} {markdown_text(table.title)}", "", *lines, ""]


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = re.sub(r"([\\`*|\[\]]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)
    text = escape(text, quote=False).replace("&lt; ", "< ")  # "< " begins no tag
    return text.replace("\n", "<br>")


STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fafaf8; margin: 0 }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 4rem }
h1 { font-size: 1.7rem; margin: 0 0 1.5rem }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .6rem }
h3 { font-size: 1rem; font-weight: 600; margin: 1.5rem 0 .5rem; color: #555 }
.wide { overflow-x: auto }
table { border-collapse: collapse; background: #fff; font-size: .92rem; min-width: 40% }
th, td { border-bottom: 1px solid #e6e6e2; padding: .4rem .8rem; text-align: right }
th { color: #555; font-weight: 600; background: #f2f2ee }
th:first-child, td:first-child, .samples th, .samples td { text-align: left }
.samples table { width: 100%; table-layout: fixed }
.samples th:first-child { width: 5.5rem }
.samples td { vertical-align: top; white-space: pre-wrap; overflow-wrap: anywhere }
.samples td:first-child { color: #777 }
.read { color: #555; background: #f8f8f5 }
.same { background: #eef7ee }
.other { background: #fbeceb }
img { max-width: 100%; background: #fff; border: 1px solid #e6e6e2 }
pre { background: #fff; border: 1px solid #e6e6e2; padding: .8rem 1rem; overflow-x: auto }
.notes { color: #555; font-size: .88rem; padding-left: 1.2rem }
""".strip()

# Nothing may be fetched: neither a picture, nor a font, nor a script.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def html_page(page: Page, picture: str) -> str:
    """The page as one HTML file that fetches nothing; `picture` is a data URI, or empty."""
    parts = [f"<h1>{escape(page.title)}</h1>"]
    parts += map(_html_table, page.tables[:1])
    if page.notes:
        notes = "".join(f"<li>{escape(note)}</li>" for note in page.notes)
        parts.append(f'<ul class="notes">{notes}</ul>')
    if picture:
        parts.append(f'<h2>Learning curve</h2>\n<img alt="loss against updates" src="{picture}">')
    parts += map(_html_table, page.tables[1:])
    if page.samples:
        parts.append("<h2>Dialogues, side by side</h2>")
    parts += map(_html_sample, page.samples)
    parts.append(f"<h2>Next</h2>\n<pre>{escape(page.next_command)}</pre>")
    return html_document(page.title, parts)


def html_document(title: str, parts: Sequence[str], *, style: str = "", script: str = "") -> str:
    """An HTML file that fetches nothing and runs no script but its own.

    Args:
      title: text.
      parts: markup of the body.
      style: rules beside `STYLE`.
      script: its only one; the page's policy names it by its digest.
    """
    policy, tail = POLICY, ""
    if script:
        hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy, tail = f"{POLICY}; script-src 'sha256-{hashed}'", f"<script>{script}</script>\n"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + f"\n</main>\n{tail}</body>\n</html>\n"
    )


def _html_table(table: Table) -> str:
    rows = [_html_row(table.header, "th"), *(_html_row(row, "td") for row in table.rows)]
    body = "\n".join(rows)
    return f'<h2>{escape(table.title)}</h2>\n<div class="wide"><table>\n{body}\n</table></div>'


def _html_row(cells: tuple[str, ...], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _html_sample(sample: Table) -> str:
    rows = [_html_row(sample.header, "th")]
    for row in sample.rows:
        who, gold, *predicted = map(escape, _marked(row))
        if predicted:
            kind = "same" if row[1] == row[2] else "other"
            cells = f'<td>{gold}</td><td class="{kind}">{predicted[0]}</td>'
        else:
            cells = f'<td class="read" colspan="2">{gold}</td>'
        rows.append(f"<tr><td>{who}</td>{cells}</tr>")
    body = "\n".join(rows)
    return f'<h3>{escape(sample.title)}</h3>\n<div class="samples"><table>\n{body}\n</table></div>'
