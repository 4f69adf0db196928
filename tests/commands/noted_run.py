"""The verb `train`, noting what it learned from; run as a program, on any number of devices.

As a program it takes `{"argv": [...], "stop_at": step or null, "note": file}` and writes the file.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather

import run
from dlm.training import loop


@dataclass
class Note:
    """What a call of the verb did.

    Attributes:
      status: its exit status.
      dialogues: of each step the dialogues of its batch, by row and segment.
      first: the step that it began with.
      leaves: {path: array} of the last state; {} where it was stopped.
    """

    status: int = 0
    dialogues: list[list[int]] = field(default_factory=list)
    first: int = -1
    leaves: dict[str, np.ndarray] = field(default_factory=dict)


def train(argv: list[str], stop_at: int | None = None) -> Note:
    """Calls the verb; a SIGTERM comes just before the step `stop_at`."""
    note, plain = Note(), loop.run

    def noting(step, state, batches, **options):
        note.first = int(state.step)

        def noted(state, batch):
            number = note.first + len(note.dialogues)
            if number == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            ids = process_allgather(batch.dialogue_ids, tiled=True)
            note.dialogues.append(ids.ravel().tolist())
            return step(state, batch)

        state = plain(noted, state, batches, **options)
        arrays = state._replace(key=jax.random.key_data(state.key))
        leaves, _ = jax.tree_util.tree_flatten_with_path(process_allgather(arrays, tiled=True))
        note.leaves = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
        return state

    with mock.patch.object(loop, "run", noting):
        note.status = run.guarded(["train", *argv])
    return note


if __name__ == "__main__":
    case = json.loads(sys.argv[1])
    done = train(case["argv"], case["stop_at"])
    leaves = {path: leaf.ravel().tolist() for path, leaf in done.leaves.items()}
    written = {"first": done.first, "dialogues": done.dialogues, "leaves": leaves}
    Path(case["note"]).write_text(json.dumps(written))
    sys.exit(done.status)
