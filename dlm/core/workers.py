"""Does pieces of work in several processes; what they give comes in order.

Process k of n does pieces k, k + n, k + 2n, ...; so what is done depends on no number of processes.
A process is a fresh interpreter that imports this module and what the work needs, nothing of the
program that starts it (no JAX, no `__main__`), and ends with it.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from dlm.core.errors import UserError

Answer = TypeVar("Answer")

_START = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from dlm.core.workers import serve; serve()"
)


def num_workers(size: int, share: int) -> int:
    """Processes for work of a size: at most one a core, and `share` each; 1 = this one."""
    return max(1, min(len(os.sched_getaffinity(0)), size // share))


def in_order(
    work: Callable[[int], Answer], count: int, workers: int, what: str
) -> Iterator[Answer]:
    """Yields `work(0)`, `work(1)`, ... up to `count`.

    Args:
      work: can be pickled where there are several workers, as can what it gives.
      count: pieces of work.
      workers: processes; 1 = this one.
      what: it does, for messages: "encodes train".

    Raises:
      UserError: what a piece of work raised.
      RuntimeError: a process ended before its work was done.
    """
    if workers == 1:
        yield from map(work, range(count))
        return
    started: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(workers):
            started.append(_start())
        for first, worker in enumerate(started):
            _tell(worker, pickle.dumps((range(first, count, workers), work)))
        for number in range(count):
            yield _receive(started[number % workers], what)
    finally:
        for worker in started:
            _end(worker)


def serve() -> None:
    """Does the pieces that standard input names and writes what they give to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the program that asks
    numbers, work = pickle.load(sys.stdin.buffer)  # noqa: S301  (of its parent)
    gc.set_threshold(1_000_000)  # much is made and little of it in cycles; the default costs 15 %
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what else is printed is no answer
    for number in numbers:
        try:
            answer = work(number)
        except UserError as error:
            answer = UserError(str(error))
        try:
            pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
        except BrokenPipeError:  # the program that asks has ended
            os._exit(1)


def _start() -> subprocess.Popen[bytes]:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    env = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}  # each has one core
    return subprocess.Popen([sys.executable, "-c", _START], **pipes, env=env)


def _tell(worker: subprocess.Popen[bytes], job: bytes) -> None:
    """Says what to do; a job that the pipe does not hold waits until the process reads it."""
    assert worker.stdin is not None
    with suppress(BrokenPipeError):  # one that died is noticed when it is asked
        worker.stdin.write(pickle.dumps(sys.path) + job)
        worker.stdin.flush()


def _receive(worker: subprocess.Popen[bytes], what: str) -> Any:
    assert worker.stdout is not None
    try:
        answer = pickle.load(worker.stdout)  # noqa: S301  (a process of ours wrote it)
    except (EOFError, pickle.UnpicklingError):
        raise RuntimeError(f"a process that {what} ended with status {worker.wait()}") from None
    if isinstance(answer, UserError):
        raise answer
    return answer


def _end(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            with suppress(BrokenPipeError):  # of one that died before it read its job
                pipe.close()
