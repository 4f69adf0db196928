"""Shows what the model will see: dialogues with their learned tokens, counts, and lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from dlm.data.batch import Batch
from dlm.data.packing import Packing, efficiency, lower_bound
from dlm.data.store import Pieces
from dlm.dialogue.schema import ROLES
from dlm.dialogue.tokenizer import Tokenizer

GREEN, DIM, END = "\x1b[30;42m", "\x1b[2m", "\x1b[0m"
OPENING = {f"<|{role}|>" for role in ("tools", *ROLES)}
BINS = 16
BAR = 50


def show_batch(
    batch: Batch, tokenizer: Tokenizer, *, task_names: Sequence[str], ansi: bool = False
) -> str:
    """The text of a batch as the model reads it, segment by segment, each message on a line.

    Learned tokens are green on a terminal and `[[...]]` elsewhere; a weight other than 1 follows
    them, as in `[[yes]]*0.5`. Control tokens are shown by their names; in a text, characters that
    would move the cursor are escaped.

    Args:
      batch: numpy arrays.
      tokenizer: that encoded it.
      task_names: name of each task id.
      ansi: the text goes to a terminal.
    """
    lines = []
    for row in range(len(batch.tokens)):
        used = int((batch.segment_ids[row] > 0).sum())
        if used:
            lines.append(f"==== row {row}: {used} of {batch.tokens.shape[1]} positions ====")
        for segment, dialogue in enumerate(batch.dialogue_ids[row]):
            here = batch.segment_ids[row] == segment + 1
            if dialogue < 0:
                continue
            task = task_names[batch.task_ids[row, segment]]
            weights = batch.loss_weights[row][here]
            lines.append(
                f"---- segment {segment + 1}: dialogue {dialogue}"
                f"{f', task {task}' if task else ''}{_ending(batch, row, segment)}: "
                f"{len(weights)} tokens, "
                f"{int((weights > 0).sum())} learned ----"
            )
            ids = [batch.tokens[row][here][0], *batch.targets[row][here]]
            lines.append(paint(ids, [0.0, *weights], tokenizer, ansi=ansi))
    return "\n".join(lines)


def _ending(batch: Batch, row: int, segment: int) -> str:
    if batch.chosen is None:
        return ""
    return ", preferred ending" if batch.chosen[row, segment] else ", other ending"


def paint(
    ids: Sequence[int], weights: Sequence[float], tokenizer: Tokenizer, *, ansi: bool = False
) -> str:
    """The text of ids, those of weight > 0 marked (see `show_batch`)."""
    parts = []
    for weight, run in groupby(zip(ids, weights, strict=True), key=lambda pair: float(pair[1])):
        text = "".join(_texts([int(token) for token, _ in run], tokenizer))
        if weight > 0:
            text = f"{GREEN}{text}{END}" if ansi else f"[[{text}]]"
            text += "" if weight == 1 else f"*{weight:g}"
        parts.append(text)
    return "".join(parts).lstrip("\n")


def counts_table(splits: Mapping[str, Pieces], length: int) -> str:
    """A table of what the splits hold, what of it is learned, and what was left out.

    Args:
      splits: by name.
      length: T, positions of a row.
    """
    columns = [_figures(pieces, length) for pieces in splits.values()]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [
        ["", *splits],
        *([name, *(column.get(name, "") for column in columns)] for name in names),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    )


def histogram(lengths: np.ndarray, length: int) -> str:
    """Bars of how many pieces have which length, one line a bin of lengths from 1 to T."""
    counts, edges = _bins(lengths, length)
    most = max(1, counts.max(initial=0))
    ranges = [f"{low}-{high - 1}" for low, high in pairwise(edges)]
    width, digits = max(map(len, ranges)), len(f"{most:,}")
    return "\n".join(
        f"{span:>{width}} {count:>{digits},} {'#' * -(-count * BAR // most)}".rstrip()
        for span, count in zip(ranges, counts, strict=True)
    )


def plot_lengths(splits: Mapping[str, Pieces], length: int, path: str | Path) -> None:
    """Writes a PNG: for each split, the share of pieces of each length."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, pieces in splits.items():
        counts, edges = _bins(pieces.lengths, length)
        share = 100 * counts / max(1, counts.sum())
        axes.stairs(share, edges, label=f"{name} ({len(pieces):,})", linewidth=1.5)
    axes.set(xlabel="tokens of a piece", ylabel="% of the split's pieces", xlim=(0, length + 1))
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _texts(ids: list[int], tokenizer: Tokenizer) -> Iterator[str]:
    """The text of stretches of ids, a line break before each message."""
    for name, run in groupby(ids, key=tokenizer.control_name):
        if name is None:
            yield "".join(c if c.isprintable() else repr(c)[1:-1] for c in tokenizer.decode(run))
            continue
        for _ in run:
            yield f"\n{name}" if name in OPENING else name


def _figures(pieces: Pieces, length: int) -> dict[str, str]:
    """The column of one split in the table of counts."""
    counts, lengths = pieces.counts, pieces.unit_lengths
    learned = sum(counts.supervised.values())
    rows, bound = Packing(lengths, length).num_rows, lower_bound(lengths, length)
    figures = {
        "dialogues": f"{counts.dialogues:,}",
        **({"  with endings": f"{counts.endings:,}"} if counts.endings else {}),
        "turns": f"{counts.turns:,}",
        "pieces": f"{len(pieces):,}",
        "tokens read": f"{counts.tokens:,}",
        "tokens learned": f"{learned:,}",
        "share learned": _percent(learned, counts.tokens),
    }
    for channel, number in sorted(counts.supervised.items(), key=lambda item: -item[1]):
        figures[f"  of them {channel}"] = _percent(number, learned)
    figures[f"rows of {length}"] = f"{rows:,}"
    figures["packing efficiency"] = f"{efficiency(lengths, length, rows):.1%}"
    figures["  at best"] = f"{efficiency(lengths, length, bound):.1%}"
    figures["turns dropped"] = f"{counts.dropped_turns:,}"
    figures["dialogues rejected"] = f"{sum(counts.rejected.values()):,}"
    for reason, number in counts.rejected.items():
        figures[f"  {reason}"] = f"{number:,}"
    return figures


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _bins(lengths: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts of BINS (or fewer) bins, and their integer edges from 1 to T + 1."""
    edges = np.unique(np.linspace(1, length + 1, BINS + 1).astype(int))
    return np.histogram(lengths, edges)[0], edges
