"""A table through a real Slurm: as one array, put back in the middle, and equal to the local one.

Skips where `sinfo` finds no Slurm; the folder of the tests must be one that its nodes see.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import run
from tests.commands.test_table_verb import BROKEN, write

ROOT = Path(run.__file__).parent
NONE = shutil.which("sinfo") is None or subprocess.run(["sinfo"], capture_output=True).returncode

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(NONE), reason="sinfo finds no Slurm"),
]
LONG = {"train.steps": 400, "train.save_every": 20, "train.eval_every": 200}


def words(path: Path, name: str, *more: str) -> list[str]:
    return ["table", f"--experiment={path}", f"--workdir={path.parent / name}", *more]


def wait_for(folder: Path, pattern: str) -> Path:
    for _ in range(1200):
        if found := list(folder.glob(pattern)):
            return found[0]
        time.sleep(0.25)
    return pytest.fail(f"no {pattern} in {folder}")


def figures(folder: Path) -> dict[str, dict]:
    """What the runs measured, by their names, without what depends on the clock."""
    found = {}
    for path in folder.glob("runs/*/summary.json"):
        kept = json.loads(path.read_text()).items()
        found[path.parent.name] = {name: x for name, x in kept if not name.startswith("train/")}
    return found


def test_a_table_through_slurm_is_that_of_this_machine(tmp_path, capsys):
    path = write(tmp_path, BROKEN, **LONG)
    table = tmp_path / "slurm"
    started = [sys.executable, "run.py", *words(path, "slurm", "--launcher=slurm")]
    process = subprocess.Popen(started, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    saved = wait_for(table, "runs/plain-*/checkpoints/*/manifest.json")
    workdir = saved.parents[2]
    number = json.loads((table / "slurm" / "jobs.json").read_text())[workdir.name]
    subprocess.run(["scontrol", "requeue", number], check=True)
    printed, _ = process.communicate()
    assert process.returncode == 0
    assert "submitted 6 jobs" in printed
    assert "_" in number  # of an array
    assert "failed broken-chat-0" in printed
    assert "resuming" in (workdir / "log.txt").read_text()

    assert run.guarded(words(path, "here", "--processes=2")) == 0
    assert len(figures(table)) == 4
    assert figures(table) == figures(tmp_path / "here")
    tables = [(tmp_path / name / "table.md").read_text() for name in ("slurm", "here")]
    rows = [[line for line in text.splitlines() if line.startswith("|")] for text in tables]
    assert rows[0] == rows[1]


def test_jobs_outlive_the_table(tmp_path):
    path = write(tmp_path, **LONG)
    started = [sys.executable, "run.py", *words(path, "slurm", "--launcher=slurm", "--only=plain")]
    process = subprocess.Popen(started, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "slurm", "runs/plain-*/checkpoints/*/manifest.json")
    process.terminate()
    _, told = process.communicate()
    assert process.returncode == 130
    assert "the jobs stay: call the same again to watch them, scancel" in told
    again = subprocess.run(started, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert "submitted" not in again.stdout
    assert len(figures(tmp_path / "slurm")) == 2
