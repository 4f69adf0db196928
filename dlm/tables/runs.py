"""Runs found in a folder, filtered by their configs, and chosen by name."""

from __future__ import annotations

import difflib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlm.core.config import flat
from dlm.core.errors import UserError
from dlm.tables.store import STORE_FILE, Record, Store

# Of a run, what its cells are made of, and of a table's folder what is to be looked at.
KEPT = (
    *("config.json", "identity.json", "environment.json", "signatures.json", "summary.json"),
    *("metrics.jsonl", "model.json", "predictions/*.jsonl", "tokenizer/*"),
)
PRINTED = ("table.*", "plots/*")


def find(folder: Path) -> list[Record]:
    """The runs in a folder and below, by name; the folder's store is made anew from them.

    Raises:
      UserError: it holds none.
    """
    if not folder.is_dir() or not (found := Store(folder / STORE_FILE).rebuild([folder])):
        raise UserError(f"{folder} holds no run; name the folder that --workdir of train lay in")
    return found


def keep(runs: Sequence[Record], folder: Path, target: Path) -> list[Path]:
    """Copies finished runs without their weights, and the table above them; returns the copies.

    They are small, lie as in `folder`, and for a table they are done: it is written anew from them
    and their runs are not made again. (A run that would begin from one of them needs its weights.)

    Raises:
      UserError: none is finished, or the target cannot hold copies: it is the folder, or in it, or
        a file.
    """
    inner, outer = target.resolve(), folder.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise UserError(f"--keep={target} and {folder} lie one in the other; name another folder")
    if target.exists() and not target.is_dir():
        raise UserError(f"--keep={target} is a file; name a folder")
    if not any(run.state == "done" for run in runs):
        raise UserError(f"{folder} holds no finished run to keep")
    sources = [path for pattern in PRINTED for path in folder.glob(pattern)]
    for run in runs:
        if run.state == "done":
            sources += [path for pattern in KEPT for path in Path(run.workdir).glob(pattern)]
    copies = []
    for source in sources:
        copy = target / source.absolute().relative_to(folder.absolute())
        copy.parent.mkdir(parents=True, exist_ok=True)
        copies.append(Path(shutil.copy2(source, copy)))
    return copies


def where(runs: Sequence[Record], conditions: Sequence[str]) -> list[Record]:
    """The runs whose configs have all the values: `key=value`, as the command line writes them.

    Raises:
      UserError: a condition is not of this form, or no run has its key (with the nearest).
    """
    kept = list(runs)
    configs = {run.workdir: flat(run.config) for run in runs}
    for condition in conditions:
        key, equals, wanted = condition.partition("=")
        known = sorted({name for config in configs.values() for name in config})
        if not equals:
            raise UserError(f"--where={condition}: write key=value, for instance seed=0")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"--where={condition}: no run has the key {key!r}{hint}")
        kept = [run for run in kept if _is(configs[run.workdir].get(key), wanted)]
    return kept


def _is(value: Any, wanted: str) -> bool:
    """Whether a value is written so, as text or as JSON."""
    try:
        return str(value) == wanted or json.loads(wanted) == value
    except json.JSONDecodeError:
        return False


def two_sides(runs: Sequence[Record], text: str) -> tuple[list[Record], list[Record]]:
    """The runs of `A,B`: each side a name, or what the names of several seeds begin with.

    Raises:
      UserError: a side names no run, or two of one seed.
    """
    commas = [place for place, sign in enumerate(text) if sign == ","]
    for place in commas:  # a name may hold a comma too
        sides = _named(runs, text[:place]), _named(runs, text[place + 1 :])
        if all(sides):
            for side in sides:
                _check_seeds(side)
            return sides
    known = ", ".join(run.name for run in runs[:8])
    raise UserError(f"--compare={text}: write RUN,RUN with names of runs; there are {known}")


def _named(runs: Sequence[Record], name: str) -> list[Record]:
    exact = [run for run in runs if run.name == name]
    return exact or [run for run in runs if name and run.name.startswith(name)]


def _check_seeds(runs: Sequence[Record]) -> None:
    seen: dict[int, Record] = {}
    for run in runs:
        if run.seed in seen:
            other = seen[run.seed].name
            raise UserError(f"{other} and {run.name} have the same seed {run.seed}; name one")
        seen[run.seed] = run
