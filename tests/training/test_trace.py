"""A compiled program's instructions by the names of our code, and what a trace says of them."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from dlm.training.plan import uncached
from dlm.training.trace import (
    ROOT,
    Operation,
    Row,
    find_traces,
    instructions,
    measured,
    profile,
)

PROGRAM = f"""HloModule jit_step, is_scheduled=true

FileNames
1 "{ROOT}/dlm/training/step.py"
2 "{ROOT}/dlm/models/layers.py"
3 "/elsewhere/optax/_src/transform.py"

FunctionNames
1 "step"
2 "product"
3 "update"

FileLocations
1 {{file_name_id=1 function_name_id=1 line=160 end_line=162 column=30 end_column=9}}
2 {{file_name_id=2 function_name_id=2 line=85 end_line=85 column=6 end_column=26}}
3 {{file_name_id=3 function_name_id=3 line=7 end_line=7 column=6 end_column=26}}

StackFrames
1 {{file_location_id=1 parent_frame_id=1}}
2 {{file_location_id=2 parent_frame_id=2}}
3 {{file_location_id=3 parent_frame_id=2}}
4 {{file_location_id=3 parent_frame_id=1}}

ENTRY %main (p: f32[4]) -> (f32[4], s32[]) {{
  %dot.1 = f32[4,8]{{1,0:T(8,128)}} dot(%a, %b), metadata={{op_name="jit(step)/jvp(Decoder)/layers/0/mlp/dot_general" stack_frame_id=2}}
  %dot.2 = f32[4,8]{{1,0}} fusion(%a, %b), kind=kLoop, metadata={{op_name="jit(step)/jvp(Decoder)/layers/11/mlp/dot_general" stack_frame_id=2}}
  %dot.3 = (f32[4]{{0}}, s32[]) custom-call(%a), metadata={{op_name="jit(step)/transpose(jvp(Decoder))/layers/1/mlp/dot_general" stack_frame_id=2}}
  %while.7 = (s32[], /*index=1*/f32[4]{{0:T(8)}}) while(%t), metadata={{op_name="jit(step)/jvp()/while" stack_frame_id=1}}
  %div.4 = f32[4]{{0}} divide(%a, %b), metadata={{op_name="jit(step)/transpose(jvp(Decoder))/layers/2/mlp/jvp(Decoder)/layers/2/mlp/checkpoint/rematted_computation/jit(silu)/div" stack_frame_id=2}}
  %add.5 = f32[4]{{0}} add(%a, %b), metadata={{op_name="jit(step)/cond/branch_0_fun/add" stack_frame_id=3}}
  %mul.6 = f32[4]{{0}} multiply(%a, %b), metadata={{op_name="jit(step)/cond/branch_0_fun/mul" stack_frame_id=4}}
  ROOT %copy.8.1 = f32[4]{{0}} copy(%a)
}}
"""  # noqa: E501


def test_instructions_are_named_by_our_code():
    assert dict(instructions(PROGRAM)) == {
        "dot.1": Operation("forward dot_general", "layers/*/mlp", "dlm/models/layers.py:85"),
        "dot.2": Operation("forward dot_general", "layers/*/mlp", "dlm/models/layers.py:85"),
        "dot.3": Operation("backward dot_general", "layers/*/mlp", "dlm/models/layers.py:85"),
        "while.7": None,
        "div.4": Operation("again div", "layers/*/mlp", "dlm/models/layers.py:85"),
        "add.5": Operation("add", "", "dlm/training/step.py:160"),
        "mul.6": Operation("mul", "", "transform.py:7"),
        "copy.8.1": Operation("copy", "", ""),
    }


def test_alike_operations_are_added_up_the_longest_first():
    """Both layers in one row, the loop nowhere, a kernel of no instruction under its own name."""
    times = {"dot.1": (2, 1.0), "dot.2": (2, 2.0), "copy.8.1": (1, 4.0), "while.7": (1, 9.0)}
    rows = profile({**times, "memset.3": (5, 0.5)}, PROGRAM)
    assert [row.operation.name for row in rows] == ["copy", "forward dot_general", "memset"]
    assert rows[1] == Row(Operation(*rows[1].operation), 4, 3.0)


@pytest.fixture(scope="module")
def traced(tmp_path_factory) -> tuple[Path, str]:
    """A trace of two runs of a program that makes a product in each of five turns of a loop."""

    def loop(x: jax.Array) -> jax.Array:
        def turn(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return jnp.sin(x @ x), None

        return jax.lax.scan(turn, x, length=5)[0]

    x = jnp.ones((64, 64))
    with uncached():
        compiled = jax.jit(loop).lower(x).compile()
    folder = tmp_path_factory.mktemp("trace")
    compiled(x).block_until_ready()
    with jax.profiler.trace(folder):
        for _ in range(2):
            compiled(x).block_until_ready()
    (path,) = find_traces(folder)
    return path, compiled.as_text()


def test_a_trace_counts_what_ran(traced):
    path, program = traced
    rows = profile(measured(path), program)
    (product,) = [row for row in rows if row.operation.name == "dot_general"]
    assert product.calls == 2 * 5
    assert product.operation.source.startswith("tests/training/test_trace.py:")
    assert product.seconds > 0
    assert not [row for row in rows if row.operation.name == "while"]
