"""The verb `train` by two processes: as one, stopped by either, and when one is lost."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import run
from dlm.core.errors import UserError
from dlm.training import processes
from tests.commands import noted_run
from tests.commands.test_resume import TINY, write_files
from tests.commands.test_verbs import flags

ROOT = Path(run.__file__).parent
STOPPED = 4


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def start(folder: Path, words: list[str], stops: tuple[int | None, ...]) -> list[subprocess.Popen]:
    """Starts a process for each of `stops`, together of eight devices; see `noted_run`."""
    port, started = free_port(), []
    for which, stop_at in enumerate(stops):
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={8 // len(stops)}",
            "PYTHONPATH": str(ROOT),
        }
        if len(stops) > 1:
            environment |= {
                "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
                "JAX_NUM_PROCESSES": str(len(stops)),
                "JAX_PROCESS_ID": str(which),
            }
        case = {"argv": words, "stop_at": stop_at, "note": str(folder / f"note{which}.json")}
        command = [sys.executable, noted_run.__file__, json.dumps(case)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=environment, cwd=ROOT, **pipes))
    return started


# What the connections say of themselves, in pieces: several threads write it at once.
GLOO = re.compile(
    r"\[Gloo\] Rank | is connected to | peer ranks\. |Expected number of connected peer ranks is : "
    r"|\b\d+\b"
)


def finish(started: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """Exit status, output and errors of each."""
    said = [process.communicate(timeout=500) for process in started]
    return [(one.returncode, *texts) for one, texts in zip(started, said, strict=True)]


def notes(folder: Path, number: int) -> list[dict]:
    return [json.loads((folder / f"note{which}.json").read_text()) for which in range(number)]


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    """Parameters and moments, the dialogues of each step, and one set of files.

    A signal that only the second process gets stops both after the same step, and they go on. One
    that is killed ends the other with one line; started again, they go on.
    """
    write_files(tmp_path)
    meshed = [f"--config.mesh.{axis}=2" for axis in ("data", "fsdp", "tensor")]
    alone = flags(tmp_path, "alone", **TINY) + meshed
    assert finish(start(tmp_path, alone, (None,)))[0][0] == 0
    (wanted,) = notes(tmp_path, 1)

    words = [*flags(tmp_path, "two", **TINY, **{"train.save_every": 3}), *meshed]
    done = finish(start(tmp_path, words, (None, STOPPED)))
    assert [status for status, _, _ in done] == [130, 130], done
    stopped = notes(tmp_path, 2)
    assert stopped[0] == stopped[1]
    begun = len(stopped[0]["dialogues"])
    assert begun in (STOPPED + 1, STOPPED + 2)  # the answer to a question is the next one's

    pair = start(tmp_path, words, (None, None))
    for line in pair[0].stdout:
        if line.startswith("training: step"):
            break
    pair[1].kill()
    killed = time.monotonic()
    (status, _, errors), _ = finish(pair)
    assert status not in (0, 2, 130)
    assert "has lost another" in errors or "another task died" in errors
    assert time.monotonic() - killed < processes.HEARTBEAT + 30

    done = finish(start(tmp_path, words, (None, None)))
    assert [status for status, _, _ in done] == [0, 0], done
    assert "report.md" in done[0][1]
    assert not GLOO.sub("", done[1][1]).strip()
    first, second = notes(tmp_path, 2)
    assert first == second
    assert first["first"] >= begun
    whole = stopped[0]["dialogues"] + wanted["dialogues"][begun : first["first"]]
    assert whole + first["dialogues"] == wanted["dialogues"]
    for path, leaf in wanted["leaves"].items():
        np.testing.assert_allclose(first["leaves"][path], leaf, rtol=0, atol=1e-5, err_msg=path)


@pytest.mark.slow
def test_a_mistake_that_the_first_process_finds_ends_all(tmp_path):
    """In the one line that one process would print, with exit status 2."""
    write_files(tmp_path)
    words = flags(tmp_path, "two", **TINY, **{"train.metric": "validation/lss"})
    done = finish(start(tmp_path, words, (None, None)))
    for status, _, errors in done:
        assert status == 2
        assert "error: train.metric='validation/lss' is not evaluated" in errors


@pytest.mark.parametrize(
    ("number", "which", "message"),
    [
        (None, "0", "JAX_NUM_PROCESSES=None, JAX_PROCESS_ID=0 name no place in a job: Number of"),
        ("2", "2", "JAX_NUM_PROCESSES=2, JAX_PROCESS_ID=2 name no place in a job: process_id and"),
        ("two", "0", "JAX_NUM_PROCESSES=two, JAX_PROCESS_ID=0 name no place in a job: invalid"),
    ],
)
def test_a_place_that_there_is_not_is_told(number, which, message):
    values = {processes.NUMBER: number, processes.WHICH: which, processes.ADDRESS: "localhost:1"}
    environment = {**os.environ, **{name: value for name, value in values.items() if value}}
    code = "import run; raise SystemExit(run.guarded(['train', '--config=configs/quickstart.py']))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_one_process_asks_itself():
    """Without a cluster nothing is joined and nothing is sent."""
    processes.join()
    assert processes.is_first()
    assert processes.from_first(lambda: object) is object
    with pytest.raises(UserError, match="mine"):
        processes.from_first(lambda: (_ for _ in ()).throw(UserError("mine")))
    answers = iter([False, True])
    asked = processes.agreed(lambda: next(answers))
    assert [asked(), asked()] == [False, True]


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    """Begun by one, gone on with by two: the same dialogues in the same updates."""
    write_files(tmp_path)
    dealt = ["--config.mesh.data=8"]
    words = flags(tmp_path, "alone", **TINY) + dealt
    assert finish(start(tmp_path, words, (None,)))[0][0] == 0
    (wanted,) = notes(tmp_path, 1)
    words = flags(tmp_path, "more", **TINY) + dealt
    assert finish(start(tmp_path, words, (STOPPED,)))[0][0] == 130
    (begun,) = notes(tmp_path, 1)
    done = finish(start(tmp_path, words, (None, None)))
    assert [status for status, _, _ in done] == [0, 0], done
    rest = notes(tmp_path, 2)[0]
    assert rest["first"] == len(begun["dialogues"]) == STOPPED + 1
    assert begun["dialogues"] + rest["dialogues"] == wanted["dialogues"]
    for path, leaf in wanted["leaves"].items():
        np.testing.assert_allclose(rest["leaves"][path], leaf, rtol=0, atol=1e-5, err_msg=path)
