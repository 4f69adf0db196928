"""Pictures of a run, drawn from its `metrics.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlm.training.log import read_metrics

TRAIN, VALIDATION = "train/loss", "validation/loss"
COLOURS = {TRAIN: "#2a6fbb", VALIDATION: "#c8502d"}
SMOOTHED_SHARE = 1 / 30
MOST_MARKERS = 60
LOG_SCALE_FROM = 8.0


def learning_curve(metrics: str | Path, picture: str | Path) -> Path | None:
    """Draws training and validation loss (nats per supervised token) against updates.

    The training loss is drawn pale as logged, and over it as a running mean. The loss axis is
    logarithmic where the losses span a factor of more than eight.

    Args:
      metrics: the run's `metrics.jsonl`; points are its finite `train/loss` and
        `validation/loss`, each at the line's `updates`.
      picture: PNG to write; its folder is made as needed.

    Returns:
      The picture, or None where the log holds no loss.

    Raises:
      UserError: the log is damaged.
    """
    rows = read_metrics(metrics) if Path(metrics).exists() else []
    curves = {name: points for name in (TRAIN, VALIDATION) if (points := _points(rows, name))}
    if not curves:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for name, points in curves.items():
        _draw(axes, name, *zip(*points, strict=True))
    _dress(axes, [loss for points in curves.values() for _, loss in points])
    Path(picture).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Software": None})
    return Path(picture)


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    """(updates, value) of the lines that hold a finite figure of this name."""
    return [
        (row.get("updates", row["step"]), row[name]) for row in rows if row.get(name) is not None
    ]


def _draw(axes: Any, name: str, updates: Sequence[int], losses: Sequence[float]) -> None:
    style = {"color": COLOURS[name], "label": f"{name.partition('/')[0]}: {losses[-1]:.3g} at last"}
    if name == TRAIN and len(losses) > 2:
        axes.plot(updates, losses, color=COLOURS[name], alpha=0.3, linewidth=1)
        axes.plot(updates, _running_mean(losses), linewidth=2, **style)
    else:
        marker = "o" if len(losses) <= MOST_MARKERS else None
        axes.plot(updates, losses, linewidth=1.5, marker=marker, markersize=5, **style)


def _dress(axes: Any, losses: Sequence[float]) -> None:
    """Axes, grid and legend; nothing that is not read."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if min(losses) > 0 and max(losses) > LOG_SCALE_FROM * min(losses):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlim(left=0)
    axes.set_xlabel("updates")
    axes.set_ylabel("train: loss as configured\nvalidation: nats per learned token")
    axes.grid(color="#e3e3e3", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="best")


def _running_mean(values: Sequence[float]) -> list[float]:
    """The mean of each value and its neighbours; the window is a thirtieth of the curve."""
    reach = round(len(values) * SMOOTHED_SHARE / 2)
    windows = (values[max(0, i - reach) : i + reach + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]
