"""The benchmark of the loss, at a tiny size: its rows and figures. Time is not asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


@pytest.fixture
def bench(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import bench_loss

    return bench_loss


def test_every_side_computes_the_same(bench, monkeypatch, capsys):
    """The benchmark itself compares losses and gradients; torch is one of the sides."""
    pytest.importorskip("torch")
    tiny = ["--positions=128", "--width=16", "--vocab=101", "--steps=2", "--supervised=0.5"]
    monkeypatch.setattr(sys, "argv", ["bench_loss.py", *tiny, "--json"])
    bench.main()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"dlm", "optax", "torch", "torch, chunked"} <= {row["what"] for row in rows}
    for row in rows:
        assert row["TFLOP/s"] * row["ms"] / 1e3 * 1e12 == pytest.approx(6 * 64 * 16 * 101)
        assert row["ratio"] == pytest.approx(row["ms"] / rows[0]["ms"])


def test_a_side_that_computes_something_else_is_refused(bench):
    same, other = (4.0, [1.0, 2.0]), (4.0, [1.0, 2.1])
    bench._check({"dlm": same, "torch": same}, 1e-3)
    with pytest.raises(RuntimeError, match="torch computes 4"):
        bench._check({"dlm": same, "torch": other}, 1e-3)
