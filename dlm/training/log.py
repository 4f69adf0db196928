"""The metrics log: a JSON object a line in `metrics.jsonl`, and the same as TensorBoard events."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from dlm.core import files
from dlm.core.errors import UserError

METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """Writes each step's figures once, also over stops and resumes.

    A line is `{"step": 20, "updates": 20, "train/loss": 2.25, ...}`. A resumed run drops the lines
    after the step that it restored before it writes on, and tells TensorBoard to do the same; so
    the log of a run that was stopped equals that of one that was not.

    Example:
      >>> with MetricsLog("runs/a", restored=40) as log:  # doctest: +SKIP
      ...     log.write(60, {"updates": 60, "train/loss": 2.25})
    """

    def __init__(self, workdir: str | Path, *, restored: int | None = None):
        """Opens the log of a run.

        Args:
          workdir: the run's folder, made if need be.
          restored: the step that the run goes on from; lines up to it are kept. None: anew.

        Raises:
          UserError: a line of the existing log, other than a last unfinished one, is not of the
            log's format.
        """
        from tensorboardX import SummaryWriter

        self.path = Path(workdir) / METRICS_FILE
        kept = []
        if restored is not None and self.path.exists():
            kept = [row for row in read_metrics(self.path) if row["step"] <= restored]
        files.write_atomic(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file: IO[str] = self.path.open("a", encoding="utf-8")
        first = 0 if restored is None else restored + 1
        # Event files are named by the second; two within one would overwrite each other.
        self._events = SummaryWriter(
            str(Path(workdir) / "tensorboard"),
            purge_step=first,
            filename_suffix=f".{time.time_ns()}",
        )

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes one line and one event a figure; the line outlives a kill once this returns.

        A NaN or an infinity, which JSON does not have, is written as null (and as itself in the
        events).

        Raises:
          TypeError: a value is not a plain number; arrays are read where they are made, so that
            the log never waits for a device.
        """
        from tensorboardX.proto.summary_pb2 import Summary

        for name, value in metrics.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} must be a plain number, got {type(value).__name__}")
        row = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        self._file.flush()
        # Not add_scalar: it would spell the names another way (`task:a` as `task_a`).
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._events.file_writer.add_summary(Summary(value=values), step)

    def close(self) -> None:
        """Flushes and closes both files; may be repeated."""
        self._file.close()
        self._events.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Reads a metrics log; a last line that was cut short (the writer was killed) is left out.

    Raises:
      UserError: the file is absent, or a whole line is not a JSON object with a `step`.
    """
    try:
        *lines, _ = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            row["step"] + 0
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{path}:{number}: not a JSON object with a step; "
                "repair or remove the line, or use another workdir"
            ) from None
        rows.append(row)
    return rows
