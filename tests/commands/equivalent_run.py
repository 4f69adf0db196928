"""The verb `train`, its steps noted, without evaluation and report; run as a program.

It takes `{"float64": bool, "cases": {name: words of the command line}}` and prints, for each case,
its losses and its last parameters as JSON. A case whose name ends in "pmap" makes its steps by
`make_pmap_step`, over all devices.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dlm.commands import build, train
from dlm.core.paths import flatten
from dlm.models.decoder import Model
from dlm.training import loop
from dlm.training.mesh import make_mesh
from dlm.training.step import make_pmap_step


class Done(Exception):
    """The steps are made; nothing else of the run is wanted."""


class NoMeasure:
    """Evaluates nothing."""

    def __init__(self, setup: object):
        pass

    def before(self, *_: object) -> dict[str, float]:
        return {}

    def forced(self, *_: object) -> dict[str, float]:
        return {"validation/loss": 0.0}


def pmapped(objective: Any, optimizer: Any, *, shardings: Any, **options: Any) -> Any:
    """A step of one copy of the state, made by the twin on all devices."""
    step, devices = make_pmap_step(objective, optimizer, **options), jax.device_count()
    mesh = jax.make_mesh((devices,), ("devices",), axis_types=(AxisType.Auto,))

    def one(state: Any, batch: Any, frozen: None = None) -> Any:
        copies = jax.tree.map(lambda x: jnp.stack([x] * devices), state)
        blocks = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)
        dealt = jax.device_put((copies, blocks), NamedSharding(mesh, PartitionSpec("devices")))
        with jax.set_mesh(mesh):  # in place of the run's
            made = jax.device_get(step(*dealt))
        return jax.device_put(jax.tree.map(lambda x: x[0], made), jax.devices()[0])

    return one


def outcome(name: str, argv: list[str], float64: bool) -> dict[str, list[float]]:
    """The losses of all steps and the parameters after the last."""
    losses: list[float] = []
    plain, init = loop.run, Model.init

    def noting(step: Any, state: Any, batches: Any, **options: Any) -> Any:
        def noted(state: Any, batch: Any) -> Any:
            state, metrics = step(state, batch)
            losses.append(metrics.terms["loss"].value)
            return state, metrics

        state = plain(noted, state, batches, **options)
        leaves = flatten(jax.device_get(state.params)).values()
        raise Done(np.concatenate([leaf.ravel() for leaf in leaves]).tolist())

    def wide(model: Model, key: jax.Array) -> dict:
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), init(model, key))

    with ExitStack() as held:
        patches: list[tuple[Any, str, Any]] = [(loop, "run", noting), (train, "Measure", NoMeasure)]
        if float64:
            patches += [(loop, "DTYPES", (*loop.DTYPES, "float64")), (Model, "init", wide)]
        if name.endswith("pmap"):
            first = jax.devices()[:1]
            patches += [(build, "make_train_step", pmapped)]
            patches += [(train, "make_mesh", lambda config: make_mesh(config, first))]
        for patch in patches:
            held.enter_context(mock.patch.object(*patch))
        try:
            train.run(argv)
        except Done as done:
            return {"losses": losses, "params": done.args[0]}
    raise AssertionError(f"{name} made no steps")


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    found = {name: outcome(name, argv, asked["float64"]) for name, argv in asked["cases"].items()}
    print(json.dumps(found))
