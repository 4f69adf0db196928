"""GPT-2 (Radford et al. 2019): learned positions, LayerNorm, GELU, biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlm.core.errors import UserError
from dlm.models.config import ModelConfig
from dlm.models.table import Row
from dlm.models.translate import only, take

NAME = "gpt2"
PARTS: dict[str, Any] = {"position": "learned", "norm": "layer", "mlp": "gelu", "bias": True}


def shape(num_layers: int, width: int, num_heads: int) -> ModelConfig:
    """A GPT-2 of the given size."""
    return ModelConfig(
        vocab_size=50257,
        num_layers=num_layers,
        width=width,
        num_heads=num_heads,
        max_length=1024,
        tied=True,
        norm_epsilon=1e-5,
        **PARTS,
    )


PRESETS = {
    "gpt2": shape(12, 768, 12),
    "gpt2-medium": shape(24, 1024, 16),
    "gpt2-large": shape(36, 1280, 20),
    "gpt2-xl": shape(48, 1600, 25),
}

# Published files leave the prefix out and hold the causal mask, which is a constant.
PREFIX = "transformer."
BUFFERS = (r"transformer\.h\.\d+\.attn\.(bias|masked_bias)",)
TRANSPOSED = {"huggingface": False, "gguf": True}

_OURS, _THEIRS, _GGUF = "layers/{i}/", "transformer.h.{i}.", "blk.{i}."


def _projection(ours: str, theirs: str, gguf: str, inputs: int = 1, part: int = 0) -> list[Row]:
    """Kernel and bias of a projection; query, key and value lie in one tensor."""
    share = (part, 3 if "qkv" in gguf else 1)
    return [
        Row(
            f"{_OURS}{ours}/kernel",
            f"{_THEIRS}{theirs}.weight",
            f"{_GGUF}{gguf}.weight",
            inputs=inputs,
            projection=True,
            part=share,
        ),
        Row(f"{_OURS}{ours}/bias", f"{_THEIRS}{theirs}.bias", f"{_GGUF}{gguf}.bias", part=share),
    ]


def _norm(ours: str, theirs: str, gguf: str) -> list[Row]:
    return [
        Row(f"{ours}/scale", f"{theirs}.weight", f"{gguf}.weight"),
        Row(f"{ours}/bias", f"{theirs}.bias", f"{gguf}.bias"),
    ]


TABLE = (
    Row("embedding/tokens", "transformer.wte.weight", "token_embd.weight", inputs=1),
    Row("embedding/positions", "transformer.wpe.weight", "position_embd.weight", inputs=1),
    *_norm(f"{_OURS}norm_attention", f"{_THEIRS}ln_1", f"{_GGUF}attn_norm"),
    *_projection("attention/query", "attn.c_attn", "attn_qkv", part=0),
    *_projection("attention/key", "attn.c_attn", "attn_qkv", part=1),
    *_projection("attention/value", "attn.c_attn", "attn_qkv", part=2),
    *_projection("attention/output", "attn.c_proj", "attn_output", inputs=2),
    *_norm(f"{_OURS}norm_mlp", f"{_THEIRS}ln_2", f"{_GGUF}ffn_norm"),
    *_projection("mlp/up", "mlp.c_fc", "ffn_up"),
    *_projection("mlp/down", "mlp.c_proj", "ffn_down"),
    *_norm("norm", "transformer.ln_f", "output_norm"),
    Row("head/kernel", "lm_head.weight", "output.weight", inputs=1),
)


def from_huggingface(config: Mapping[str, Any]) -> ModelConfig:
    """Translates a `config.json`. Dropout is not taken over: it belongs to a training.

    Raises:
      UserError: a field is missing, of another type, or asks for what we do not have.
    """
    only(config, "activation_function", "gelu_new", "gelu_pytorch_tanh")  # both the tanh form
    only(config, "scale_attn_weights", True)
    only(config, "scale_attn_by_inverse_layer_idx", False)
    only(config, "add_cross_attention", False)
    width = take(config, "n_embd", int)
    return ModelConfig(
        vocab_size=take(config, "vocab_size", int),
        num_layers=take(config, "n_layer", int),
        width=width,
        num_heads=take(config, "n_head", int),
        ffn_width=take(config, "n_inner", int, 4 * width),
        max_length=take(config, "n_positions", int),
        tied=take(config, "tie_word_embeddings", bool, True),
        norm_epsilon=take(config, "layer_norm_epsilon", float, 1e-5),
        **PARTS,
    )


def to_huggingface(config: ModelConfig) -> dict[str, Any]:
    """Inverts `from_huggingface`.

    Raises:
      UserError: GPT-2 has no such shape.
    """
    _check(config)
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": NAME,
        "vocab_size": config.vocab_size,
        "n_layer": config.num_layers,
        "n_embd": config.width,
        "n_head": config.num_heads,
        "n_inner": config.ffn_size,
        "n_positions": config.max_length,
        "tie_word_embeddings": config.tied,
        "layer_norm_epsilon": config.norm_epsilon,
        "activation_function": "gelu_new",
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": 0.0,
    }


def from_gguf(metadata: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> ModelConfig:
    """Translates the metadata of a GGUF file, given the shapes of its tensors.

    Raises:
      UserError: a field is missing or of another type.
    """
    return ModelConfig(
        vocab_size=shapes["token_embd.weight"][0],
        num_layers=take(metadata, "gpt2.block_count", int),
        width=take(metadata, "gpt2.embedding_length", int),
        num_heads=take(metadata, "gpt2.attention.head_count", int),
        ffn_width=take(metadata, "gpt2.feed_forward_length", int),
        max_length=take(metadata, "gpt2.context_length", int),
        tied="output.weight" not in shapes,
        norm_epsilon=take(metadata, "gpt2.attention.layer_norm_epsilon", float),
        **PARTS,
    )


def to_gguf(config: ModelConfig) -> dict[str, Any]:
    """Inverts `from_gguf`.

    Raises:
      UserError: GPT-2 has no such shape.
    """
    _check(config)
    return {
        "gpt2.block_count": config.num_layers,
        "gpt2.embedding_length": config.width,
        "gpt2.attention.head_count": config.num_heads,
        "gpt2.feed_forward_length": config.ffn_size,
        "gpt2.context_length": config.max_length,
        "gpt2.vocab_size": config.vocab_size,
        "gpt2.attention.layer_norm_epsilon": config.norm_epsilon,
    }


def _check(config: ModelConfig) -> None:
    """GPT-2 has as many key/value heads as heads, which share the width among them."""
    if config.kv_heads != config.num_heads or config.head_size * config.num_heads != config.width:
        raise UserError(
            f"GPT-2 has no grouped heads and none of another width: num_heads={config.num_heads}, "
            f"num_kv_heads={config.kv_heads}, head_width={config.head_size}, width={config.width}"
        )
