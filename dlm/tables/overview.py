"""Runs as a list: for the terminal, and as one HTML file with their curves that fetches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from dlm.evaluation.pages import html_document
from dlm.tables import page
from dlm.tables.layout import Grid, told
from dlm.tables.store import Record

SPLITS = ("validation", "test")
METRICS = ("loss", "response_accuracy", "joint_goal_accuracy", "bleu")
SHORT_COMMIT = 8
STATES = {"done": "done", "missing": "unfinished"}  # goes on by the same command


def listed(runs: Sequence[Record]) -> Grid:
    """Name, state, seed, main figures (as logged, shares in 0..1) and commit of each run."""
    wanted = [f"{split}/{metric}" for split in SPLITS for metric in METRICS]
    names = [name for name in wanted if any(run.figures.get(name) is not None for run in runs)]
    rows = tuple(
        (
            run.name,
            f"failed: {told(run.reason)}" if run.state == "failed" else STATES[run.state],
            str(run.seed),
            *(_number(run.figures.get(name)) for name in names),
            run.commit[:SHORT_COMMIT],
        )
        for run in runs
    )
    return Grid("Runs", ("run", "state", "seed", *names, "commit"), rows)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def text(grid: Grid) -> str:
    """A grid for the terminal: columns under each other, line breaks in cells as " / "."""
    rows = [tuple(cell.replace("\n", " / ") for cell in row) for row in (grid.header, *grid.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([grid.title, *(f"  {line}".rstrip() for line in lines)])


def report(
    folder: Path, runs: Sequence[Record], grids: Sequence[Grid], curves: str, target: Path
) -> str:
    """The page of a folder's runs.

    Args:
      folder: that was searched.
      runs: those to list; each leads to its own report.
      grids: of a comparison.
      curves: the picture of their learning curves, a data URI; "" = none.
      target: the file that the page will be; links are relative to it.
    """
    links = [page.link(_best_page(run), target.parent) for run in runs]
    parts = [f"<h1>{escape(str(folder))}</h1>", page.sortable(listed(runs), links)]
    if curves:
        title = "Learning curves"
        parts.append(f'<figure><h2>{title}</h2><img alt="{title}" src="{curves}"></figure>')
    parts += [page.sortable(grid) for grid in grids]
    return html_document(str(folder), parts, style=page.STYLE, script=page.SCRIPT)


def _best_page(run: Record) -> Path:
    """A run's report, or its folder before there is one."""
    own = Path(run.workdir, "report.html")
    return own if own.exists() else own.parent
