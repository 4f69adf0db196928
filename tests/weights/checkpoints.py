"""Small models with random weights: ours, and those of the transformers library."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from dlm.models import families
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model
from dlm.weights.sources import open_source

V = 61
GPT2 = {"vocab_size": V, "n_layer": 2, "n_embd": 32, "n_head": 4, "n_positions": 160}
LLAMA = {
    "vocab_size": V,
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 160,
}
LINEAR = {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {}),
    "gpt2-untied": ("gpt2", {"tie_word_embeddings": False, "layer_norm_epsilon": 1e-2}),
    "llama": ("llama", {}),
    "llama-tied": ("llama", {"tie_word_embeddings": True, "rms_norm_eps": 1e-2}),
    "llama-one-kv-head": ("llama", {"num_key_value_heads": 1, "intermediate_size": 40}),
    "llama-head-width": ("llama", {"head_dim": 12}),
    "llama-linear": ("llama", {"rope_parameters": LINEAR}),
    "llama-llama3": ("llama", {"rope_parameters": LLAMA3}),
}


def reference(family: str, **changes: Any) -> Any:
    """A model of the transformers library, float32, attention by the equation.

    Every parameter is random, norms and biases too, so that none can be left out unseen.
    """
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    ids = {"bos_token_id": None, "eos_token_id": None, "attn_implementation": "eager"}
    if family == "gpt2":
        config = transformers.GPT2Config(**{**GPT2, **ids, **changes})
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(**{**LLAMA, **ids, **changes})
        model = transformers.LlamaForCausalLM(config)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            is_scale = parameter.ndim == 1 and name.endswith("weight")
            deviation = 0.2 * min(1.0, (32 / parameter.shape[-1]) ** 0.5)
            value = deviation * rng.normal(size=tuple(parameter.shape)) + is_scale
            parameter.copy_(torch.tensor(value, dtype=torch.float32))
    return model.eval()


def saved(model: Any, folder: Path, **how: Any) -> Path:
    """Writes a reference model as its library does; returns the folder."""
    model.save_pretrained(folder, **how)
    return folder


SHAPES = {
    "gpt2": replace(
        families.preset("gpt2"),
        vocab_size=61,
        num_layers=2,
        width=32,
        num_heads=4,
        ffn_width=120,
        max_length=40,
    ),
    "llama": replace(
        families.preset("llama2-7b"),
        vocab_size=61,
        num_layers=2,
        width=32,
        num_heads=4,
        num_kv_heads=2,
        head_width=8,
        ffn_width=56,
        max_length=40,
    ),
}


def random_params(config: ModelConfig, seed: int = 0) -> dict:
    """Numbers that float16 and bfloat16 hold exactly, so that a narrower file loses nothing."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(Model(config).init, jax.random.key(0))
    return jax.tree.map(
        lambda leaf: (rng.integers(-100, 100, leaf.shape) / 64).astype(np.float32), shapes
    )


def same(params: Any, other: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, params, other)


def load(path: Path) -> dict:
    source = open_source(str(path))
    return source.load(Model(source.config))
