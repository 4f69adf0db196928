"""The weight table: one leaf of ours, a part of a tensor of theirs, and back."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_cases import FAMILIES

from dlm.core.errors import UserError
from dlm.core.paths import flatten
from dlm.models import families
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model
from dlm.models.table import Weight, join


@given(
    inputs=st.integers(0, 2),
    transposed=st.booleans(),
    count=st.integers(1, 3),
    adjacent=st.booleans(),
)
def test_a_joined_tensor_gives_its_leaves_back(inputs, transposed, count, adjacent):
    """Round trip: read inverts join, for every transform, and the shape is as said."""
    shape = (3, 5, 4)
    rng = np.random.default_rng(0)
    leaves = [rng.normal(size=shape) for _ in range(count)]
    weights = [
        Weight(str(i), "theirs", inputs, transposed and inputs > 0, (i, count), adjacent)
        for i in range(count)
    ]
    theirs = join(weights, leaves)
    assert theirs.shape == weights[0].their_shape(shape)
    for weight, leaf in zip(weights, leaves, strict=True):
        np.testing.assert_array_equal(weight.read(theirs, shape), leaf)


def test_each_transform_by_hand():
    """A kernel [D=1, N=1, H=4], whose rotary pairs are (0, 2) and (1, 3) of ours."""
    theirs = np.array([[0], [2], [1], [3]])  # [O, I], pairs side by side
    weight = Weight("ours", "theirs", 1, transposed=True, adjacent=True)
    np.testing.assert_array_equal(weight.read(theirs, (1, 1, 4)), [[[0, 1, 2, 3]]])
    fused = np.arange(12).reshape(2, 6)
    value = Weight("ours", "theirs", 1, part=(2, 3))
    np.testing.assert_array_equal(value.read(fused, (2, 2)), [[4, 5], [10, 11]])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("layout", ["huggingface", "gguf"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_leaf_stands_in_the_table_once(family, layout, tied):
    """And every tensor is made of whole leaves."""
    config = replace(FAMILIES[family], tied=tied)
    shapes = flatten(jax.eval_shape(Model(config).init, jax.random.key(0)))
    table = families.weight_table(config, layout)
    assert sorted(weight.path for weight in table) == sorted(shapes)
    parts: dict[str, list] = {}
    for weight in table:
        parts.setdefault(weight.name, []).append(weight.part)
    for found in parts.values():
        assert found == [(i, len(found)) for i in range(len(found))]


def test_a_model_of_mixed_parts_is_no_family():
    with pytest.raises(UserError, match=r"no family .* position='rotary', norm='layer'"):
        families.family_of(ModelConfig(norm="layer"))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("llama2-7b", 6_738_415_616),
        ("llama2-13b", 13_015_864_320),
        ("llama2-70b", 68_976_648_192),
        ("llama3-8b", 8_030_261_248),
        ("llama3-70b", 70_553_706_496),
        ("llama3.1-8b", 8_030_261_248),
        ("llama3.1-70b", 70_553_706_496),
        ("llama3.1-405b", 405_853_388_800),
        ("llama3.2-1b", 1_235_814_400),
        ("llama3.2-3b", 3_212_749_824),
        ("smollm2-135m", 134_515_008),
        ("smollm2-360m", 361_821_120),
        ("smollm2-1.7b", 1_711_376_384),
    ],
)
def test_presets_have_the_published_number_of_parameters(name, size):
    """GPT-2's by 12 d^2 + 13 d a block (Radford et al. 2019); Llama's as their files count them."""
    config = families.preset(name)
    shapes = jax.eval_shape(Model(replace(config, num_layers=1)).init, jax.random.key(0))
    sizes = {path: leaf.size for path, leaf in flatten(shapes).items()}
    layer = sum(count for path, count in sizes.items() if path.startswith("layers/"))
    assert sum(sizes.values()) + (config.num_layers - 1) * layer == size


def test_every_preset_is_tested():
    tested = test_presets_have_the_published_number_of_parameters.pytestmark[0].args[1]
    assert {name for name, _ in tested} == families.PRESETS.keys()
