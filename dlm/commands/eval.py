"""Scores a trained model, before and after training, on the same data.

    python run.py eval --workdir=DIR [--config.eval.splits="('test',)"] [--output=DIR]
    python run.py eval --config=FILE[:ARG] [--workdir=DIR]

Takes the run in the workdir (default `runs/NAME` of the config) with its own config, changed by
what the command line says, and prints its figures; report, predictions and `summary.json` go to
--output (default: `eval` in the workdir).
"""

from __future__ import annotations

from pathlib import Path

from dlm.commands.measure import Measure
from dlm.commands.reporting import write_results
from dlm.commands.setup import Setup, parse_options, read_config, take_flag
from dlm.commands.train import BEFORE
from dlm.core.config import flat
from dlm.core.errors import UserError
from dlm.core.files import read_json


def run(argv: list[str]) -> int:
    """The verb `eval`."""
    output, rest = take_flag(argv, "output")
    options = parse_options(rest, saved=True)
    if options.rest:
        raise UserError(f"eval does not know {options.rest[0]!r}; see python run.py eval --help")
    setup = Setup(options)
    params = setup.trained_params()
    measure, splits = Measure(setup), setup.settings.eval.splits
    before = known_before(setup) or measure.before(setup.initial_params(), splits)
    after = measure.whole(params, splits)
    figures = write_results(setup, Path(output or options.workdir / "eval"), before, after)
    width = max(map(len, after.figures))
    print(f"{'':{width}}  before  after")
    for name in after.figures:
        old = figures.get(f"before/{name}")
        print(f"{name:<{width}}  {'' if old is None else f'{old:.4f}':>6}  {figures[name]:.4f}")
    return 0


def known_before(setup: Setup) -> dict[str, float]:
    """What the run itself measured before its training; {} where something else is asked now.

    The weights that it began with may be gone by now, or changed.
    """
    path, splits = setup.workdir / BEFORE, setup.settings.eval.splits
    saved, asked = flat(read_config(setup.workdir).to_dict()), flat(setup.resolved)
    same = all(saved.get(name) == asked[name] for name in asked if name != "eval.splits")
    if not (same and path.exists()):
        return {}
    figures = read_json(path)
    known = all(f"{split}/loss" in figures for split in splits)
    return {n: x for n, x in figures.items() if n.split("/")[0] in splits} if known else {}
