"""A run that is stopped goes on as if it had not been: to the bit, and on another mesh."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import run
from dlm.training.log import METRICS_FILE, read_metrics
from tests.commands import noted_run
from tests.commands.test_verbs import dialogue, flags, write

pytestmark = pytest.mark.slow  # tests/training/test_loop.py has the same of the loop alone, quickly

ROOT = Path(run.__file__).parent
TRAINED, UPDATES, EPOCH = 90, 12, 5
TINY = {
    "data.rows": 8,
    "data.length": 64,
    "model.num_layers": 1,
    "model.width": 16,
    "model.dropout": 0.1,
    "optimizer.warmup": 2,
    "train.steps": UPDATES,
    "train.eval_every": 5,
    "train.log_every": 4,
    "eval.splits": "('validation',)",
    "eval.dialogues": 0,
}
CASES = {
    "packed": {},
    "one dialogue a row": {"data.pack": False},
    "accumulated": {"train.accumulate": 2},
    # No response gets right so soon: the first evaluation is the best, the run stops at the third.
    "stopped early": {
        "train.metric": "validation/response_accuracy",
        "train.eval_every": 3,
        "train.patience": 2,
    },
}
TIMINGS = ("tokens_per_second", "data_wait", "train/seconds")


def cut(record: dict, messages: int) -> dict:
    return {**record, "messages": record["messages"][:messages]}


def write_files(folder: Path) -> None:
    """Dialogues of two lengths to train on, and some to evaluate."""
    whole = [dialogue(n) for n in range(TRAINED)]
    write(folder / "train.jsonl", [cut(one, 3 if n % 2 else 6) for n, one in enumerate(whole)])
    write(folder / "validation.jsonl", [dialogue(n) for n in (0, 5)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    write_files(folder)
    return folder


def timeless(figures: dict) -> dict:
    return {name: value for name, value in figures.items() if not name.endswith(TIMINGS)}


def left_behind(workdir: Path) -> tuple:
    """What the workdir of a finished run says, without timings."""
    summary = json.loads((workdir / "summary.json").read_text())
    return timeless(summary), [timeless(row) for row in read_metrics(workdir / METRICS_FILE)]


@pytest.fixture(scope="module")
def undisturbed(folder):
    """A case's run in one go, and what it left behind."""

    @cache
    def train(case: str):
        note = noted_run.train(flags(folder, f"undisturbed {case}", **{**TINY, **CASES[case]}))
        assert note.status == 0
        return note, left_behind(folder / f"undisturbed {case}")

    return train


@pytest.mark.parametrize(
    ("case", "stops"),
    [
        ("packed", (EPOCH + 1, 2 * EPOCH - 1)),  # within an epoch, then on a boundary
        ("packed", (EPOCH - 1,)),
        ("one dialogue a row", (1, EPOCH + 1)),
        ("accumulated", (3, EPOCH)),
        ("stopped early", (4,)),
    ],
)
def test_a_stopped_run_ends_as_one_that_was_not(folder, undisturbed, case, stops):
    """A signal saves, the exit status is 130, and the same command goes on with the next step.

    The last state, the dialogues of every step, the log and the figures of the report, which are
    those of the best checkpoint, are the same.
    """
    wanted, left = undisturbed(case)
    words = flags(folder, f"{case} {stops}", **{**TINY, **CASES[case]})
    seen, first = [], 0
    for stop in (*stops, None):
        note = noted_run.train(words, stop)
        assert (note.status, note.first) == (0 if stop is None else 130, first)
        seen += note.dialogues
        first = len(seen)
        assert stop is None or first == stop + 1
    assert seen == wanted.dialogues
    assert note.leaves.keys() == wanted.leaves.keys()
    for path, leaf in wanted.leaves.items():
        assert note.leaves[path].tobytes() == leaf.tobytes(), path
    assert left_behind(folder / f"{case} {stops}") == left


def test_the_cases_are_what_they_say(folder, undisturbed):
    """An epoch has EPOCH steps, each dialogue in one of them; epochs differ in their order."""
    note, _ = undisturbed("packed")
    epochs = [note.dialogues[i : i + EPOCH] for i in (0, EPOCH)]
    for epoch in epochs:
        held = [one for step in epoch for one in step if one >= 0]
        assert sorted(held) == list(range(TRAINED))
    assert epochs[0] != epochs[1]


def test_an_early_stop_is_one(undisturbed):
    """The report is of the best checkpoint, not of the last."""
    note, (summary, log) = undisturbed("stopped early")
    losses = [row["validation/loss"] for row in log if "validation/loss" in row]
    assert len(note.dialogues) == 9 < UPDATES
    assert summary["validation/loss"] == losses[1] != losses[3]


def on_devices(folder: Path, words: list[str], devices: int, stop_at: int | None = None) -> dict:
    """The verb in a process of its own, on simulated devices."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": str(ROOT),
    }
    case = {"argv": words, "stop_at": stop_at, "note": str(folder / "note.json")}
    command = [sys.executable, str(noted_run.__file__), json.dumps(case)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == (0 if stop_at is None else 130), done.stderr
    return json.loads((folder / "note.json").read_text())


def test_a_run_goes_on_on_another_mesh(folder, undisturbed):
    """Begun on one device, it goes on on eight, twice: the same dialogues in the same updates."""
    wanted, (_, log) = undisturbed("packed")
    words = flags(folder, "meshes", **TINY)
    cubed = [*words, *(f"--config.mesh.{axis}=2" for axis in ("data", "fsdp", "tensor"))]
    dealt = [*words, "--config.mesh.data=8"]
    notes = [
        on_devices(folder, words, 1, stop_at=3),
        on_devices(folder, cubed, 8, stop_at=EPOCH + 3),
        on_devices(folder, dealt, 8),
    ]
    assert [note["first"] for note in notes] == [0, 4, EPOCH + 4]
    assert [step for note in notes for step in note["dialogues"]] == wanted.dialogues
    assert notes[-1]["leaves"].keys() == wanted.leaves.keys()
    for path, leaf in wanted.leaves.items():
        got = notes[-1]["leaves"][path]
        np.testing.assert_allclose(got, leaf.ravel(), rtol=0, atol=1e-5, err_msg=path)
    resumed = left_behind(folder / "meshes")[1]
    assert [row["step"] for row in resumed] == [row["step"] for row in log]


def test_a_run_begins_with_another_one_on_several_devices(folder, undisturbed):
    """What it measures before its first step is what the other one ended with."""
    _, (summary, _) = undisturbed("packed")
    words = flags(
        folder, "second", **{**TINY, "init": folder / "undisturbed packed", "train.steps": 3}
    )
    on_devices(folder, [*words, "--config.mesh.data=1", "--config.mesh.fsdp=2"], 2)
    begun = left_behind(folder / "second")[0]
    assert begun["before/validation/loss"] == pytest.approx(summary["validation/loss"], rel=1e-5)
