"""A run that learns from another one: the teacher is known by its checkpoint, not by its path."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import run
from dlm.training import manifest
from dlm.training.log import METRICS_FILE, read_metrics
from tests.commands.small_run import flags

TINY = {
    "model.num_layers": 1,
    "model.width": 16,
    "train.steps": 3,
    "train.log_every": 1,
    "eval.splits": "('validation',)",
    "eval.dialogues": 0,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A teacher, another one of the same shape, and one that knows fewer tokens."""
    folder = tmp_path_factory.mktemp("distillation")
    assert train(folder, "teacher") == 0
    for name in ("another", "stranger"):
        shutil.copytree(folder / "teacher", folder / name)
    checkpoint, content = manifest_of(folder / "another")
    manifest.write(checkpoint, {**content, "extra": {"trained": "otherwise"}})
    path = folder / "stranger" / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": 270}))
    return folder


def manifest_of(workdir: Path) -> tuple[Path, dict]:
    (path,) = (workdir / "checkpoints").glob("*/manifest.json")
    content = manifest.read(path.parent)
    return path.parent, {name: value for name, value in content.items() if name != "files"}


def train(folder, name: str, **changes: object) -> int:
    words = flags(folder, **{**TINY, **changes})
    return run.guarded(["train", *words, f"--workdir={folder / name}"])


def taught(folder, name: str, teacher, **args: object) -> int:
    changes = {"loss.name": "distillation", "loss.args": {"teacher": str(teacher), **args}}
    return train(folder, name, **changes)


@pytest.mark.slow
def test_a_student_learns_from_the_run_that_the_config_names(folder, capsys):
    assert taught(folder, "student", folder / "teacher") == 0
    rows = [row for row in read_metrics(folder / "student" / METRICS_FILE) if "train/loss" in row]
    for row in rows:
        parts = [row[f"train/term:{name}/loss"] for name in ("cross_entropy", "divergence")]
        assert row["train/loss"] == pytest.approx(np.mean(parts), rel=1e-5)
        assert parts[1] > 0
    capsys.readouterr()

    # The same command in the same workdir is the same run, wherever the teacher lies by then.
    moved = folder / "moved"
    (folder / "teacher").rename(moved)
    assert taught(folder, "student", moved) == 0
    assert "resuming" in capsys.readouterr().out
    assert taught(folder, "student", folder / "another") == 2
    assert "belongs to teacher" in capsys.readouterr().err
    assert taught(folder, "student", moved, alpha=0.1) == 2
    assert "holds another run: loss.args.alpha was None, now 0.1" in capsys.readouterr().err

    words = flags(folder, **TINY, **{"loss.name": "distillation"})
    words.append(f"--config.loss.args={{'teacher': '{moved}'}}")
    assert run.guarded(["plan", *words, "--steps=1"]) == 0
    told = capsys.readouterr().out
    assert "\n  frozen  " in told
    assert "whole run" in told
    size = {line.split()[0]: line.split()[1] for line in told.splitlines() if line[:2] == "  "}
    assert size["frozen"] == size["parameters"]  # the two are alike


@pytest.mark.slow
def test_a_teacher_that_does_not_fit_is_told_in_one_line(folder, capsys):
    for teacher, message in (
        ("stranger", "knows other tokens (270 of them, this run 280)"),
        ("nowhere", "is not the workdir of a finished run"),
    ):
        assert taught(folder, f"from {teacher}", folder / teacher) == 2
        error = capsys.readouterr().err
        assert f"loss.args.teacher='{folder / teacher}'" in error
        assert message in error
        assert error.count("\n") == 1
