"""The benchmark of decoding, at a tiny size: its rows and figures. Time is not asserted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
TINY = ["--models", "gpt2-tiny", "--rows", "2", "--prompt=7", "--new=5", "--turns=1"]
RATES = {"prefill/s", "decode/s", "ms/step", "memory MB", "compile s"}


@pytest.fixture
def bench(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import bench_generate

    return bench_generate


@pytest.mark.slow
def test_both_sides_write_the_same_tokens(bench, monkeypatch, capsys):
    """The same checkpoint and prompts; rates follow from the time of a step."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    monkeypatch.setattr(sys, "argv", ["bench_generate.py", *TINY, "--json"])
    bench.main()
    ours, theirs, ratio = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    for row, side in ((ours, "dlm"), (theirs, "transformers")):
        assert row.keys() == {"what", "model", "rows", *RATES}
        assert (row["what"], row["model"], row["rows"]) == (side, "gpt2-tiny", 2)
        assert row["decode/s"] * row["ms/step"] == pytest.approx(2 * 1e3)
        assert row["memory MB"] > 0
    assert ratio["decode/s"] == pytest.approx(theirs["ms/step"] / ours["ms/step"])
    assert ratio["same"] == 1


def test_the_share_alike_ends_at_the_first_difference(bench):
    assert bench.share_alike([[1, 2, 3], [4, 5, 6]], [[1, 9, 3], [4, 5, 6]]) == 4 / 6
