"""Kernels held by output are the same model."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from model_cases import FAMILIES, init, logits_of, pack, random_tokens

from dlm.core.paths import flatten
from dlm.models.by_output import FEW_TOKENS, by_output_product, held_by_output
from dlm.models.decoder import Model


@pytest.mark.parametrize("length", [1, 7, 40])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_reads_either(family: str, length: int):
    """One token, a few and many: the same numbers, heads of several axes and biases included."""
    model = Model(replace(FAMILIES[family], head_width=10))
    params = jax.tree.map(lambda leaf: leaf + 0.01, init(model, 2))  # biases count
    segments, positions = pack([[length]], length)
    row = random_tokens((1, length)), segments, positions
    held = held_by_output(params, "float32")
    np.testing.assert_allclose(
        logits_of(model, held, *row), logits_of(model, params, *row), atol=2e-6
    )


def test_only_kernels_of_the_layers_are_turned():
    """Each once, in the dtype of the products; what is not turned is shared, not copied."""
    params = init(Model(FAMILIES["llama"]), 0)
    before, after = flatten(params), flatten(held_by_output(params, "bfloat16"))
    query = after["layers/1/attention/query/by_output"]
    assert query.dtype == "bfloat16"
    assert query.shape == (32, 32)
    assert (
        after["layers/0/mlp/down/by_output"].shape == before["layers/0/mlp/down/kernel"].shape[::-1]
    )
    turned = {path.replace("by_output", "kernel") for path in after if "by_output" in path}
    assert turned == {path for path in before if "layers" in path and "kernel" in path}
    assert all(after[path] is before[path] for path in before.keys() - turned)


@pytest.mark.parametrize("rows", [1, 2, FEW_TOKENS, FEW_TOKENS + 1])
def test_product_is_that_with_the_transpose(rows: int):
    random = np.random.default_rng(0)
    x, matrix = random.normal(size=(rows, 5)), random.normal(size=(7, 5))
    out = by_output_product(np.float32(x), np.float32(matrix), "float32")
    np.testing.assert_allclose(out, x @ matrix.T, atol=1e-5)
