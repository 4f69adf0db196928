"""Declarations of tables: what they expand to, and every mistake told in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlm.core.errors import UserError
from dlm.tables.cells import Cell
from dlm.tables.spec import Column, Published, RunOf, Table, Task, Variant, grid, load, pairs


def table(**changes: Any) -> Table:
    parts = {
        "title": "T",
        "caption": "C",
        "tasks": (Task("a", "configs/a.py"), Task("b", "configs/b.py")),
        "columns": (Column("A", "a", "test/bleu"), Column("B", "b", "test/loss", False)),
        "variants": (Variant("plain"), Variant("other", {"train.steps": 3}, ("b",))),
        "seeds": (0, 1),
    }
    return Table(**{**parts, **changes})


def test_grid_is_the_product_and_pairs_go_together() -> None:
    axes = {"loss.args.epsilon": [0.1, 0.2], "data.rows": [8, 16]}
    assert [variant.name for variant in grid(axes)] == [
        "loss.args.epsilon=0.1, data.rows=8",
        "loss.args.epsilon=0.1, data.rows=16",
        "loss.args.epsilon=0.2, data.rows=8",
        "loss.args.epsilon=0.2, data.rows=16",
    ]
    assert [dict(variant.overrides) for variant in pairs(axes)] == [
        {"loss.args.epsilon": 0.1, "data.rows": 8},
        {"loss.args.epsilon": 0.2, "data.rows": 16},
    ]


def test_base_and_tasks_of_a_row() -> None:
    third = Variant("third", base="other")
    rows = table(variants=(Variant("plain"), Variant("other", tasks=("b",)), third))
    assert rows.base_of(rows.variants[0]) is None
    assert rows.base_of(rows.variants[1]) is rows.variants[0]
    assert rows.base_of(third) is rows.variants[1]
    assert [task.name for task in rows.tasks_of(rows.variants[0])] == ["a", "b"]
    assert [task.name for task in rows.tasks_of(rows.variants[1])] == ["b"]


MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "no seeds": (lambda: table(seeds=()), "a table needs seeds"),
    "seed twice": (lambda: table(seeds=(1, 1)), "seeds: '1' is there 2 times; names must differ"),
    "variant twice": (
        lambda: table(variants=(Variant("x"), Variant("x"))),
        "variants: 'x' is there 2 times",
    ),
    "task of a column": (
        lambda: table(columns=(Column("A", "aa", "test/bleu"),)),
        "column 'A': task 'aa' is unknown; did you mean 'a'?",
    ),
    "task of a variant": (
        lambda: table(variants=(Variant("x", tasks=("zzz",)),)),
        "variant 'x': task 'zzz' is unknown; there are a, b",
    ),
    "base": (
        lambda: table(variants=(Variant("plain"), Variant("x", base="plane"))),
        "variant 'x': base 'plane' is unknown; did you mean 'plain'?",
    ),
    "metric": (lambda: Column("A", "a", "bleu"), "column 'A': metric 'bleu' names no split"),
    "seed": (lambda: Variant("x", {"seed": 3}), "variant 'x': overrides seed; the table's seeds"),
    "prefix": (lambda: Variant("x", {"config.seed": 3}), "override 'config.seed'; write the dot"),
    "mark": (lambda: Published("P", "S", {"A": 1.0}, "X"), "'P': mark 'X'; marks are V (verified"),
    "source": (lambda: Published("P", "", {"A": 1.0}, "V"), "published row 'P' has no source"),
    "tolerance": (
        lambda: Published("P", "S", {"A": 1.0}, "V", {"B": 0.5}),
        "published row 'P': tolerance of the cell 'B' is unknown; there are A",
    ),
    "column": (
        lambda: table(published=(Published("P", "S", {"C": 1.0}, "V"),)),
        "published row 'P': column 'C' is unknown; there are A, B",
    ),
    "beside": (
        lambda: table(published=(Published("P", "S", {"A": 1.0}, "V", beside=("plan",)),)),
        "published row 'P': beside 'plan' is unknown; did you mean 'plain'?",
    ),
    "second beside": (
        lambda: table(published=(Published("P", "S", {"A": 1.0}, "V", beside=("plain", "plan")),)),
        "published row 'P': beside 'plan' is unknown; did you mean 'plain'?",
    ),
    "beside as text": (
        lambda: Published("P", "S", {"A": 1.0}, "V", beside="plain"),
        "published row 'P': beside is one text; write ('plain',)",
    ),
    "beside elsewhere": (
        lambda: table(
            variants=(Variant("plain"), Variant("x", tasks=("b",))),
            published=(Published("P", "S", {"A": 1.0}, "V", beside=("x",)),),
        ),
        "published row 'P': beside 'x', which has no cell in its columns",
    ),
    "two verdicts": (
        lambda: table(
            variants=(Variant("other"), Variant("plain")),
            published=tuple(
                Published(n, "S", {"A": 1.0}, "V", beside=("other", "plain")[i:])
                for i, n in enumerate("PQ")
            ),
        ),
        "'plain' is held against both 'P' and 'Q' in column 'A'",
    ),
    "begins below": (
        lambda: table(variants=(Variant("x", {"init": RunOf("y")}), Variant("y"))),
        "variant 'x': init is the run of 'y', which is no row above it",
    ),
    "begins elsewhere": (
        lambda: table(variants=(Variant("x", tasks=("b",)), Variant("y", {"init": RunOf("x")}))),
        "variant 'y': init is the run of 'x', which does not run on 'a'",
    ),
    "pairs": (lambda: pairs({"a": [1, 2], "b": [1]}), "as many values of every key, got a 2, b 1"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name: str) -> None:
    declare, message = MISTAKES[name]
    with pytest.raises(UserError) as error:
        declare()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_load_reads_a_table_or_says_where_the_file_fails(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from dlm.tables.spec import *\n\n\ndef get_table():\n"
        "    tasks, columns = (Task('a', 'c.py'),), (Column('A', 'a', 'test/loss'),)\n"
        "    return Table('T', 'C', tasks, columns, (Variant('x'),), (0,))\n"
    )
    assert load(path).variants == (Variant("x"),)
    for text, message in {
        "x = 1\n": f"experiment file {path} defines no get_table()",
        "def get_table():\n    return 3\n": f"{path}: get_table() must return a Table, got 3",
        "def get_table():\n    return 1 / 0\n": f"{path}:2: ZeroDivisionError: division by zero",
        "def get_table(:\n": f"{path}:1: invalid syntax",
    }.items():
        path.write_text(text)
        with pytest.raises(UserError) as error:
            load(path)
        assert str(error.value) == message
    with pytest.raises(UserError, match=r"experiment file .*absent.py cannot be read: No such"):
        load(tmp_path / "absent.py")


def test_a_cell_sums_up_the_seeds_that_are_done() -> None:
    cell = Cell((0.5, None, 0.7), ("done", "failed", "done"), ("", "x", ""), ("",) * 3, ("",) * 3)
    assert cell.summary is not None
    assert (cell.summary.n, cell.summary.mean) == (2, 0.6)
    assert cell.summary.deviation == pytest.approx(0.2 / 2**0.5)
    assert not cell.whole
    assert Cell((None,), ("missing",), ("",), ("",), ("",)).summary is None
    with pytest.raises(ValueError, match=r"lengths \[1, 2, 1, 1, 1\]"):
        Cell((None,), ("missing", "done"), ("",), ("",), ("",))
