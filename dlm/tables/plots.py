"""The plots of a table: bars with intervals, learning curves with bands, two columns together."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dlm.tables.cells import Results
from dlm.tables.layout import complete, published_name
from dlm.tables.spec import Column, Task, Variant
from dlm.tables.statistics import Summary, summarise
from dlm.training.log import METRICS_FILE, read_metrics

OURS, OTHERS, GRID = "#2a6fbb", "#8a8a86", "#e3e3e3"
# Told apart also by those who see no red or no green (Okabe and Ito 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999900")
STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "v", "P", "X", "*")
ACROSS = 3  # panels side by side
ZOOM_FROM = 0.8  # a bar begins at 0; where all values are beyond this share of it, dots are drawn
Curve = list[tuple[int, Summary]]  # (updates, over the seeds)


def draw(results: Results, folder: Path) -> dict[str, Path]:
    """Draws what there is to draw, each as PNG and PDF.

    Returns:
      Title -> the PNG: `bars`, `curves` and `tradeoff`, those that there are figures for.
    """
    quick = " (quick)" if results.quick else ""
    drawn = {
        "bars": ("Figures with intervals: means, 95 % t intervals, each seed a dot", bars),
        "curves": ("Learning curves: means over seeds, bands of one deviation", curves),
        "tradeoff": ("Trade-off: means, each seed pale", tradeoff),
    }
    pictures = {}
    folder.mkdir(parents=True, exist_ok=True)
    with _plain_text():
        for name, (title, make) in drawn.items():
            if (figure := make(results)) is None:
                continue
            caption = f"{results.table.title}{quick}\n{title}"
            figure.suptitle(caption, fontsize=10, x=0.01, ha="left")
            figure.savefig(folder / f"{name}.png", metadata={"Software": None}, dpi=120)
            figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
            pictures[f"{title}{quick}"] = folder / f"{name}.png"
    return pictures


@contextmanager
def _plain_text() -> Iterator[None]:
    """Names are drawn as they are: a dollar sign is no formula, a sign the font lacks a box."""
    from matplotlib import rc_context

    with (
        rc_context({"text.parse_math": False, "font.family": "DejaVu Sans"}),
        warnings.catch_warnings(action="ignore", category=UserWarning),
    ):
        yield


def bars(results: Results) -> Any:
    """A panel a column: the mean of each row with its t interval, and every seed as a dot.

    Published figures are hollow diamonds. None where no run is done.
    """
    columns = [c for c in results.table.columns if any(_points(results, c))]
    if not columns:
        return None
    names = [published_name(row) for row in results.table.published]
    names += [variant.name for variant in results.table.variants]
    figure, panels = _panels(len(columns), height=1.2 + 0.34 * len(names))
    for place, (axes, column) in enumerate(zip(panels, columns, strict=True)):
        _bar_panel(axes, results, column)
        axes.set_yticks(range(len(names)), names if place % ACROSS == 0 else [""] * len(names))
        axes.set_ylim(len(names) - 0.4, -0.6)
        arrow = "→ better" if column.higher_is_better else "← better"
        axes.set_title(column.title, fontsize=10)
        axes.set_xlabel(arrow, fontsize=9, color="#777")
        axes.locator_params(axis="x", nbins=5)  # more of long figures run into each other
        _bare(axes)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    return figure


def _points(results: Results, column: Column) -> Iterator[float]:
    """All figures of a column that are there, in printed units."""
    for variant in results.table.variants:
        if (cell := results.cells.get((variant.name, column.title))) is not None:
            yield from (v * column.scale for v in cell.values if v is not None)


def _bar_panel(axes: Any, results: Results, column: Column) -> None:
    table = results.table
    others = [row.cells.get(column.title) for row in table.published]
    reach = [*_points(results, column), *(value for value in others if value is not None)]
    zoomed = min(reach) > ZOOM_FROM * max(reach) > 0
    for place, value in enumerate(others):
        if value is not None:
            axes.plot(value, place, marker="D", markersize=6, color=OTHERS, markerfacecolor="none")
    for place, variant in enumerate(table.variants, len(others)):
        cell = results.cells.get((variant.name, column.title))
        if cell is None or cell.summary is None:
            continue
        seeds = [v * column.scale for v in cell.values if v is not None]
        if complete(cell):
            summary = cell.summary
            mean, low, high = (
                None if x is None else x * column.scale
                for x in (summary.mean, summary.low, summary.high)
            )
            if not zoomed:
                axes.barh(place, mean, height=0.62, color=OURS, alpha=0.3)
            if low is not None and high is not None:
                axes.plot((low, high), (place, place), color=OURS, linewidth=1.6)
                reach += [low, high]
            axes.plot(mean, place, marker="|", markersize=12, markeredgewidth=2, color=OURS)
        face = OURS if complete(cell) else "none"
        axes.plot(
            seeds,
            [place] * len(seeds),
            linestyle="",
            marker="o",
            markersize=3.5,
            color=OURS,
            markerfacecolor=face,
        )
    low, high = min(reach), max(reach)
    left = low if zoomed or low < 0 else 0.0
    pad = 0.06 * (high - left) or 0.05 * abs(high) or 1.0
    axes.set_xlim(left - pad if left else 0.0, high + pad)


def curves(results: Results) -> Any:
    """A panel a task and validation metric: the mean over seeds, with a band of one deviation.

    A column's metric is shown as it was logged on the validation split; where it was not, the
    validation loss is. None where no run has logged any.
    """
    panels: dict[tuple[str, str], dict[str, Curve]] = {}
    for task, metric, variant, logs in _logs(results):
        found = over_seeds(logs, metric)
        if found:
            panels.setdefault((task.name, metric), {})[variant.name] = found
    names = [variant.name for variant in results.table.variants]
    titled = {f"{task}: {metric}": lines for (task, metric), lines in panels.items()}
    return _curve_panels(titled, names) if panels else None


def run_curves(runs: Sequence[tuple[str, Path]], folder: Path) -> Path | None:
    """The validation loss and response accuracy of runs (name, workdir), a line each, as a PNG.

    None where no run has logged either.
    """
    logs = {
        name: read_metrics(workdir / METRICS_FILE)
        for name, workdir in runs
        if (workdir / METRICS_FILE).exists()
    }
    panels: dict[str, dict[str, Curve]] = {}
    for metric in ("validation/loss", "validation/response_accuracy"):
        found = {name: over_seeds([log], metric) for name, log in logs.items()}
        if any(found.values()):
            panels[metric] = {name: curve for name, curve in found.items() if curve}
    if not panels:
        return None
    with _plain_text():
        figure = _curve_panels(panels, [name for name, _ in runs])
        figure.savefig(folder / "curves.png", metadata={"Software": None}, dpi=120)
    return folder / "curves.png"


def _curve_panels(panels: Mapping[str, Mapping[str, Curve]], names: Sequence[str]) -> Any:
    """A panel a title: a line a name, always in the colour of its place among the names."""
    figure, drawn = _panels(len(panels), height=4.0)
    for axes, (title, lines) in zip(drawn, panels.items(), strict=True):
        for name, curve in lines.items():
            _curve(axes, name, curve, names.index(name))
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("updates")
        axes.set_xlim(left=0)
        _bare(axes)
    handles = {
        label: handle
        for axes in drawn
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower left", frameon=False, ncols=ACROSS
    )
    return figure


def _curve(axes: Any, name: str, curve: Curve, place: int) -> None:
    style = {
        "color": _colour(place),
        "linestyle": STYLES[place // len(COLOURS) % len(STYLES)],
    }
    updates = [at for at, _ in curve]
    means = [summary.mean for _, summary in curve]
    axes.plot(updates, means, linewidth=1.8, label=name, **style)
    widths = [summary.deviation or 0.0 for _, summary in curve]
    if any(widths):
        low = [mean - width for mean, width in zip(means, widths, strict=True)]
        high = [mean + width for mean, width in zip(means, widths, strict=True)]
        axes.fill_between(updates, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _logs(results: Results) -> Iterator[tuple[Task, str, Variant, list[list[dict[str, Any]]]]]:
    """Of each task and row: the validation metrics of its columns, and the logs of its seeds."""
    table = results.table
    for task in table.tasks:
        own = [column for column in table.columns if column.task == task.name]
        for variant in table.variants:
            cells = [results.cells.get((variant.name, column.title)) for column in own]
            folders = next((cell.workdirs for cell in cells if cell is not None), ())
            paths = (Path(folder, METRICS_FILE) for folder in folders)
            logs = [read_metrics(path) for path in paths if path.exists()]
            logged = {name for log in logs for row in log for name in row}
            wanted = [f"validation/{column.metric.partition('/')[2]}" for column in own]
            shown = [name for name in wanted if name in logged] or ["validation/loss"]
            for metric in dict.fromkeys(shown):
                yield task, metric, variant, logs


def over_seeds(logs: Sequence[Sequence[Mapping[str, Any]]], metric: str) -> Curve:
    """A metric at the updates at which every run has logged it, over the runs."""
    runs = [
        {row.get("updates", row["step"]): row[metric] for row in log if row.get(metric) is not None}
        for log in logs
    ]
    shared = set.intersection(*map(set, runs)) if runs else set()
    return [(at, summarise([run[at] for run in runs])) for at in sorted(shared)]


def tradeoff(results: Results) -> Any:
    """The two columns of `Table.tradeoff`: each row a point, its seeds pale; None without any.

    Published rows that have both are hollow.
    """
    table = results.table
    titles = {column.title: column for column in table.columns}
    if not table.tradeoff:
        return None
    x, y = (titles[title] for title in table.tradeoff)
    seeds = {place: _pairs(results, variant, x, y) for place, variant in enumerate(table.variants)}
    if not any(seeds.values()):
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for place, points in seeds.items():
        if points:
            xs, ys = zip(*points, strict=True)
            x_mean, y_mean = sum(xs) / len(points), sum(ys) / len(points)
            colour, marker = _colour(place), _marker(place)
            axes.scatter(xs, ys, s=24, c=colour, marker=marker, alpha=0.45, linewidths=0)
            name = table.variants[place].name
            axes.scatter(x_mean, y_mean, s=52, c=colour, marker=marker, label=name)
    both = [row for row in table.published if {x.title, y.title} <= row.cells.keys()]
    for place, row in enumerate(both):
        axes.scatter(
            row.cells[x.title],
            row.cells[y.title],
            s=44,
            marker=_marker(place),
            facecolors="none",
            edgecolors=OTHERS,
            label=published_name(row),
        )
    axes.margins(0.12)
    axes.set_xlabel(_direction(x))
    axes.set_ylabel(_direction(y))
    _bare(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _pairs(results: Results, variant: Variant, x: Column, y: Column) -> list[tuple[float, float]]:
    """Both figures of each seed, in printed units; none where a run of either is not done."""
    first, second = (results.cells.get((variant.name, column.title)) for column in (x, y))
    if first is None or second is None or not (complete(first) and complete(second)):
        return []
    pairs = zip(first.values, second.values, strict=True)
    return [(a * x.scale, b * y.scale) for a, b in pairs if a is not None and b is not None]


def _bare(axes: Any) -> None:
    """A pale grid behind what is drawn, and no frame."""
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _marker(place: int) -> str:
    return MARKERS[place % len(MARKERS)]


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _direction(column: Column) -> str:
    return f"{column.title} ({'higher' if column.higher_is_better else 'lower'} is better)"


def _panels(count: int, *, height: float) -> tuple[Any, list[Any]]:
    """A figure of `count` panels, at most `ACROSS` side by side."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    across = min(count, ACROSS)
    down = math.ceil(count / across)
    width = {1: 7.0, 2: 9.5, 3: 12.0}[across]
    apart = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    figure = Figure(figsize=(width, height * down + 0.4), layout=apart)
    return figure, [figure.add_subplot(down, across, place + 1) for place in range(count)]
