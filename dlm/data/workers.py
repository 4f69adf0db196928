"""Encodes a split in as many processes as there are cores; the blocks come in order.

Process k of n encodes blocks k, k + n, k + 2n, ...; so what is encoded depends on no number of
processes. A process is a fresh interpreter that imports this module and nothing of the program that
starts it (no JAX, no `__main__`), and ends with it.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from dlm.core.errors import UserError
from dlm.data.block import Block, encode_block
from dlm.data.recipe import Recipe
from dlm.dialogue.schema import Dialogue
from dlm.dialogue.template import Template

BLOCK = 256  # dialogues encoded together
SHARE = 4096  # dialogues that are worth a process: one takes about a second to start

_START = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from dlm.data.workers import serve; serve()"
)


def num_workers(dialogues: int) -> int:
    """Processes that encode so many dialogues: at most one a core, 1 = this one."""
    return max(1, min(len(os.sched_getaffinity(0)), dialogues // SHARE))


def encode_blocks(
    source: Sequence[Dialogue], template: Template, recipe: Recipe, workers: int
) -> Iterator[Block]:
    """Yields the blocks of a split in order.

    Args:
      source: the dialogues; can be pickled where there are several workers, as can the template.
      template: how they are written out.
      recipe: the rest of what decides them.
      workers: processes; 1 = this one.

    Raises:
      UserError: what encoding a dialogue raised.
      RuntimeError: a process ended before its work was done.
    """
    count = -(-len(source) // BLOCK)
    if workers == 1:
        yield from (_block(source, template, recipe, number) for number in range(count))
        return
    started: list[subprocess.Popen[bytes]] = []
    try:
        for first in range(workers):
            numbers = range(first, count, workers)
            started.append(_start(pickle.dumps((numbers, source, template, recipe))))
        for number in range(count):
            yield _receive(started[number % workers], recipe.split)
    finally:
        for worker in started:
            _end(worker)


def serve() -> None:
    """Encodes the blocks that standard input names and writes them to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the program that asks
    numbers, source, template, recipe = pickle.load(sys.stdin.buffer)  # noqa: S301  (of its parent)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what else is printed is no answer
    for number in numbers:
        answer: Block | UserError
        try:
            answer = _block(source, template, recipe, number)
        except UserError as error:
            answer = UserError(str(error))
        try:
            pickle.dump(answer, answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
        except BrokenPipeError:  # the program that asks has ended
            os._exit(1)


def _block(source: Sequence[Dialogue], template: Template, recipe: Recipe, number: int) -> Block:
    span = range(number * BLOCK, min((number + 1) * BLOCK, len(source)))
    return encode_block(source, span, template, recipe)


def _start(job: bytes) -> subprocess.Popen[bytes]:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    env = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}  # each has one core
    worker = subprocess.Popen([sys.executable, "-c", _START], **pipes, env=env)
    assert worker.stdin is not None
    with suppress(BrokenPipeError):  # one that died is noticed when it is asked
        worker.stdin.write(pickle.dumps(sys.path) + job)
        worker.stdin.flush()
    return worker


def _receive(worker: subprocess.Popen[bytes], split: str) -> Block:
    assert worker.stdout is not None
    try:
        answer = pickle.load(worker.stdout)  # noqa: S301  (a process of ours wrote it)
    except (EOFError, pickle.UnpicklingError):
        raise RuntimeError(
            f"a process that encodes {split} ended with status {worker.wait()}"
        ) from None
    if isinstance(answer, UserError):
        raise answer
    return answer


def _end(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            pipe.close()
