"""Files of llama2.c, version 0: seven numbers and the float32 weights of a small Llama.

Source of the format: karpathy/llama2.c, `run.c`, `read_checkpoint`.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from dlm.core.errors import UserError
from dlm.models import llama
from dlm.models.config import ModelConfig
from dlm.weights.tensors import Tensor

_HEADER = 7 * 4  # bytes


def read(path: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Reads the header; tensors get the names of the GGUF column, whose order of rows they have.

    Raises:
      UserError: the file's length is not what its header asks for.
    """
    size = path.stat().st_size
    if size < _HEADER:
        raise UserError(f"{path}: {size} bytes hold no llama2.c header of {_HEADER}")
    config = _config(path)
    heads, kv_heads = config.num_heads, config.kv_heads
    width, ffn, head = config.width, config.ffn_size, config.head_size
    stacked = {
        "attn_norm": (width,),
        "attn_q": (heads * head, width),
        "attn_k": (kv_heads * head, width),
        "attn_v": (kv_heads * head, width),
        "attn_output": (width, heads * head),
        "ffn_norm": (width,),
        "ffn_gate": (ffn, width),
        "ffn_down": (width, ffn),
        "ffn_up": (ffn, width),
    }
    layout: list[tuple[str, tuple[int, ...]]] = [("token_embd.weight", (config.vocab_size, width))]
    for name, shape in stacked.items():
        layout += [(f"blk.{i}.{name}.weight", shape) for i in range(config.num_layers)]
    layout += [("output_norm.weight", (width,)), ("", (config.max_length, head))]  # rotary tables
    layout += [] if config.tied else [("output.weight", (config.vocab_size, width))]

    tensors, at = {}, _HEADER
    for name, shape in layout:
        tensors[name] = _tensor(path, shape, at)
        at += 4 * math.prod(shape)
    if at != size:
        raise UserError(f"{path}: has {size} bytes, as a llama2.c file its header wants {at}")
    del tensors[""]
    return config, tensors


def _config(path: Path) -> ModelConfig:
    numbers = np.fromfile(path, "<i4", 7).tolist()
    width, ffn, layers, heads, kv_heads, vocabulary, length = numbers
    if min(*numbers[:5], abs(vocabulary), length) < 1:
        raise UserError(f"{path}: no llama2.c file: its header is {numbers}")
    return ModelConfig(
        vocab_size=abs(vocabulary),
        num_layers=layers,
        width=width,
        num_heads=heads,
        num_kv_heads=kv_heads,
        ffn_width=ffn,
        max_length=length,
        tied=vocabulary > 0,  # as the format says it
        **llama.PARTS,
    )


def _tensor(path: Path, shape: tuple[int, ...], start: int) -> Tensor:
    def read() -> np.ndarray:
        return np.fromfile(path, "<f4", math.prod(shape), offset=start).reshape(shape)

    return Tensor(shape, read)
