"""The frequencies of rotary positions, and how they are lowered to read further."""

from __future__ import annotations

import numpy as np

from dlm.models.config import ModelConfig


def frequencies(config: ModelConfig) -> np.ndarray:
    """The angle, in radians a position, by which each pair of a head turns.

        f_i = theta^(-2 i / H) / divisor_i,   i = 0 .. H/2 - 1

    Returns:
      [H/2] float32, computed in float64; `divisors` gives the divisor.
    """
    return (_unscaled(config) / divisors(config)).astype(np.float32)


def divisors(config: ModelConfig) -> np.ndarray:
    """What each unscaled frequency is divided by, [H/2] float64.

    "linear": `factor` (Chen et al. 2023, arXiv:2306.15595). "llama3": a frequency that makes
    n = original_length * f / (2 pi) turns over the first training's length keeps the share

        s = clip((n - low) / (high - low), 0, 1),   1 / divisor = s + (1 - s) / factor

    Source: the released code of Llama 3.1 (Dubey et al. 2024, arXiv:2407.21783, section 3.2).
    """
    unscaled, scaling = _unscaled(config), config.rope_scaling
    if scaling.kind == "none":
        return np.ones_like(unscaled)
    if scaling.kind == "linear":
        return np.full_like(unscaled, scaling.factor)
    low, high = scaling.low_frequency, scaling.high_frequency
    turns = scaling.original_length * unscaled / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return 1 / (kept + (1 - kept) / scaling.factor)


def _unscaled(config: ModelConfig) -> np.ndarray:
    size = config.head_size
    return config.rope_theta ** (-np.arange(0, size, 2, dtype=np.float64) / size)
