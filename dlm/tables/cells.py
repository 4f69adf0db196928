"""What a table shows: cells over seeds, comparisons with the base row, verdicts on published rows.

Only data: it is collected from runs, and rendering reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from dlm.tables.spec import Published, Table
from dlm.tables.statistics import Paired, Summary, summarise

State = Literal["done", "failed", "missing"]
Key = tuple[str, str]  # (variant name, column title)


@dataclass(frozen=True)
class Cell:
    """The runs behind one cell, all tuples in the order of the seeds.

    Attributes:
      values: in the log's own units (shares in 0..1); None where the run is not done.
      states: of the runs.
      reasons: why a run failed or has no value; "" where it is done.
      workdirs: where it lives.
      commands: what makes it, to be pasted into a shell.
    """

    values: tuple[float | None, ...]
    states: tuple[State, ...]
    reasons: tuple[str, ...]
    workdirs: tuple[str, ...]
    commands: tuple[str, ...]

    def __post_init__(self) -> None:
        lists = (self.values, self.states, self.reasons, self.workdirs, self.commands)
        if len({len(entries) for entries in lists}) != 1:
            raise ValueError(f"a cell's lists are of lengths {[len(entries) for entries in lists]}")

    @cached_property
    def summary(self) -> Summary | None:
        """Over the seeds that are done; None where none is."""
        values = [value for value in self.values if value is not None]
        return summarise(values) if values else None

    @property
    def whole(self) -> bool:
        """Whether every seed is done."""
        return all(state == "done" for state in self.states)


@dataclass(frozen=True)
class Comparison:
    """A cell against that of its base row, over the same seeds.

    Attributes:
      paired: cell - base.
      p_holm: adjusted over the column's comparisons; None where there is no p.
    """

    paired: Paired
    p_holm: float | None


@dataclass(frozen=True)
class Verdict:
    """Our cell beside a published one, in the units that are printed.

    Attributes:
      published: the row.
      value: what was published.
      difference: ours - published; None where ours was not run.
      verdict: in words.
    """

    published: Published
    value: float
    difference: float | None
    verdict: Literal["within tolerance", "outside", "no tolerance set", "not run"]


@dataclass(frozen=True)
class Results:
    """A table with its figures.

    Attributes:
      table: the declaration, reduced to the rows and seeds that were asked for.
      cells: by (variant, column title); a row that does not run on a column's task has none there.
      comparisons: of the cells that are whole, and whose base row's cell is.
      verdicts: by (published row's name, variant, column title), of our cells that a published one
        is held against.
      best: column title -> the variants that may be bold: the best mean, whole, and significantly
        better than its base after Holm.
      signatures: column title -> how its metric is measured.
      quick: whether these are the runs of the quick version.
      provenance: commit, versions, device, date: name -> text.
    """

    table: Table
    cells: Mapping[Key, Cell]
    comparisons: Mapping[Key, Comparison]
    verdicts: Mapping[tuple[str, str, str], Verdict]
    best: Mapping[str, frozenset[str]]
    signatures: Mapping[str, str]
    quick: bool
    provenance: Mapping[str, str]
