"""Lists and compares runs, writes a report of them, and scores predictions again.

    python run.py results --workdir=DIR [--where key=value] [--compare=RUN,RUN] [--html=FILE]
                          [--keep=DIR2]
    python run.py results --rescore=PREDICTIONS.jsonl --config=FILE[:ARG] [--split=NAME]
    python run.py results --collect=DIR --output=FILE

DIR holds runs, in folders below it; its results.sqlite is made anew from them. --where keeps those
whose config has the value, and may be repeated. --compare shows two runs side by side: their
configs, their figures, and the responses that only one of them has right; a RUN that begins the
names of several seeds stands for all of them, paired by seed. --html writes the same as a page,
with the learning curves. --keep copies the finished ones to DIR2 without their weights, with the
table above them: what is small enough for a repository, and enough for `table` to write it anew
from DIR2 without making those runs again, as long as code and corpora are what they were (`table
--dry-run` says which runs it would make). A row that begins from another's run cannot be made
there: it needs the weights.

--rescore scores a file of predictions without a model, also one from elsewhere: a line holds
`dialogue` (its id), `unit` (which of its responses, from 0) and `predicted` (its messages). The
gold is the corpus's. --split is the file's name where it is not given; with --workdir in place of
--config it is that run's corpus, and its own figures stand beside.

--collect joins the `table.md` of every folder in DIR into one file.
"""

from __future__ import annotations

import argparse
import base64
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from dlm.commands.rescoring import beside_corpus
from dlm.commands.setup import Setup, parse_options, take_flag
from dlm.core.errors import UserError
from dlm.core.files import read_json, write_atomic
from dlm.evaluation import scoring
from dlm.evaluation.predict import read_predictions
from dlm.tables import overview, plots, runs
from dlm.tables.comparison import compare
from dlm.tables.render import collect
from dlm.tables.store import Record


def run(argv: list[str]) -> int:
    """The verb `results`."""
    predictions, rest = take_flag(argv, "rescore")
    if predictions:
        return rescore(Path(predictions), rest)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("workdir", "compare", "html", "keep", "collect", "output"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--where", action="append", default=[])
    given, unknown = parser.parse_known_args(rest)
    if unknown:
        raise UserError(f"results does not know {unknown[0]!r}; see python run.py results --help")
    if given.collect:
        if not given.output:
            raise UserError("--collect needs --output=FILE")
        write_atomic(given.output, collect(Path(given.collect), Path(given.output)))
        print(f"written: {given.output}")
        return 0
    if not given.workdir:
        raise UserError("results needs --workdir=DIR, the folder that holds the runs")
    found = runs.where(runs.find(Path(given.workdir)), given.where)
    grids = compare(*runs.two_sides(found, given.compare)) if given.compare else []
    print("\n\n".join(map(overview.text, grids or [overview.listed(found)])))
    if given.html:
        target = Path(given.html)
        page = overview.report(Path(given.workdir), found, grids, picture(found), target)
        write_atomic(target, page)
        print(f"report: {target}")
    if given.keep:
        copies = runs.keep(found, Path(given.workdir), Path(given.keep))
        size = sum(path.stat().st_size for path in copies)
        print(f"kept: {len(copies)} files, {size / 1e6:.1f} MB, in {given.keep}")
    return 0


def picture(found: Sequence[Record]) -> str:
    """The learning curves of runs as a data URI; "" where none has logged any."""
    with TemporaryDirectory() as folder:
        path = plots.run_curves([(one.name, Path(one.workdir)) for one in found], Path(folder))
        if path is None:
            return ""
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def rescore(path: Path, argv: list[str]) -> int:
    """Scores stored predictions and prints the figures, beside the run's own where it has any."""
    split, rest = take_flag(argv, "split")
    options = parse_options(rest, saved=True)
    if options.rest:
        raise UserError(f"results does not know {options.rest[0]!r}; see its --help")
    setup, name = Setup(options), split or path.stem
    given = beside_corpus(setup, name, read_predictions(path), path)
    scored = scoring.score(setup.settings.eval.scorers, given)
    summary = setup.workdir / "summary.json"
    stored = read_json(summary) if summary.exists() else {}
    width = max(map(len, scored.figures), default=0) + len(name) + 1
    print(f"{len(given)} dialogues of {name}, {sum(len(e.predictions) for e in given)} responses")
    for metric, value in scored.figures.items():
        own = stored.get(f"{name}/{metric}")
        beside = "" if own is None else f"  the run's own {own:.6f}"
        print(f"{f'{name}/{metric}':<{width}}  {value:.6f}{beside}")
    print(scored.signature)
    return 0
