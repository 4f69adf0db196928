"""Two runs, or two rows of runs over seeds, side by side: configs, figures, and what they wrote."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np

from dlm.core.config import flat
from dlm.core.errors import UserError
from dlm.dialogue.template import message_text
from dlm.evaluation.predict import Prediction, read_predictions, spelled
from dlm.tables.layout import NONE, Grid
from dlm.tables.resampling import paired_bootstrap
from dlm.tables.statistics import mcnemar, paired, summarise
from dlm.tables.store import Record

MOST_SHOWN = 20
Pair = tuple[Record, Record]
Names = tuple[str, str]  # of the two sides


def compare(a: Sequence[Record], b: Sequence[Record]) -> list[Grid]:
    """What differs between two sides: config, figures, and responses that one alone has right.

    Runs are paired by seed where both sides have several; two single runs are a pair as they are.

    Raises:
      UserError: the two sides share no seed.
    """
    pairs = _pairs(a, b)
    names = (_named([one for one, _ in pairs]), _named([other for _, other in pairs]))
    grids = [_config_grid(pairs, names), _figure_grid(pairs, names)]
    for split in _splits(pairs):
        grids += _response_grids(pairs, names, split)
    return [grid for grid in grids if grid.rows]


def _named(runs: Sequence[Record]) -> str:
    """A run's name; of several, what their names begin with."""
    signs = zip(*(run.name for run in runs), strict=False)
    return "".join(sign for sign, *_ in takewhile(lambda column: len(set(column)) == 1, signs))


def _pairs(a: Sequence[Record], b: Sequence[Record]) -> list[Pair]:
    if len(a) == len(b) == 1:
        return [(a[0], b[0])]
    seeds = {run.seed: run for run in b}
    pairs = [(run, seeds[run.seed]) for run in a if run.seed in seeds]
    if not pairs:
        raise UserError("--compare: the two sides share no seed; name two single runs")
    return pairs


def _config_grid(pairs: Sequence[Pair], names: Names) -> Grid:
    """Keys that differ in a pair; the seed too, where a pair's differ."""
    rows = []
    for pair in pairs:
        one, other = (flat(run.config) for run in pair)
        for key in sorted(one.keys() | other.keys()):
            if one.get(key, NONE) != other.get(key, NONE):
                rows.append((key, str(one.get(key, NONE)), str(other.get(key, NONE))))
    return Grid("Configs", ("key", *names), tuple(dict.fromkeys(rows)))


def _figure_grid(pairs: Sequence[Pair], names: Names) -> Grid:
    """Means over the pairs' seeds and their difference, with the paired t interval and p."""
    rows = []
    for name in dict.fromkeys(name for run in pairs[0] for name in run.figures):
        values = [(one.figures.get(name), other.figures.get(name)) for one, other in pairs]
        both = [(x, y) for x, y in values if x is not None and y is not None]
        if len(both) < len(pairs):
            continue
        first, second = zip(*both, strict=True)
        found = paired(first, second)
        low, high = found.difference.low, found.difference.high
        rows.append(
            (
                name,
                f"{summarise(first).mean:.6g}",
                f"{summarise(second).mean:.6g}",
                f"{found.difference.mean:+.4g}".replace("-", "−"),
                NONE if low is None else f"{low:+.4g} to {high:+.4g}".replace("-", "−"),
                NONE if found.p is None else f"{found.p:.3g}",
            )
        )
    title = f"Figures, {len(pairs)} pair{'s' * (len(pairs) > 1)} of runs"
    header = ("figure", *names, "difference", "95 % interval", "p")
    return Grid(title, header, tuple(rows))


def _splits(pairs: Sequence[Pair]) -> list[str]:
    """The splits that every run has written predictions of."""
    found = [
        {path.stem for path in Path(run.workdir, "predictions").glob("*.jsonl")}
        for pair in pairs
        for run in pair
    ]
    return sorted(set.intersection(*found))


def _response_grids(pairs: Sequence[Pair], names: Names, split: str) -> list[Grid]:
    """Responses written word for word, beside each other; see `exact_match`."""
    sides = [[_responses(run.workdir, split) for run in pair] for pair in pairs]
    shared = set.intersection(*(set(responses) for side in sides for responses in side))
    units = [unit for unit in sides[0][0] if unit in shared]  # in the file's order
    if not units:
        return []
    for unit in units:
        if len({str(spelled(r[unit].gold)) for side in sides for r in side}) > 1:
            said = (("not compared", f"the corpora differ at dialogue {unit[0]}"),)
            return [Grid(f"{split}: responses word for word", ("", "why"), said)]
    right = np.array([[[_right(side[k][u]) for u in units] for side in sides] for k in (0, 1)])
    only = [int((right[k] & ~right[1 - k]).sum()) for k in (0, 1)]
    counts = (
        ("both", str(int((right[0] & right[1]).sum()))),
        (f"only {names[0]}", str(only[0])),
        (f"only {names[1]}", str(only[1])),
        ("neither", str(int((~right[0] & ~right[1]).sum()))),
    )
    grids = [Grid(f"{split}: responses word for word", ("right", "responses"), counts)]
    grids.append(_test_grid(split, right, units, only))
    rows = [
        (units[u][0], str(units[u][1]), str(pairs[s][0].seed), *_texts(sides[s], units[u]))
        for s, u in zip(*np.nonzero(right[0] != right[1]), strict=True)
    ]
    title = f"{split}: where one alone is right, {len(rows)} responses"
    title += f", the first {MOST_SHOWN}" * (len(rows) > MOST_SHOWN)
    header = ("dialogue", "response", "seed", "gold", *names)
    return [*grids, Grid(title, header, tuple(rows[:MOST_SHOWN]))]


def _test_grid(
    split: str, right: np.ndarray, units: Sequence[tuple[str, int]], only: Sequence[int]
) -> Grid:
    """The difference of shares, over dialogues and seeds; McNemar's test where one seed is."""
    dialogues = {name: place for place, name in enumerate(dict.fromkeys(u[0] for u in units))}
    places = np.array([dialogues[name] for name, _ in units])
    sums = np.zeros((2, right.shape[1], len(dialogues), 2))
    for k in (0, 1):
        for seed in range(right.shape[1]):
            np.add.at(sums[k, seed, :, 0], places, right[k, seed])
            np.add.at(sums[k, seed, :, 1], places, 1)
    found = paired_bootstrap(*sums)
    rows = [("difference of shares", f"{found.value:+.4f}".replace("-", "−"))]
    if found.low is not None:
        low_high = f"{found.low:+.4f} to {found.high:+.4f}".replace("-", "−")
        rows.append(("95 % interval, bootstrap over dialogues and seeds", low_high))
    else:
        rows.append(("p, McNemar over responses", f"{mcnemar(*only):.3g}"))
    return Grid(f"{split}: the difference", ("", "value"), tuple(rows))


def _responses(workdir: str, split: str) -> dict[tuple[str, int], Prediction]:
    path = Path(workdir, "predictions", f"{split}.jsonl")
    return {(p.dialogue, p.unit): p for p in read_predictions(path)}


def _right(prediction: Prediction) -> bool:
    return spelled(prediction.predicted) == spelled(prediction.gold)


def _texts(
    side: Sequence[dict[tuple[str, int], Prediction]], unit: tuple[str, int]
) -> tuple[str, str, str]:
    """Gold and both sides' responses as text."""
    one, other = side[0][unit], side[1][unit]
    written = (one.gold, one.predicted, other.predicted)
    gold, first, second = (
        "\n".join(f"[{message.channel}] {message_text(message)}" for message in messages)
        for messages in written
    )
    return gold, first, second
