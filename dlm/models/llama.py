"""Llama (Touvron et al. 2023): rotary positions, RMSNorm, SwiGLU, grouped key/value heads."""

from __future__ import annotations

from dlm.models.config import ModelConfig

# The parts of the family are the defaults of ModelConfig.
PRESETS = {
    "llama2-7b": ModelConfig(
        vocab_size=32000,
        num_layers=32,
        width=4096,
        num_heads=32,
        ffn_width=11008,
        max_length=4096,
        tied=False,
    ),
    "smollm2-135m": ModelConfig(
        vocab_size=49152,
        num_layers=30,
        width=576,
        num_heads=9,
        num_kv_heads=3,
        ffn_width=1536,
        max_length=8192,
        rope_theta=100000.0,
        tied=True,
    ),
}
