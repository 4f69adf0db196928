"""Rotary frequencies and their scaling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dlm.core.errors import UserError
from dlm.models.config import ModelConfig, RopeScaling
from dlm.models.rope import divisors, frequencies

CONFIG = ModelConfig(width=8, num_heads=1, rope_theta=10000.0)


def test_without_scaling_each_pair_is_slower_by_the_same_factor():
    np.testing.assert_allclose(frequencies(CONFIG), [1, 0.1, 0.01, 0.001], rtol=1e-6)


def test_linear_divides_all():
    scaled = replace(CONFIG, rope_scaling=RopeScaling("linear", 4.0))
    np.testing.assert_allclose(frequencies(scaled), frequencies(CONFIG) / 4, rtol=1e-6)


def test_llama3_keeps_the_fast_and_divides_the_slow():
    """Turns over 628.3 positions: 100, 10, 1, 0.1; kept above 4, divided by 8 below 1."""
    scaling = RopeScaling("llama3", 8.0, 1.0, 4.0, round(200 * np.pi))
    scaled = replace(CONFIG, rope_scaling=scaling)
    np.testing.assert_allclose(divisors(scaled), [1, 1, 8, 8], rtol=1e-3)
    between = replace(CONFIG, rope_scaling=replace(scaling, high_frequency=19.0))
    # 10 turns are half way from 1 to 19: the mean of f and f / 8
    np.testing.assert_allclose(divisors(between)[1], 1 / (0.5 + 0.5 / 8), rtol=1e-3)


@pytest.mark.parametrize("kind", ["linear", "llama3"])
def test_scaling_equals_the_transformers_library(kind):
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = {"rope_type": kind, "factor": 32.0, "rope_theta": 500000.0}
    if kind == "llama3":
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
        rope["original_max_position_embeddings"] = 8192
    theirs = transformers.LlamaConfig(hidden_size=2048, num_attention_heads=32)
    theirs.rope_parameters = rope
    wanted, _ = ROPE_INIT_FUNCTIONS[kind](theirs, "cpu")
    ours = ModelConfig(
        width=2048, num_heads=32, rope_theta=5e5, rope_scaling=RopeScaling(kind, 32.0)
    )
    np.testing.assert_allclose(frequencies(ours), wanted.numpy(), rtol=1e-6)


def test_impossible_scalings_are_refused():
    with pytest.raises(UserError, match=r"rope_scaling.factor=0.5 must be at least 1"):
        RopeScaling("linear", 0.5)
    with pytest.raises(UserError, match=r"low_frequency=4.0 must be above 0 and below high_freq"):
        RopeScaling("llama3", 2.0, 4.0, 4.0)
