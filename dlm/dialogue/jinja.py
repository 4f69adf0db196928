"""Renders a checkpoint's chat template: the one place where another's template runs.

The template runs in a process of its own (`jinja_worker.py`), in Jinja's sandbox, with limits on
time, memory and output; what comes back is text.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dlm.core.errors import UserError

_TOGETHER = 1 << 22  # characters, about, that are rendered before they are read
_WORKER = Path(__file__).with_name("jinja_worker.py")


class Refused(UserError):
    """The template refuses the messages that it is given; the text is its reason."""


class Request(NamedTuple):
    """What is to be rendered.

    Attributes:
      messages: as the transformers library takes them.
      prefixes: of each text, how many messages it has and whether it ends with the prompt for the
        assistant's next one.
      tools: none at all where empty.
    """

    messages: Sequence[Mapping[str, Any]]
    prefixes: Sequence[tuple[int, bool]]
    tools: Sequence[Mapping[str, Any]] = ()


class Renderer:
    """One template and the process that renders it; the process ends with the object.

    Args:
      source: Jinja text.
      variables: what the template can read besides messages and tools, such as `bos_token`.
    """

    def __init__(self, source: str, variables: Mapping[str, str]) -> None:
        self._source = source
        self._variables = dict(variables)
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[str] | None = None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        prefixes: Sequence[tuple[int, bool]],
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> list[str]:
        """Returns the texts of the first messages; see `Request` for the arguments.

        Raises:
          Refused: the template refuses them.
          UserError: the template is broken, or takes too long, or writes or needs too much.
        """
        (texts,) = self.render_many([Request(messages, prefixes, tools)])
        if isinstance(texts, Refused):
            raise texts
        return texts

    def render_many(self, requests: Sequence[Request]) -> list[list[str] | Refused]:
        """Returns the texts of each request, or why the template refuses it.

        Raises:
          UserError: the template is broken, or takes too long, or writes or needs too much.
        """
        answers: list[list[str] | Refused] = []
        waiting: list[str] = []
        size = 0
        with self._lock:
            for request in requests:
                line = json.dumps(request._asdict() | {"variables": self._variables})
                waiting.append(line)
                size += len(line) * len(request.prefixes)
                if size > _TOGETHER:
                    answers += self._ask(self._started(), waiting)
                    waiting, size = [], 0
            if waiting:
                answers += self._ask(self._started(), waiting)
        return answers

    def _started(self) -> subprocess.Popen[str]:
        if self._worker is None:
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            command = [sys.executable, "-I", str(_WORKER)]
            worker = subprocess.Popen(
                command, **pipes, stderr=subprocess.DEVNULL, encoding="utf-8", env={}
            )
            self._worker = worker
            weakref.finalize(self, _end, worker)
            self._ask(worker, [json.dumps(self._source)])
        return self._worker

    def _ask(
        self, worker: subprocess.Popen[str], requests: Sequence[str]
    ) -> list[list[str] | Refused]:
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            print(f"[{', '.join(requests)}]", file=worker.stdin, flush=True)
            line = worker.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            _end(worker)
            self._worker = None
            raise UserError("the chat template takes too long, or needs too much memory")
        return [_texts(answer) for answer in json.loads(line)]


def _texts(answer: Mapping[str, Any]) -> list[str] | Refused:
    if "failed" in answer:
        raise UserError(f"the chat template cannot be rendered: {answer['failed']}")
    return Refused(answer["refused"]) if "refused" in answer else answer["texts"]


def _end(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            pipe.close()
