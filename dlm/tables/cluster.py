"""Makes the runs of a table as jobs of a Slurm cluster, in one array, through submitit.

Slurm tells a job before its time is up or another takes its place; its run then saves, and the job
goes back into the queue. The table's own process only watches: where it ends the jobs stay, and the
same call finds them by the numbers in `jobs.json`. What a job says lies beside it; what its run
says, in `log.txt` of the workdir as ever.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlm.core import files
from dlm.core.errors import UserError
from dlm.core.progress import Progress
from dlm.tables import runner
from dlm.tables.jobs import Job
from dlm.tables.store import read_run

if TYPE_CHECKING:
    from submitit import Executor
    from submitit.core.utils import DelayedSubmission

FOLDER = "slurm"
JOBS_FILE = "jobs.json"  # a run's workdir -> the number of its job
MINUTES = 60  # a job's time where none is given; one that needs more is put back and goes on
TIMES_PUT_BACK = 1000
POLL_SECONDS = 5.0
MISSED = 60  # polls in a row that Slurm may leave without an answer
KILL_SECONDS = 60.0  # longer than Slurm's KillWait, which is 30 s where it is not set
SHOWN = 4  # running runs that are followed by name
# srun takes the cores of a task from here, no longer from sbatch.
CORES = '[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"'
Held = Callable[[], Mapping[str, str]]


@dataclass
class Attempt:
    """A run inside a job; what submitit calls there, and tells before the job is cut short.

    Attributes:
      program: `run.py`.
    """

    program: Path

    def __post_init__(self) -> None:
        self._process: subprocess.Popen | None = None

    def __call__(self, run: Job) -> None:
        """Makes the run, or goes on with it; a failure is recorded in its workdir.

        Slurm tells all processes of a job that it ends, and kills them after a while. A run that
        saved and whose job is still there after that goes on: a preempted job may have longer.
        """
        while (status := self._once(run)) == runner.INTERRUPTED:
            time.sleep(KILL_SECONDS)
        runner.note_end(run, status)

    def _once(self, run: Job) -> int:
        everything = runner.Share(frozenset(os.sched_getaffinity(0)), None)
        self._process = process = runner.start(run, everything, self.program)
        while (status := process.poll()) is None:
            time.sleep(runner.POLL_SECONDS)
        return status

    def checkpoint(self, run: Job) -> DelayedSubmission:
        """Has the run save, and says what to do when the job comes back: the same."""
        from submitit.core.utils import DelayedSubmission

        # Called from a signal's handler: a lock of the process object may be held.
        process = self._process
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(process.pid, signal.SIGTERM)
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(Attempt(self.program), run)


def slurm(folder: Path, at_most: int | None, options: Mapping[str, str]) -> Executor:
    """What hands jobs to Slurm.

    Args:
      folder: where submitit keeps its scripts and logs; all nodes must see it.
      at_most: jobs at a time; None = as many as Slurm will.
      options: long ones of sbatch and their values, "" for one without; `time` is in minutes.

    Raises:
      UserError: Slurm is not here, or the time is no number.
    """
    import submitit

    if shutil.which("sbatch") is None:
        raise UserError("--launcher=slurm: there is no sbatch here; call it on a machine of Slurm")
    more: dict[str, Any] = {name: value or True for name, value in options.items()}
    minutes = str(more.pop("time", MINUTES))
    if not minutes.isdecimal() or not int(minutes):
        raise UserError(f"--slurm.time={minutes} is no number of minutes")
    executor = submitit.SlurmExecutor(folder, max_num_timeout=TIMES_PUT_BACK)
    executor.update_parameters(
        job_name="table",
        time=int(minutes),
        ntasks_per_node=1,
        setup=[importable(), CORES],
        additional_parameters={"requeue": True, **more},
        **({"array_parallelism": at_most} if at_most else {}),
    )
    return executor


def importable() -> str:
    """The shell's line with which a job finds this package, whatever folder it begins in."""
    return f'export PYTHONPATH={shlex.quote(str(Path(__file__).parents[2]))}:"$PYTHONPATH"'


