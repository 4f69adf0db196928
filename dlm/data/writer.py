"""Writes an encoded split to files: one `.npy` a field, all pieces one after another."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dlm.data.block import PIECE_ARRAYS, TOKEN_ARRAYS, Block, Counts


def write(folder: Path, blocks: Iterable[Block]) -> dict[str, Any]:
    """Writes all pieces into the arrays of `folder`, flushed to the disk.

    Args:
      folder: empty.
      blocks: of all dialogues, in order.

    Returns:
      `task_names`, `counts`, `rejected` and the `bytes` of each file, as JSON has them.
    """
    tasks: dict[str, int] = {}
    task_ids: list[np.ndarray] = [np.zeros(0, np.int32)]
    counts = Counts()
    rejected: list[dict[str, Any]] = []
    with ExitStack() as files:
        columns = {
            name: files.enter_context(_Column(folder / f"{name}.npy", dtype))
            for name, dtype in (TOKEN_ARRAYS | PIECE_ARRAYS).items()
        }
        for block in blocks:
            counts.add(block.counts)
            rejected += block.rejected
            known = [tasks.setdefault(name, len(tasks)) for name in block.task_names]
            task_ids.append(np.array(known, np.int32)[block.arrays["task_id"]])
            for name, array in block.arrays.items():
                if name != "task_id":
                    columns[name].append(array)
        task_names = sorted(tasks)  # so that ids do not depend on which comes first
        renumbered = np.array([task_names.index(name) for name in tasks], np.int32)
        columns["task_id"].append(renumbered[np.concatenate(task_ids)])
        sizes = {name: column.finish() for name, column in columns.items()}
    return {
        "task_names": task_names,
        "counts": asdict(counts),
        "rejected": rejected,
        "bytes": sizes,
    }


class _Column:
    """A one-dimensional `.npy` file that grows; its header is corrected at the end."""

    def __init__(self, path: Path, dtype: type):
        self._file = path.open("w+b")
        self._dtype = np.dtype(dtype)
        self._count = 0
        self._write_header()

    def __enter__(self) -> _Column:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def append(self, values: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(values, self._dtype).data)
        self._count += len(values)

    def finish(self) -> int:
        """Flushes the whole file to the disk; returns its bytes."""
        self._file.seek(0)
        self._write_header()  # numpy leaves room in it for any length of the first axis
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.seek(0, os.SEEK_END)

    def _write_header(self) -> None:
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._count,)}
        np.lib.format.write_array_header_1_0(self._file, header)
