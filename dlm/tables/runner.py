"""Makes the runs of a table in processes of their own, several at a time.

Each process gets its share of the cores and devices and writes into `log.txt` of its workdir. One
that fails is recorded and stops nothing. When the runner is interrupted it tells its runs, which
save and end; when it is killed, the kernel tells them. The same call goes on from there.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlm.core import files
from dlm.core.errors import UserError
from dlm.core.progress import Progress
from dlm.tables import launch
from dlm.tables.jobs import Job
from dlm.tables.store import FAILURE_FILE

LOG_FILE = "log.txt"
INTERRUPTED = 130  # the exit status of a run that saved and goes on when it is called again
POLL_SECONDS = 0.5
TAIL_BYTES = 1 << 16
PROGRAM = Path(__file__).parents[2] / "run.py"


@dataclass(frozen=True)
class Share:
    """What one process may use.

    Attributes:
      cores: numbers of processor cores.
      device: of `CUDA_VISIBLE_DEVICES`; None = there is no GPU.
    """

    cores: frozenset[int]
    device: str | None


def shares(processes: int, cores: Sequence[int], devices: Sequence[str]) -> list[Share]:
    """Deals cores and devices out, as evenly as they come; with too few cores some are shared.

    Raises:
      UserError: there are GPUs, and fewer than processes.
    """
    if devices and processes > len(devices):
        raise UserError(f"--processes={processes}, and there are {len(devices)} GPUs")
    dealt = []
    for i in range(processes):
        part = cores[i * len(cores) // processes : (i + 1) * len(cores) // processes]
        own = ",".join(devices[i::processes]) if devices else None
        dealt.append(Share(frozenset(part or [cores[i % len(cores)]]), own))
    return dealt


def gpus() -> list[str]:
    """The GPUs of this machine that may be used, found without opening any."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        return [name for name in said.split(",") if name]
    return sorted(path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*"))


def command(run: Job) -> list[str]:
    """The command line that makes a run, or goes on with it."""
    return ["python", "run.py", "train", *run.words, f"--workdir={run.workdir}"]


def shown(run: Job) -> str:
    """The same as one line for a shell."""
    return shlex.join(command(run))


def make(runs: Iterable[Job], processes: int, ended: Callable[[Job], None]) -> None:
    """Makes runs, at most so many at a time.

    Args:
      runs: in their order; of those that share a workdir the first is made.
      processes: at most so many at a time.
      ended: called with each run after it ended, whichever way.

    Raises:
      KeyboardInterrupt: SIGINT or SIGTERM came; every run was told and has ended.
      UserError: see `shares`.
    """
    first: dict[Path, Job] = {}
    for run in runs:
        first.setdefault(run.workdir, run)
    waiting, total, failed = list(first.values()), len(first), 0
    free = shares(processes, sorted(os.sched_getaffinity(0)), gpus())
    running: dict[subprocess.Popen[bytes], tuple[Job, Share]] = {}
    try:
        with Progress(total, "runs", "run") as progress:
            while waiting or running:
                while waiting and free:
                    run, share = waiting.pop(0), free.pop(0)
                    progress.say(f"started {run.workdir.name}")
                    running[start(run, share, PROGRAM)] = run, share
                for process in [process for process in running if process.poll() is not None]:
                    run, share = running.pop(process)
                    free.append(share)
                    reason = note_end(run, process.returncode)
                    failed += bool(reason)
                    told = f"failed {run.workdir.name}: {reason}"
                    progress.say(told if reason else f"ended {run.workdir.name}")
                    ended(run)
                if running:
                    now = "; ".join(state_of(run) for run, _ in running.values())
                    done = total - len(waiting) - len(running)
                    progress.update(done, failed=failed, now=now)
                    time.sleep(POLL_SECONDS)
            progress.update(total, failed=failed)
    except BaseException:
        stop(running)
        raise


def start(run: Job, share: Share, program: Path) -> subprocess.Popen[bytes]:
    """Starts a run's process on its share, its output at the end of the workdir's log."""
    run.workdir.mkdir(parents=True, exist_ok=True)
    (run.workdir / FAILURE_FILE).unlink(missing_ok=True)
    words = [sys.executable, str(program), *command(run)[2:]]
    guarded = [sys.executable, "-I", str(launch.__file__), str(os.getpid()), *words]
    environment = dict(os.environ)
    if share.device is not None:
        environment["CUDA_VISIBLE_DEVICES"] = share.device
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, share.cores)  # a new process has that of the thread that makes it
    try:
        with (run.workdir / LOG_FILE).open("ab") as log:
            return subprocess.Popen(
                guarded,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # a Ctrl-C is the runner's, which tells each run once
            )
    finally:
        os.sched_setaffinity(0, mine)


def stop(running: Iterable[subprocess.Popen[bytes]]) -> None:
    """Tells processes to save and end, and waits; a second interrupt ends them at once."""
    processes = list(running)
    for process in processes:
        process.terminate()
    try:
        for process in processes:
            process.wait()
    except BaseException:
        for process in processes:
            process.kill()
        raise


def note_end(run: Job, status: int) -> str:
    """Records in the workdir why a run failed; returns the reason, "" where it did not."""
    if status in (0, INTERRUPTED):
        return ""
    reason = last_line(run.workdir / LOG_FILE).removeprefix("error: ")
    if status < 0:
        reason = f"killed by {signal.Signals(-status).name}"
    reason = reason or f"exit status {status}"
    note_failure(run, status, reason)
    return reason


def note_failure(run: Job, status: int | None, reason: str) -> None:
    """Records in the workdir that a run failed; no status = its process is not known."""
    failure = {"status": status, "reason": reason, "identity": run.identity}
    files.write_json(run.workdir / FAILURE_FILE, failure)


def state_of(run: Job) -> str:
    """How far a run is: its name, updates and loss by the last line of its log."""
    line = last_line(run.workdir / "metrics.jsonl")
    try:
        row: dict[str, Any] = json.loads(line)
    except ValueError:
        return f"{run.workdir.name} starts"
    loss = row.get("train/loss", row.get("validation/loss"))
    total = run.config.get("train.steps")
    of_total = f"/{total:,}" if total else ""
    said = "" if loss is None else f" loss {loss:.3g}"
    return f"{run.workdir.name} update {row.get('updates', 0):,}{of_total}{said}"


def last_line(path: Path) -> str:
    """The last line of a file that says anything; "" where there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
