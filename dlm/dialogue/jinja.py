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
from typing import Any

from dlm.core.errors import UserError

_WORKER = Path(__file__).with_name("jinja_worker.py")


class Refused(UserError):
    """The template refuses the messages that it is given; the text is its reason."""


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
        """Returns the texts of the first messages.

        Args:
          messages: as the transformers library takes them.
          prefixes: of each text, how many messages it has and whether it ends with the prompt for
            the assistant's next one.
          tools: none at all where empty.

        Raises:
          Refused: the template refuses them.
          UserError: the template is broken, or takes too long, or writes or needs too much.
        """
        request = {
            "messages": list(messages),
            "prefixes": list(prefixes),
            "tools": list(tools) or None,
            "variables": self._variables,
        }
        with self._lock:
            return self._ask(self._started(), request)

    def _started(self) -> subprocess.Popen[str]:
        if self._worker is None:
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            command = [sys.executable, "-I", str(_WORKER)]
            worker = subprocess.Popen(
                command, **pipes, stderr=subprocess.DEVNULL, encoding="utf-8", env={}
            )
            self._worker = worker
            weakref.finalize(self, _end, worker)
            self._ask(worker, self._source)
        return self._worker

    def _ask(self, worker: subprocess.Popen[str], request: Any) -> list[str]:
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            print(json.dumps(request), file=worker.stdin, flush=True)
            line = worker.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            _end(worker)
            self._worker = None
            raise UserError("the chat template takes too long, or needs too much memory")
        answer = json.loads(line)
        if "refused" in answer:
            raise Refused(answer["refused"])
        if "failed" in answer:
            raise UserError(f"the chat template cannot be rendered: {answer['failed']}")
        return answer["texts"]


def _end(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            pipe.close()
