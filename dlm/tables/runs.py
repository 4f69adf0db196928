"""Runs as their workdirs hold them: found, filtered and chosen by name."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlm.core.config import flat
from dlm.core.errors import UserError
from dlm.core.files import read_json

CONFIG, ENVIRONMENT, SUMMARY = "config.json", "environment.json", "summary.json"


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
      name: of its workdir, from the folder that was searched.
      workdir: where it lives.
      config: dotted key -> value.
      figures: its summary; {} where it is not done.
      commit: of the code that it was started with; "" where that is not known.
    """

    name: str
    workdir: Path
    config: Mapping[str, Any]
    figures: Mapping[str, float | None]
    commit: str = ""

    @property
    def state(self) -> str:
        """Whether it went to its end; one that did not goes on by the same command."""
        return "done" if self.figures else "unfinished"

    @property
    def seed(self) -> int:
        """Of its data order and its weights."""
        return self.config["seed"]


def find(folder: Path) -> list[Run]:
    """The runs of a folder: itself, the folders in it, and those in these, by name.

    Raises:
      UserError: it holds none.
    """
    configs = [path for depth in ("", "*/", "*/*/") for path in folder.glob(depth + CONFIG)]
    workdirs = [path.parent for path in configs if (path.parent / ENVIRONMENT).exists()]
    if not workdirs:
        raise UserError(f"{folder} holds no run; name the folder that --workdir of train lay in")
    return [_read(workdir, folder) for workdir in sorted(workdirs)]


def _read(workdir: Path, folder: Path) -> Run:
    summary = workdir / SUMMARY
    name = workdir.relative_to(folder).as_posix()
    return Run(
        name=workdir.name if name == "." else name,
        workdir=workdir,
        config=flat(read_json(workdir / CONFIG)),
        figures=read_json(summary) if summary.exists() else {},
        commit=str(read_json(workdir / ENVIRONMENT).get("commit") or ""),
    )


def where(runs: Sequence[Run], conditions: Sequence[str]) -> list[Run]:
    """The runs whose configs have all the values: `key=value`, as the command line writes them.

    Raises:
      UserError: a condition is not of this form, or no run has its key (with the nearest).
    """
    kept = list(runs)
    for condition in conditions:
        key, equals, wanted = condition.partition("=")
        known = sorted({name for run in runs for name in run.config})
        if not equals:
            raise UserError(f"--where={condition}: write key=value, for instance seed=0")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"--where={condition}: no run has the key {key!r}{hint}")
        kept = [run for run in kept if key in run.config and _is(run.config[key], wanted)]
    return kept


def _is(value: Any, wanted: str) -> bool:
    """Whether a value is written so, as text or as JSON."""
    try:
        return str(value) == wanted or json.loads(wanted) == value
    except json.JSONDecodeError:
        return False


def two_sides(runs: Sequence[Run], text: str) -> tuple[list[Run], list[Run]]:
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


def _named(runs: Sequence[Run], name: str) -> list[Run]:
    exact = [run for run in runs if run.name == name]
    return exact or [run for run in runs if name and run.name.startswith(name)]


def _check_seeds(runs: Sequence[Run]) -> None:
    seen: dict[int, Run] = {}
    for run in runs:
        if run.seed in seen:
            other = seen[run.seed].name
            raise UserError(f"{other} and {run.name} have the same seed {run.seed}; name one")
        seen[run.seed] = run
