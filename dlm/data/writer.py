"""Encodes a split into files: one `.npy` a field, all pieces one after another."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dlm.dialogue.encoding import CHANNEL_NAMES, Encoded, Rejected
from dlm.dialogue.endings import ENDINGS, PREFERRED, completed, has_endings
from dlm.dialogue.schema import Dialogue, turn_of_messages

TOKEN_ARRAYS = {
    "tokens": np.int32,
    "targets": np.int32,
    "loss_weights": np.float32,
    "channel_ids": np.int32,
    "turn_ids": np.int32,
    "unit_ids": np.int32,
}
PIECE_ARRAYS = {
    "lengths": np.int32,
    "dialogue_index": np.int32,
    "task_id": np.int32,
    "ending": np.int32,
}


@dataclass
class Counts:
    """What a split holds, and what of it is not in the pieces.

    Attributes:
      dialogues: in the split.
      endings: of them with several endings to compare.
      turns: in the split, rejected dialogues included; of several endings with the preferred one.
      tokens: read by the model, over all pieces.
      supervised: by channel, positions of weight > 0.
      dropped_turns: turns of kept dialogues that are in no piece.
      rejected: by reason, dialogues that are in no piece.
    """

    dialogues: int = 0
    endings: int = 0
    turns: int = 0
    tokens: int = 0
    supervised: dict[str, int] = field(default_factory=dict)
    dropped_turns: int = 0
    rejected: dict[str, int] = field(default_factory=dict)

    def summary(self) -> str:
        """One line on what was left out."""
        reasons = "; ".join(f"{count} rejected: {why}" for why, count in self.rejected.items())
        return f"{self.dialogues} dialogues, {self.dropped_turns} turns dropped" + (
            f"; {reasons}" if reasons else ""
        )


def write(
    folder: Path, encoded: Iterable[tuple[int, Dialogue, list[Encoded] | Rejected]]
) -> dict[str, Any]:
    """Writes all pieces into the arrays of `folder`, flushed to the disk.

    Args:
      folder: empty.
      encoded: index in the split, dialogue, and its pieces or why it has none.

    Returns:
      `task_names`, `counts`, `rejected` and the `bytes` of each file, as JSON has them.
    """
    rows: dict[str, array] = {name: array("i") for name in PIECE_ARRAYS}
    task_ids: dict[str, int] = {}
    counts = Counts()
    rejected: list[dict[str, Any]] = []
    with ExitStack() as files:
        columns = {
            name: files.enter_context(_Column(folder / f"{name}.npy", dtype))
            for name, dtype in (TOKEN_ARRAYS | PIECE_ARRAYS).items()
        }
        for index, dialogue, pieces in encoded:
            _count(counts, dialogue, pieces)
            if isinstance(pieces, Rejected):
                rejected.append({"dialogue": index, "id": dialogue.id, "reason": str(pieces)})
                continue
            for piece in pieces:
                for name in TOKEN_ARRAYS:
                    columns[name].append(getattr(piece, name))
                rows["lengths"].append(len(piece.tokens))
                rows["dialogue_index"].append(index)
                rows["task_id"].append(task_ids.setdefault(dialogue.task, len(task_ids)))
                rows["ending"].append(ENDINGS.index(piece.ending))
        task_names = sorted(task_ids)
        renumbered = np.array([task_names.index(name) for name in task_ids], np.int32)
        for name, values in rows.items():
            column = np.array(values, np.int32)
            columns[name].append(renumbered[column] if name == "task_id" else column)
        sizes = {name: column.finish() for name, column in columns.items()}
    return {
        "task_names": task_names,
        "counts": asdict(counts),
        "rejected": rejected,
        "bytes": sizes,
    }


def _count(counts: Counts, dialogue: Dialogue, pieces: list[Encoded] | Rejected) -> None:
    turns = 1 + max(turn_of_messages(completed(dialogue)), default=-1)
    counts.dialogues += 1
    counts.endings += has_endings(dialogue)
    counts.turns += turns
    if isinstance(pieces, Rejected):
        counts.rejected[pieces.reason] = counts.rejected.get(pieces.reason, 0) + 1
        return
    read = [piece.turn_ids for piece in pieces if piece.ending in PREFERRED]
    present = np.bincount(1 + np.concatenate(read))
    counts.dropped_turns += turns - int(np.count_nonzero(present[1:]))
    for piece in pieces:
        counts.tokens += len(piece.tokens)
        learned = np.bincount(piece.channel_ids[piece.loss_weights > 0])
        for channel in np.flatnonzero(learned):
            name = CHANNEL_NAMES[channel]
            counts.supervised[name] = counts.supervised.get(name, 0) + int(learned[channel])


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
