"""GPT-2 (Radford et al. 2019): learned positions, LayerNorm, GELU, biases, tied head."""

from __future__ import annotations

from dlm.models.config import ModelConfig


def shape(num_layers: int, width: int, num_heads: int) -> ModelConfig:
    """A GPT-2 of the given size."""
    return ModelConfig(
        vocab_size=50257,
        num_layers=num_layers,
        width=width,
        num_heads=num_heads,
        max_length=1024,
        position="learned",
        norm="layer",
        mlp="gelu",
        bias=True,
        tied=True,
        norm_epsilon=1e-5,
    )


PRESETS = {
    "gpt2": shape(12, 768, 12),
    "gpt2-medium": shape(24, 1024, 16),
    "gpt2-large": shape(36, 1280, 20),
    "gpt2-xl": shape(48, 1600, 25),
}