def in_slurm() -> Mapping[str, str]:
    """The jobs of this user that are not over: number -> state.

    Raises:
      UserError: Slurm does not answer.
    """
    words = ["squeue", "--me", "--noheader", "--array", "--format=%i %T"]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    if said.returncode:
        raise UserError(f"squeue: {said.stderr.strip()}; the jobs stay, call the same again")
    return dict(line.split() for line in said.stdout.splitlines())


def make(
    runs: Iterable[Job],
    executor: Executor,
    held: Held,
    ended: Callable[[Job], None],
) -> None:
    """Makes runs as jobs: submits those that have none yet, and waits for all.

    Args:
      runs: in their order; of those that share a workdir the first is made.
      executor: of submitit; what it keeps lies in its folder.
      held: the jobs that are not over, number -> state as Slurm names it.
      ended: called with each run after its job is over, whichever way.

    Raises:
      KeyboardInterrupt: SIGINT or SIGTERM came; the jobs stay.
      UserError: the cluster refuses the jobs, or does not answer.
    """
    first: dict[Path, Job] = {}
    for run in runs:
        first.setdefault(run.workdir, run)
    numbers = submit(list(first.values()), executor, held)
    waiting = {numbers[run.workdir.name]: run for run in first.values()}
    total, failed, missed = len(waiting), 0, 0
    try:
        with Progress(total, "runs", "run") as progress:
            while waiting:
                try:
                    states, missed = held(), 0
                except UserError as error:
                    missed += 1
                    if missed > MISSED:
                        raise
                    progress.say(str(error))
                    time.sleep(POLL_SECONDS)
                    continue
                for number in [number for number in waiting if number not in states]:
                    run = waiting.pop(number)
                    reason = settle(run, executor.job_class(executor.folder, number).paths.stderr)
                    failed += bool(reason)
                    told = f"failed {run.workdir.name}: {reason}"
                    progress.say(told if reason else f"ended {run.workdir.name}")
                    ended(run)
                running = [run for number, run in waiting.items() if states[number] == "RUNNING"]
                now = "; ".join(runner.state_of(run) for run in running[:SHOWN]) or "none runs"
                done = total - len(waiting)
                progress.update(done, failed=failed, running=len(running), now=now)
                if waiting:
                    time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        arrays = " ".join(sorted({number.partition("_")[0] for number in waiting}))
        raise KeyboardInterrupt(
            f"the jobs stay: call the same again to watch them, scancel {arrays} ends them"
        ) from None


def submit(runs: list[Job], executor: Executor, held: Held) -> dict[str, str]:
    """Submits the runs that have no job yet; the number of each one's job by its workdir's name."""
    from submitit.core.utils import FailedJobError

    path = executor.folder / JOBS_FILE
    numbers: dict[str, str] = files.read_json(path) if path.exists() else {}
    states = held()
    new = [run for run in runs if numbers.get(run.workdir.name) not in states]
    if not new:
        return numbers
    for run in new:
        (run.workdir / runner.FAILURE_FILE).unlink(missing_ok=True)
    try:
        jobs = executor.map_array(Attempt(runner.PROGRAM), new)
    except FailedJobError as error:
        raise UserError(f"Slurm refuses the jobs: {str(error).splitlines()[0]}") from None
    numbers |= {run.workdir.name: job.job_id for run, job in zip(new, jobs, strict=True)}
    files.write_json(path, numbers)
    print(f"submitted {len(new)} jobs, {jobs[0].job_id} to {jobs[-1].job_id}", flush=True)
    return numbers


def settle(run: Job, log: Path) -> str:
    """Why the run of a job that is over failed, "" where it did not.

    A job that left neither a result nor a reason has its log's last line as the reason.
    """
    record = read_run(run.workdir)
    if record is not None and record.state != "missing":
        return record.reason
    reason = runner.last_line(log) or f"its job ended without a word; see {log}"
    runner.note_failure(run, None, reason)
    return reason
