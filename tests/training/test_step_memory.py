"""Memory by part."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from dlm.core.errors import UserError
from dlm.data.batch import empty_batch
from dlm.models.devices import AXES
from dlm.training.mesh import shaped
from dlm.training.plan import (
    Memory,
    check_room,
    compile_step,
    memory,
    on_device,
    topology_devices,
)
from dlm.training.step import State


def lying(mesh: AbstractMesh, *axes: str | None) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(*axes))


def test_a_device_holds_its_part_of_what_is_cut():
    """Of 8 devices each has a quarter of a leaf cut over fsdp and tensor, and all of the rest."""
    mesh = AbstractMesh((2, 2, 2), AXES, axis_types=(AxisType.Auto,) * 3)
    tree = {"a": jnp.zeros((4, 6)), "b": jnp.zeros(5), "c": jnp.zeros((), jnp.int32)}
    where = {"a": lying(mesh, "fsdp", "tensor"), "b": lying(mesh), "c": lying(mesh)}
    assert on_device(shaped(tree, where)) == 4 * (2 * 3 + 5 + 1)


def test_the_parts_add_up_to_what_is_compiled():
    """A step of one trained and one frozen leaf, with a momentum of the trained one."""
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    params = {"a": {"w": jnp.zeros((64, 64))}, "b": {"w": jnp.zeros((32, 32))}}
    scalar = jnp.zeros((), jnp.int32)
    state = State(scalar, scalar, params, {"a": {"w": jnp.zeros((64, 64))}}, scalar)
    shapes = shaped(state, jax.tree.map(lambda _: place, state))

    def step(state: State, batch: jax.Array, frozen: jax.Array) -> State:
        grads = jnp.sin(batch.T @ (batch + frozen))
        momentum = state.opt_state["a"]["w"] + grads @ grads
        params = {**state.params, "a": {"w": state.params["a"]["w"] - momentum}}
        return state._replace(params=params, opt_state={"a": {"w": momentum}})

    batch = jax.ShapeDtypeStruct((128, 64), jnp.float32)
    frozen = jax.ShapeDtypeStruct((1, 64), jnp.float32, sharding=place)
    compiled = jax.jit(step, donate_argnums=0).lower(shapes, batch, frozen).compile()
    found = memory(compiled, shapes, {"a/w": True, "b/w": False}, frozen)
    assert found.parameters == 4 * (64 * 64 + 32 * 32)
    assert found.frozen == 4 * 64
    assert found.moments == found.gradients == 4 * 64 * 64
    assert found.temporaries == compiled.memory_analysis().temp_size_in_bytes > 0
    assert found.other >= 4 * 128 * 64
    parts = found.parameters + found.frozen + found.moments + found.temporaries + found.other
    assert found.total == parts < parts + found.gradients
    assert found.other < 5 * 128 * 64  # the donated state is not counted twice


def test_a_step_is_traced_as_on_the_platform_it_is_for(monkeypatch):
    """What asks for the backend while it is traced hears of the devices of the mesh; then no more.

    The mesh's devices say that they are TPUs; the compiler is a stand-in that hands back the text.
    """
    device = jax.devices()[0]
    seen = []

    class Step:
        def lower(self, state: object, batch: object, frozen: object) -> Step:
            seen.append((jax.default_backend(), jax.config.jax_enable_compilation_cache))
            return self

        def compile(self) -> str:
            return "compiled"

    mesh = jax.sharding.Mesh(np.array([device]).reshape(1, 1, 1), AXES)
    cached = jax.config.jax_enable_compilation_cache
    assert compile_step(Step(), None, empty_batch(1, 2, 1), mesh) == "compiled"
    with monkeypatch.context() as patched:
        patched.setattr("dlm.training.plan.platform_of", lambda mesh: "tpu")
        compile_step(Step(), None, empty_batch(1, 2, 1), mesh)
    assert seen == [("cpu", cached), ("tpu", False)]
    assert (jax.default_backend(), jax.config.jax_enable_compilation_cache) == ("cpu", cached)


@pytest.mark.parametrize(
    ("platform", "stats", "said"),
    [
        ("tpu", None, "it fits"),
        ("cpu", None, "whether it fits is up to what else runs here"),
        ("gpu", {"bytes_limit": 2_000_000}, "it fits into 2 MB"),
        ("gpu", {"bytes_limit": 1_999_999}, None),
    ],
)
def test_room_is_what_the_device_says(platform, stats, said):
    class Device:
        device_kind = "chip"

        def memory_stats(self) -> dict | None:
            return stats

    Device.platform = platform
    found = Memory(*[0] * 6, total=2_000_000)
    if said:
        assert check_room(found, Device()) == said
    else:
        with pytest.raises(UserError, match=r"memory of a chip: 2 MB of 2 MB; lower data\.rows"):
            check_room(found, Device())


def test_an_unknown_compiler_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="libtpu"):
        topology_devices("v5e:2x2")
