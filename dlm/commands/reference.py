"""Log probabilities under the model that a run began with: made once, kept in its workdir."""

from __future__ import annotations

import numpy as np
from jax.sharding import Mesh

from dlm.commands.measure import Measure
from dlm.commands.setup import Setup
from dlm.core.errors import UserError
from dlm.core.files import digest, read_json, write_json
from dlm.data.store import Pieces
from dlm.training.processes import on_first

REFERENCE = "reference.json"  # in the workdir


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
        log_probs = measure.log_probs(params, pieces).tolist()
        body = {"pieces": pieces.folder.name, "log_probs": log_probs}
        write_json(setup.workdir / REFERENCE, {**body, "sha256": digest(body)})

    on_first(write, setup.initial_params(mesh))
    found = _read(setup, pieces)
    assert found is not None
    return found


def _read(setup: Setup, pieces: Pieces) -> np.ndarray | None:
    path = setup.workdir / REFERENCE
    if not path.exists():
        return None
    try:
        kept = read_json(path)
        if kept.pop("sha256") != digest(kept):
            raise ValueError("its content is not what was written")
        log_probs = np.asarray(kept["log_probs"], np.float32)
        return log_probs if kept["pieces"] == pieces.folder.name else None
    except (UserError, ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"{path}: damaged ({error}); made again")
        return None
