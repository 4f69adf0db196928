"""Log probabilities under the model that a run began with: made once, kept in its workdir."""

from __future__ import annotations

import io
import zipfile

import numpy as np
from jax.sharding import Mesh

from dlm.commands.measure import Measure
from dlm.commands.setup import Setup
from dlm.core.files import write_atomic
from dlm.data.store import Pieces
from dlm.training.processes import on_first

REFERENCE = "reference.npz"  # in the workdir


def reference_log_probs(setup: Setup, mesh: Mesh, measure: Measure, pieces: Pieces) -> np.ndarray:
    """The log probability of each training piece under the initial parameters: [N] float32.

    The first start writes them into the workdir, beside the key of the encoded pieces; what goes on
    reads them and needs the initial parameters no more. They are made again where the pieces are
    others by now, or the file is damaged.

    Args:
      setup: of a run that has claimed its workdir.
      mesh: the devices.
      measure: makes them.
      pieces: of training, in groups.
    """
    found = _read(setup, pieces)
    if found is not None:
        return found
    print("measuring the endings by the model before its training")

    def write(params: dict) -> None:
        content = io.BytesIO()
        log_probs = measure.log_probs(params, pieces)
        np.savez(content, log_probs=log_probs, pieces=np.array(pieces.folder.name))
        write_atomic(setup.workdir / REFERENCE, content.getvalue())

    on_first(write, setup.initial_params(mesh))
    found = _read(setup, pieces)
    assert found is not None
    return found


def _read(setup: Setup, pieces: Pieces) -> np.ndarray | None:
    path = setup.workdir / REFERENCE
    if not path.exists():
        return None
    try:
        with np.load(path) as kept:
            return kept["log_probs"] if str(kept["pieces"]) == pieces.folder.name else None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        print(f"{path}: damaged ({error}); made again")
        return None
