"""One run on one device, on any mesh of eight, by pmap, and by two processes: the same numbers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from dlm.core.errors import UserError
from dlm.training.mesh import MeshConfig, make_mesh, make_placer, partition

SCRIPT = Path(__file__).with_name("many_devices.py")
MESHES = [
    *([8, 1, 1], [1, 8, 1], [1, 1, 8]),
    *([4, 2, 1], [2, 1, 4], [2, 2, 2]),
]


def start(devices: int, float64: bool, **case) -> subprocess.Popen:
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_ENABLE_X64": str(float64),
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "PYTHONPATH": str(SCRIPT.parents[2]),
    }
    command = [sys.executable, str(SCRIPT), json.dumps(case)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def outcome(process: subprocess.Popen) -> dict:
    out, _ = process.communicate(timeout=500)
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


@cache
def one_device(float64: bool, updates: int, optimizer: str) -> dict:
    return outcome(start(8, float64, mesh=None, updates=updates, optimizer=optimizer))


def assert_same(got: dict, wanted: dict, tolerance: float) -> None:
    np.testing.assert_allclose(got["losses"], wanted["losses"], rtol=0, atol=tolerance)
    assert got["params"].keys() == wanted["params"].keys()
    for path, leaf in wanted["params"].items():
        np.testing.assert_allclose(got["params"][path], leaf, rtol=0, atol=tolerance, err_msg=path)
    assert got["supervised"] == wanted["supervised"]


@pytest.mark.slow
def test_eight_devices_are_one():
    """Loss and parameters, with unequal counts and devices without any.

    Parameters and moments are cut: a device holds a quarter of each matrix. One trace serves all.
    """
    got = outcome(start(8, True, mesh=[2, 2, 2], updates=6, optimizer="adamw"))
    assert_same(got, one_device(True, 6, "adamw"), 1e-9)
    assert got["share"]["layers/1/mlp/up/kernel"] == 1 / 4
    assert set(got["moments"]) == {1 / 4}
    assert got["traces"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [*MESHES, "pmap"], ids=str)
def test_every_mesh_is_one_device_in_float64(mesh):
    got = outcome(start(8, True, mesh=mesh, updates=50, optimizer="adamw"))
    assert_same(got, one_device(True, 50, "adamw"), 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [[8, 1, 1], [2, 2, 2], "pmap"], ids=str)
def test_every_mesh_is_one_device_in_float32(mesh):
    got = outcome(start(8, False, mesh=mesh, updates=50, optimizer="sgd"))
    assert_same(got, one_device(False, 50, "sgd"), 1e-5)


@pytest.mark.slow
def test_two_processes_are_one_device():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    case = {"mesh": [4, 2, 1], "updates": 50, "optimizer": "adamw", "processes": 2, "port": port}
    second = start(4, True, process=1, **case)
    got = outcome(start(4, True, process=0, **case))
    second.communicate(timeout=60)
    assert second.returncode == 0
    assert_same(got, one_device(True, 50, "adamw"), 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [[8, 1, 1], [2, 2, 2], "pmap"], ids=str)
def test_a_sequence_loss_is_the_same_on_every_mesh(mesh):
    """DPO: a pair lies in one row, so no device needs another's log probabilities."""
    case = {"updates": 12, "optimizer": "adamw", "loss": "dpo"}
    got = outcome(start(8, True, mesh=mesh, **case))
    assert_same(got, outcome(start(8, True, mesh=None, **case)), 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tied", "frozen"),
    [(True, "layers/0/mlp/.*"), (False, "head/.*")],
    ids=["tied", "frozen"],
)
def test_every_head_is_one_device(tied, frozen):
    """Its vocabulary cut over eight devices, and over two with tokens and width over two each."""
    case = {"updates": 6, "optimizer": "adamw", "tied": tied, "frozen": frozen}
    wanted = outcome(start(8, True, mesh=None, **case))
    for mesh in ([1, 1, 8], [2, 2, 2]):
        got = outcome(start(8, True, mesh=mesh, **case))
        assert_same(got, wanted, 1e-9)
        table = "embedding/tokens" if tied else "head/kernel"
        assert got["share"][table] == {1: 1 / 8, 2: 1 / 4}[mesh[0]]


def test_one_device_needs_no_config():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(data=3, tensor=2), "mesh data=3 x fsdp=1 x tensor=2 needs 6 devices, found 1"),
        (MeshConfig(fsdp=2), "mesh data=1 x fsdp=2 x tensor=1 needs 2 devices, found 1"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(config, message):
    with pytest.raises(UserError) as caught:
        make_mesh(config, jax.devices()[:1])
    assert str(caught.value) == message


def test_an_axis_has_at_least_one_device():
    with pytest.raises(UserError, match=r"^mesh.tensor=0 must be at least 1$"):
        MeshConfig(tensor=0)


class Sizes:
    """What `partition` and `make_placer` read of a mesh."""

    shape = {"data": 2, "fsdp": 2, "tensor": 4}  # noqa: RUF012


def test_rules_cut_what_they_divide():
    """An axis that does not divide its dimension is left out; the config's rules come first."""
    params = {
        "embedding": {"tokens": jnp.zeros((7, 6)), "positions": jnp.zeros((5, 3))},
        "layers": {"0": {"mlp": {"down": {"kernel": jnp.zeros((8, 6))}}}},
        "norm": {"scale": jnp.zeros(6)},
    }
    assert partition(params, Sizes(), ((r"norm/.*", ("fsdp",)),)) == {
        "embedding/tokens": PartitionSpec(None, "fsdp"),
        "embedding/positions": PartitionSpec(None, None),
        "layers/0/mlp/down/kernel": PartitionSpec("tensor", "fsdp"),
        "norm/scale": PartitionSpec("fsdp"),
    }


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ((r"norm/.*", ("model",)), "mesh.rules: norm/scale: no axis 'model'; there are"),
        ((r"norm/.*", (None, "data")), "mesh.rules: norm/scale has 1 dimensions, not 2"),
        ((r"nothing", ()), "mesh.rules: the rule 'nothing' matches none of 1 paths"),
    ],
)
def test_mistakes_in_rules_are_told(rule, message):
    with pytest.raises(UserError, match=f"^{message}"):
        partition({"norm": {"scale": jnp.zeros(6)}}, Sizes(), (rule,))


def test_rows_that_cannot_be_dealt_are_refused():
    message = "a batch of 6 rows cannot be dealt over data x fsdp = 4 devices; change data.rows"
    with pytest.raises(UserError, match=f"^{message}"):
        make_placer(Sizes(), 6)
