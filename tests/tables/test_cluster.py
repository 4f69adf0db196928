"""Runs as jobs: submitit's local executor over the way that Slurm takes, and stand-ins for Slurm.

`tests/commands/test_slurm.py` has a real one.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import submitit

from dlm.core.errors import UserError
from dlm.tables import cluster, runner
from dlm.tables.jobs import Job
from tests.tables.test_runner import FAKE, read, runs, wait_for


class Local(submitit.LocalExecutor):
    """Knows its jobs, as a queue does."""

    def __init__(self, folder: Path):
        super().__init__(folder, max_num_timeout=cluster.TIMES_PUT_BACK)
        self.update_parameters(setup=[cluster.importable()])
        self.submitted: list[submitit.Job] = []

    def map_array(self, *args):
        jobs = super().map_array(*args)
        self.submitted += jobs
        return jobs

    def held(self) -> dict[str, str]:
        return {job.job_id: "RUNNING" for job in self.submitted if not job.done()}


@pytest.fixture
def executor(monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "PROGRAM", FAKE)
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.2)
    return Local(tmp_path / "slurm")


def job_process(run: Job) -> int:
    """The process that started a run's."""
    status = Path(f"/proc/{read(run.workdir / 'told.json')['pid']}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("PPid"))
    return int(line.split()[1])


def test_what_fails_is_recorded_and_the_others_go_on(executor, tmp_path, capfd):
    ended: list[int] = []
    made = runs(tmp_path, 1, 2, 0)
    cluster.make([*made, made[0]], executor, executor.held, lambda run: ended.append(run.seed))
    assert sorted(ended) == [0, 1, 2]  # the one that was there twice was made once
    failure = read(tmp_path / "r1" / "failure.json")
    assert failure == {"status": 1, "reason": "train.steps=0 must be above 0", "identity": "1"}
    assert read(tmp_path / "r2" / "failure.json")["reason"] == "killed by SIGKILL"
    assert (tmp_path / "r0" / "summary.json").exists()
    assert (tmp_path / "r0" / "log.txt").read_text() == "begins\n"
    printed = capfd.readouterr().out
    assert "submitted 3 jobs" in printed
    assert "failed r1: train.steps=0 must be above 0" in printed
    assert "run 3/3, failed 2" in printed


def when_it_runs(run: Job, executor: Local, act: Callable[[], None]) -> Callable[[], dict]:
    """The queue; once the jobs are watched and the run is on its way something happens."""
    asked: list[bool] = []

    def held() -> dict[str, str]:
        asked.append(True)
        if len(asked) == 2:  # the first time is before jobs are submitted
            wait_for(run.workdir / "metrics.jsonl")
            act()
        return executor.held()

    return held


def test_a_job_that_is_cut_short_saves_and_goes_on(executor, tmp_path):
    (run,) = runs(tmp_path, 3)

    def cut() -> None:  # as Slurm does: every process of the job is told
        parent, child = job_process(run), read(run.workdir / "told.json")["pid"]
        os.kill(child, signal.SIGUSR2)
        os.kill(parent, signal.SIGUSR2)

    cluster.make([run], executor, when_it_runs(run, executor, cut), lambda run: None)
    assert (run.workdir / "saved").exists()
    assert (run.workdir / "summary.json").exists()
    assert (run.workdir / "log.txt").read_text() == "begins\nbegins\n"
    assert not (run.workdir / "failure.json").exists()


def test_a_job_that_ends_without_a_word_has_failed(executor, tmp_path):
    (run,) = runs(tmp_path, 3)

    def kill() -> None:
        os.kill(job_process(run), signal.SIGKILL)

    cluster.make([run], executor, when_it_runs(run, executor, kill), lambda run: None)
    wait_for(run.workdir / "saved")  # the kernel told the run
    failure = read(run.workdir / "failure.json")
    assert failure["status"] is None
    assert failure["reason"].startswith("its job ended without a word; see ")


def test_jobs_stay_when_the_table_is_interrupted_and_are_found_again(executor, tmp_path, capfd):
    made = runs(tmp_path, 3, 0)

    def interrupt() -> None:
        raise KeyboardInterrupt

    held = when_it_runs(made[0], executor, interrupt)
    with pytest.raises(KeyboardInterrupt) as told:
        cluster.make(made, executor, held, lambda run: None)
    first, second = (job.job_id for job in executor.submitted)
    assert read(tmp_path / "slurm" / "jobs.json") == {"r3": first, "r0": second}
    assert "call the same again to watch them, scancel " in str(told.value)
    assert first in str(told.value)

    def let_go() -> None:
        os.kill(job_process(made[0]), signal.SIGKILL)
        wait_for(tmp_path / "r3" / "saved")

    cluster.make(made[:1], executor, when_it_runs(made[0], executor, let_go), lambda run: None)
    assert len(executor.submitted) == 2
    # What is over may be submitted again; the number of the other stays known.
    cluster.make(made[:1], executor, executor.held, lambda run: None)
    numbers = read(tmp_path / "slurm" / "jobs.json")
    assert numbers == {"r3": executor.submitted[2].job_id, "r0": second}
    assert (tmp_path / "r3" / "summary.json").exists()


@pytest.fixture
def commands(monkeypatch, tmp_path) -> Callable[[str, str], None]:
    """Puts shell scripts in front of what is found by name."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def add(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    add("srun", "")
    return add


def test_options_of_sbatch_stand_in_the_script(commands, tmp_path):
    commands("sbatch", f'cp "$1" {tmp_path}/script; echo Submitted batch job 12')
    options = {"partition": "gpu", "cpus-per-task": "8", "exclusive": "", "time": "90"}
    executor = cluster.slurm(tmp_path / "slurm", 2, options)
    numbers = cluster.submit(runs(tmp_path, 0, 1, 2), executor, dict)
    assert numbers == {"r0": "12_0", "r1": "12_1", "r2": "12_2"}
    script = (tmp_path / "script").read_text().splitlines()
    for line in ("partition=gpu", "cpus-per-task=8", "exclusive", "time=90", "array=0-2%2"):
        assert f"#SBATCH --{line}" in script
    assert "#SBATCH --requeue" in script
    assert "#SBATCH --signal=USR2@90" in script

    plain = cluster.slurm(tmp_path / "slurm", None, {})
    assert cluster.submit(runs(tmp_path, 3), plain, lambda: {"12_0": "PENDING"})["r3"] == "12"
    assert "#SBATCH --time=60" in (tmp_path / "script").read_text()
    assert json.loads((tmp_path / "slurm" / "jobs.json").read_text())["r0"] == "12_0"


def test_what_slurm_refuses_is_told_in_one_line(commands, tmp_path):
    commands("sbatch", "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    executor = cluster.slurm(tmp_path / "slurm", None, {"partition": "x"})
    with pytest.raises(UserError, match=r"^Slurm refuses the jobs: sbatch: error: invalid part"):
        cluster.submit(runs(tmp_path, 0), executor, dict)
    assert not (tmp_path / "slurm" / "jobs.json").exists()
    with pytest.raises(UserError, match=r"--slurm.time=4:00:00 is no number of minutes"):
        cluster.slurm(tmp_path / "slurm", None, {"time": "4:00:00"})


def test_the_queue_is_that_of_squeue(commands):
    commands("squeue", 'echo "$@" >&2; echo 12_0 RUNNING; echo 12_1 PENDING; echo 13 COMPLETING')
    assert cluster.in_slurm() == {"12_0": "RUNNING", "12_1": "PENDING", "13": "COMPLETING"}
    commands("squeue", "echo slurm_load_jobs error: Unable to contact >&2; exit 1")
    with pytest.raises(UserError, match=r"squeue: slurm_load_jobs error: .*; the jobs stay"):
        cluster.in_slurm()


def test_without_slurm_its_absence_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"--launcher=slurm: there is no sbatch here"):
        cluster.slurm(tmp_path, None, {})
