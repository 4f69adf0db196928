"""The benchmark of the train step, at a tiny size: its rows and figures. Time is not asserted."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
TINY = ["--rows=2", "--length=67", "--layers=1", "--width=64", "--vocab=101", "--steps=2"]
FIGURES = {
    "supervised",
    "ms/step",
    "tokens/s",
    "supervised/s",
    "GFLOP/s",
    "ceiling",
    "memory MB",
    "compile s",
    "first loss",
}


@pytest.fixture
def bench(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import bench_train

    return bench_train


def run(bench: ModuleType, monkeypatch, *args: str) -> None:
    monkeypatch.setattr(sys, "argv", ["bench_train.py", *TINY, *args])
    bench.main()


def assert_sound(row: dict, share: float) -> None:
    """Every figure is there, and the rates follow from the time and the counts."""
    assert row.keys() == {"what", *FIGURES}
    assert row["supervised"] == share
    assert row["first loss"] == pytest.approx(math.log(101), abs=0.2)
    seconds = row["ms/step"] / 1e3
    assert row["tokens/s"] * seconds == pytest.approx(2 * 67)
    learned = {1.0: 2 * 66, 0.25: 2 * 16}[share]  # the last token of a row has none after it
    assert row["supervised/s"] * seconds == pytest.approx(learned)
    assert row["GFLOP/s"] > 0
    assert row["ceiling"] > 0
    assert row["memory MB"] > 0


@pytest.mark.slow
def test_both_sides_and_their_ratio(bench, monkeypatch, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    run(bench, monkeypatch, "--supervised=0.25", "--json")
    ours, theirs, ratio = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert [row["what"] for row in (ours, theirs, ratio)] == ["dlm", "transformers", "ratio"]
    assert_sound(ours, 0.25)
    assert_sound(theirs, 0.25)
    assert ratio["tokens/s"] == pytest.approx(theirs["ms/step"] / ours["ms/step"])
    assert ratio["memory MB"] == pytest.approx(ours["memory MB"] / theirs["memory MB"])


@pytest.mark.slow
def test_without_torch_ours_alone(bench, monkeypatch, capsys):
    """A missing library is said on stderr; what is printed is a table of our rows."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
    )
    run(bench, monkeypatch, "--supervised=1")
    out, err = capsys.readouterr()
    assert "torch or transformers is not installed: ours alone" in err
    header, *rows = out.splitlines()
    assert [row.split()[:2] for row in rows] == [["dlm", "1"]]
    assert all(name in header for name in FIGURES)


@pytest.mark.parametrize(("share", "learned"), [(1.0, 3 * 199), (0.25, 3 * 48), (0.5, 3 * 96)])
def test_supervised_tokens_come_in_runs(bench, share, learned):
    """The end of every turn of 64 tokens, of the same share of it."""
    weights = bench.fixed_batch(bench.Sizes(rows=3, length=200, vocab=11), share).loss_weights
    assert weights.sum() == learned
    starts = np.flatnonzero(np.diff(weights[0], prepend=0) > 0)
    expected = [0] if share == 1 else [64 * turn + 64 * (1 - share) for turn in range(3)]
    np.testing.assert_array_equal(starts, expected)


def test_rows_are_packed_with_dialogues_of_about_the_length_asked(bench):
    sizes = bench.Sizes(rows=3, length=600, vocab=11, dialogue=100)
    batch = bench.fixed_batch(sizes, 1.0)
    starts = batch.positions == 0
    spans = np.diff(np.flatnonzero(starts[0]))
    assert len(spans) > 3
    assert ((spans >= 50) & (spans < 150)).all()
    assert (np.diff(batch.segment_ids, axis=1) == starts[:, 1:]).all()
    assert batch.loss_weights.sum() == starts.size - starts.sum()  # each but a dialogue's last


def test_useful_operations(bench):
    """Counted product by product: (rows, inner, columns) of each forward, three times as many."""
    sizes = bench.Sizes(rows=2, length=16, layers=3, width=64, vocab=101)
    batch = bench.fixed_batch(sizes, 0.25)._replace(
        positions=np.tile(np.r_[np.arange(6), np.arange(10)], (2, 1))
    )
    learned = int(batch.loss_weights.sum())
    matrices = [(2 * 16, 64, n * 64) for n in (3, 1, 4, 4)] * 3
    pairs = 2 * (6 * 7 // 2 + 10 * 11 // 2)
    products = [*matrices, *[(pairs, 64, 1)] * 2 * 3, (learned, 64, 101)]
    assert bench.useful_flop(sizes, batch) == 3 * sum(2 * math.prod(p) for p in products)
