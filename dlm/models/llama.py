"""Llama (Touvron et al. 2023): rotary positions, RMSNorm, SwiGLU, grouped key/value heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dlm.core.errors import UserError
from dlm.models.config import ModelConfig, RopeScaling
from dlm.models.rope import divisors
from dlm.models.table import Row
from dlm.models.translate import only, take

NAME = "llama"
PARTS: dict[str, Any] = {"position": "rotary", "norm": "rms", "mlp": "swiglu", "bias": False}
FREQUENCIES = "rope_freqs.weight"  # GGUF: the divisors of a scaling of kind "llama3"


def _shape(
    layers: int, width: int, heads: int, kv_heads: int, ffn: int, **others: Any
) -> ModelConfig:
    return ModelConfig(
        num_layers=layers,
        width=width,
        num_heads=heads,
        num_kv_heads=kv_heads,
        ffn_width=ffn,
        **{"tied": False, **others, **PARTS},
    )


_LLAMA2: dict[str, Any] = {"vocab_size": 32000, "max_length": 4096}
_LLAMA3: dict[str, Any] = {"vocab_size": 128256, "max_length": 8192, "rope_theta": 500000.0}
_LLAMA31: dict[str, Any] = {
    **_LLAMA3,
    "max_length": 131072,
    "rope_scaling": RopeScaling("llama3", 8.0),
}
_LLAMA32: dict[str, Any] = {**_LLAMA31, "tied": True, "rope_scaling": RopeScaling("llama3", 32.0)}
_SMOLLM2: dict[str, Any] = {
    "vocab_size": 49152,
    "max_length": 8192,
    "rope_theta": 100000.0,
    "tied": True,
}

PRESETS = {
    "llama2-7b": _shape(32, 4096, 32, 32, 11008, **_LLAMA2),
    "llama2-13b": _shape(40, 5120, 40, 40, 13824, **_LLAMA2),
    "llama2-70b": _shape(80, 8192, 64, 8, 28672, **_LLAMA2),
    "llama3-8b": _shape(32, 4096, 32, 8, 14336, **_LLAMA3),
    "llama3-70b": _shape(80, 8192, 64, 8, 28672, **_LLAMA3),
    "llama3.1-8b": _shape(32, 4096, 32, 8, 14336, **_LLAMA31),
    "llama3.1-70b": _shape(80, 8192, 64, 8, 28672, **_LLAMA31),
    "llama3.1-405b": _shape(126, 16384, 128, 8, 53248, **_LLAMA31),
    "llama3.2-1b": _shape(16, 2048, 32, 8, 8192, **_LLAMA32),
    "llama3.2-3b": _shape(28, 3072, 24, 8, 8192, **_LLAMA32),
    "smollm2-135m": _shape(30, 576, 9, 3, 1536, **_SMOLLM2),
    "smollm2-360m": _shape(32, 960, 15, 5, 2560, **_SMOLLM2),
    "smollm2-1.7b": _shape(24, 2048, 32, 32, 8192, **{**_SMOLLM2, "rope_theta": 130000.0}),
}

# Older files hold the rotary frequencies, which the config gives.
PREFIX = "model."
BUFFERS = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)
TRANSPOSED = {"huggingface": True, "gguf": True}


def _layer(ours: str, theirs: str, gguf: str, inputs: int = 0, rotary: bool = False) -> Row:
    return Row(
        f"layers/{{i}}/{ours}",
        f"model.layers.{{i}}.{theirs}.weight",
        f"blk.{{i}}.{gguf}.weight",
        inputs=inputs,
        projection=inputs > 0,
        rotary=rotary,
    )


TABLE = (
    Row("embedding/tokens", "model.embed_tokens.weight", "token_embd.weight", inputs=1),
    _layer("norm_attention/scale", "input_layernorm", "attn_norm"),
    _layer("attention/query/kernel", "self_attn.q_proj", "attn_q", inputs=1, rotary=True),
    _layer("attention/key/kernel", "self_attn.k_proj", "attn_k", inputs=1, rotary=True),
    _layer("attention/value/kernel", "self_attn.v_proj", "attn_v", inputs=1),
    _layer("attention/output/kernel", "self_attn.o_proj", "attn_output", inputs=2),
    _layer("norm_mlp/scale", "post_attention_layernorm", "ffn_norm"),
    _layer("mlp/gate/kernel", "mlp.gate_proj", "ffn_gate", inputs=1),
    _layer("mlp/up/kernel", "mlp.up_proj", "ffn_up", inputs=1),
    _layer("mlp/down/kernel", "mlp.down_proj", "ffn_down", inputs=1),
    Row("norm/scale", "model.norm.weight", "output_norm.weight"),
    Row("head/kernel", "lm_head.weight", "output.weight", inputs=1),
)


def from_huggingface(config: Mapping[str, Any]) -> ModelConfig:
    """Translates a `config.json`.

    Raises:
      UserError: a field is missing, of another type, or asks for what we do not have.
    """
    only(config, "hidden_act", "silu")
    only(config, "attention_bias", False)
    only(config, "mlp_bias", False)
    only(config, "sliding_window", None)
    only(config, "partial_rotary_factor", None, 1, 1.0)
    # Version 5 of the transformers library joins base and scaling in one field.
    rope = take(config, "rope_parameters", dict, None) or take(config, "rope_scaling", dict, {})
    theta = take(config, "rope_theta", float, take(rope, "rope_theta", float, 10000.0))
    return ModelConfig(
        vocab_size=take(config, "vocab_size", int),
        num_layers=take(config, "num_hidden_layers", int),
        width=take(config, "hidden_size", int),
        num_heads=take(config, "num_attention_heads", int),
        num_kv_heads=take(config, "num_key_value_heads", int, None),
        head_width=take(config, "head_dim", int, None),
        ffn_width=take(config, "intermediate_size", int),
        max_length=take(config, "max_position_embeddings", int),
        tied=take(config, "tie_word_embeddings", bool, False),
        norm_epsilon=take(config, "rms_norm_eps", float, 1e-6),
        rope_theta=theta,
        rope_scaling=_scaling(rope),
        **PARTS,
    )


def _scaling(rope: Mapping[str, Any]) -> RopeScaling:
    kind = rope.get("rope_type", rope.get("type", "default"))
    only({"rope_type": kind}, "rope_type", "default", "linear", "llama3")
    if kind == "default":
        return RopeScaling()
    factor = take(rope, "factor", float)
    if kind == "linear":
        return RopeScaling("linear", factor)
    return RopeScaling(
        "llama3",
        factor,
        take(rope, "low_freq_factor", float),
        take(rope, "high_freq_factor", float),
        take(rope, "original_max_position_embeddings", int),
    )


def to_huggingface(config: ModelConfig) -> dict[str, Any]:
    """Inverts `from_huggingface`; rotary fields as every version of the library reads them."""
    scaling: dict[str, Any] | None = None
    if config.rope_scaling.kind != "none":
        scaling = {"rope_type": config.rope_scaling.kind, "factor": config.rope_scaling.factor}
    if scaling and config.rope_scaling.kind == "llama3":
        scaling["low_freq_factor"] = config.rope_scaling.low_frequency
        scaling["high_freq_factor"] = config.rope_scaling.high_frequency
        scaling["original_max_position_embeddings"] = config.rope_scaling.original_length
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": NAME,
        "vocab_size": config.vocab_size,
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.width,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "intermediate_size": config.ffn_size,
        "max_position_embeddings": config.max_length,
        "tie_word_embeddings": config.tied,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
    }


def from_gguf(metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> ModelConfig:
    """Translates the metadata of a GGUF file, given the shapes of its tensors.

    A scaling of kind "llama3" stands there as a tensor, see `scaling_of_divisors`.

    Raises:
      UserError: a field is missing, of another type, or asks for what we do not have.
    """
    heads = take(metadata, "llama.attention.head_count", int)
    width = take(metadata, "llama.embedding_length", int)
    head_width = take(metadata, "llama.attention.key_length", int, width // heads)
    only(metadata, "llama.attention.value_length", head_width)
    only(metadata, "llama.rope.dimension_count", head_width)
    only(metadata, "llama.rope.scaling.type", "none", "linear")
    only(metadata, "llama.expert_count", 0)
    linear = metadata.get("llama.rope.scaling.type") == "linear"
    return ModelConfig(
        vocab_size=shapes["token_embd.weight"][0],
        num_layers=take(metadata, "llama.block_count", int),
        width=width,
        num_heads=heads,
        num_kv_heads=take(metadata, "llama.attention.head_count_kv", int, None),
        head_width=head_width,
        ffn_width=take(metadata, "llama.feed_forward_length", int),
        max_length=take(metadata, "llama.context_length", int),
        tied="output.weight" not in shapes,
        norm_epsilon=take(metadata, "llama.attention.layer_norm_rms_epsilon", float),
        rope_theta=take(metadata, "llama.rope.freq_base", float, 10000.0),
        rope_scaling=RopeScaling("linear", take(metadata, "llama.rope.scaling.factor", float))
        if linear
        else RopeScaling(),
        **PARTS,
    )


def to_gguf(config: ModelConfig) -> dict[str, Any]:
    """Inverts `from_gguf`."""
    fields: dict[str, Any] = {
        "llama.block_count": config.num_layers,
        "llama.embedding_length": config.width,
        "llama.attention.head_count": config.num_heads,
        "llama.attention.head_count_kv": config.kv_heads,
        "llama.attention.key_length": config.head_size,
        "llama.attention.value_length": config.head_size,
        "llama.rope.dimension_count": config.head_size,
        "llama.feed_forward_length": config.ffn_size,
        "llama.context_length": config.max_length,
        "llama.attention.layer_norm_rms_epsilon": config.norm_epsilon,
        "llama.rope.freq_base": config.rope_theta,
        "llama.vocab_size": config.vocab_size,
    }
    if config.rope_scaling.kind == "linear":
        fields["llama.rope.scaling.type"] = "linear"
        fields["llama.rope.scaling.factor"] = config.rope_scaling.factor
    return fields


def with_divisors(config: ModelConfig, tensor: np.ndarray) -> ModelConfig:
    """Adds the scaling of kind "llama3" whose divisors a GGUF file holds as a tensor [H/2].

    Only the factor can be read off it (the largest divisor); the other three numbers are those of
    every published model, and the tensor must be what the four give.

    Raises:
      UserError: it is not.
    """
    scaled = replace(config, rope_scaling=RopeScaling("llama3", float(max(tensor, default=0.0))))
    wanted = divisors(scaled)
    if tensor.shape != wanted.shape or not np.allclose(tensor, wanted, rtol=1e-5):
        raise UserError(
            f"{FREQUENCIES} {tensor.shape} is not a scaling of kind 'llama3' with the published "
            f"numbers {scaled.rope_scaling}; export the model from its Hugging Face form instead"
        )
    return scaled
