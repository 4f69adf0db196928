"""The runner: shares, failures that stop nothing, and what happens when it is stopped itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.tables import runner
from dlm.tables.jobs import Job
from dlm.tables.spec import Task, Variant

ROOT = Path(runner.PROGRAM).parent
FAKE = Path(__file__).with_name("fake_run.py")
INTERRUPTED = """
import signal, sys
from pathlib import Path
from dlm.core.interrupts import termination_interrupts
from dlm.tables import runner
from tests.tables.test_runner import FAKE, runs
runner.PROGRAM = FAKE
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
try:
    with termination_interrupts():
        runner.make(runs(Path(sys.argv[1]), 3), 1, print)
except KeyboardInterrupt:
    sys.exit(130)
"""


def runs(folder: Path, *seeds: int) -> list[Job]:
    variant, task = Variant("x"), Task("a", "a.py")
    return [
        Job(variant, task, seed, (f"--config.seed={seed}",), {}, f"{seed}", folder / f"r{seed}")
        for seed in seeds
    ]


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(runner, "PROGRAM", FAKE)
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.05)


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def wait_for(path: Path) -> None:
    for _ in range(3000):
        if path.exists() and path.read_bytes():
            return
        time.sleep(0.1)
    pytest.fail(f"{path} did not come")


def test_one_that_fails_is_recorded_and_the_others_go_on(fake, tmp_path, capsys):
    ended: list[int] = []
    made = runs(tmp_path, 1, 2, 0)
    runner.make([*made, made[0]], 2, lambda run: ended.append(run.seed))
    assert sorted(ended) == [0, 1, 2]  # the one that was there twice was made once
    failure = read(tmp_path / "r1" / "failure.json")
    assert failure == {"status": 1, "reason": "train.steps=0 must be above 0", "identity": "1"}
    assert read(tmp_path / "r2" / "failure.json")["reason"] == "killed by SIGKILL"
    assert not (tmp_path / "r0" / "failure.json").exists()
    assert (tmp_path / "r0" / "log.txt").read_text() == "begins\n"
    printed = capsys.readouterr().out
    assert "failed r1: train.steps=0 must be above 0" in printed
    assert "runs: run 3/3, failed 2" in printed


def test_a_failed_one_is_tried_again_and_its_record_goes(fake, tmp_path):
    (failed,) = runs(tmp_path, 1)
    runner.make([failed], 1, lambda run: None)
    (mended,) = runs(tmp_path, 0)
    mended = Job(**{**mended.__dict__, "workdir": failed.workdir})
    runner.make([mended], 1, lambda run: None)
    assert not (failed.workdir / "failure.json").exists()
    assert (failed.workdir / "log.txt").read_text().count("begins") == 2


def test_processes_get_their_share_and_the_runner_keeps_its_own(fake, tmp_path):
    cores = os.sched_getaffinity(0)
    runner.make(runs(tmp_path, 0, 1), 2, lambda run: None)
    assert os.sched_getaffinity(0) == cores
    used = [read(tmp_path / name / "told.json")["cores"] for name in ("r0", "r1")]
    if len(cores) > 1:
        assert not set(used[0]) & set(used[1])
        assert set(used[0]) | set(used[1]) == cores


def test_cores_and_devices_are_dealt_out_evenly():
    assert [sorted(share.cores) for share in runner.shares(2, [0, 1, 2, 5, 6], [])] == [
        [0, 1],
        [2, 5, 6],
    ]
    assert [sorted(share.cores) for share in runner.shares(3, [4, 7], [])] == [[4], [4], [7]]
    assert runner.shares(1, [0], [])[0].device is None
    assert [share.device for share in runner.shares(2, [0, 1], ["0", "1", "3"])] == ["0,3", "1"]
    with pytest.raises(UserError, match=r"--processes=3, and there are 2 GPUs"):
        runner.shares(3, [0, 1], ["0", "1"])


def test_how_far_a_run_is(tmp_path):
    (run,) = runs(tmp_path, 3)
    run = Job(**{**run.__dict__, "config": {"train.steps": 1200}})
    assert runner.state_of(run) == "r3 starts"
    run.workdir.mkdir()
    log = run.workdir / "metrics.jsonl"
    log.write_text('{"step": 5, "updates": 5, "train/loss": 1.25}\n')
    assert runner.state_of(run) == "r3 update 5/1,200 loss 1.25"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_runs_save_when_the_runner_is_stopped_even_killed(tmp_path, number):
    words = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL)
    wait_for(tmp_path / "r3" / "metrics.jsonl")
    process.send_signal(number)
    assert process.wait(300) == (-number if number == signal.SIGKILL else 130)
    saved = tmp_path / "r3" / "saved"
    if number == signal.SIGKILL:  # nobody waits for the runs of a killed runner
        wait_for(saved)
    assert saved.exists()
    assert not (tmp_path / "r3" / "failure.json").exists()


def test_the_command_can_be_pasted():
    (run,) = runs(Path("my runs"), 0)
    assert runner.shown(run) == "python run.py train --config.seed=0 '--workdir=my runs/r0'"
