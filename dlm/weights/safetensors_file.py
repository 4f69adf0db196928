"""Safetensors files: a JSON header and raw numbers.

Read here rather than by the library of that name, which maps files into memory: mapped pages count
as the process's own, and a file cut short is refused there without saying which tensor lacks what.
Source of the format: https://huggingface.co/docs/safetensors, "Format".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from dlm.core.errors import UserError
from dlm.weights.tensors import Tensor, narrowed

DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_LARGEST_HEADER = 100_000_000  # bytes, as the format has it


def read_header(path: Path) -> dict[str, Tensor]:
    """Reads which tensors a file holds; their numbers follow on demand.

    Raises:
      UserError: the file is not of this format, holds a tensor that is no float of 16 or 32 bits,
        or ends before a tensor does.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LARGEST_HEADER):
            raise UserError(f"{path}: no safetensors file: its header would be {length} bytes")
        text = file.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        return {
            name: _tensor(path, name, entry, 8 + length, size) for name, entry in header.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: its header is damaged: {error}") from None


def _tensor(path: Path, name: str, entry: dict[str, Any], start: int, size: int) -> Tensor:
    dtype = DTYPES.get(entry["dtype"])
    if dtype is None:
        raise UserError(
            f"{path}: {name!r} is {entry['dtype']}, wanted {', '.join(DTYPES)}; "
            "convert the checkpoint to one of these"
        )
    shape, (begin, end) = tuple(map(int, entry["shape"])), map(int, entry["data_offsets"])
    count = math.prod(shape)
    if begin < 0 or min(shape, default=1) < 0 or end - begin != count * dtype.itemsize:
        raise ValueError(f"{name!r} {shape} of {entry['dtype']} cannot lie at {begin} to {end}")
    if start + end > size:
        raise UserError(
            f"{path}: {name!r} is cut short: it ends at byte {start + end}, the file at {size}"
        )

    def read() -> np.ndarray:
        raw = np.fromfile(path, dtype, count, offset=start + begin)
        return raw.astype(np.float32, copy=False).reshape(shape)

    return Tensor(shape, read)


def write(path: Path, tensors: Mapping[str, Tensor], dtype: np.dtype) -> None:
    """Writes a file whose tensors are read one after the other, so that one is held at a time."""
    spelled = next(name for name, known in DTYPES.items() if known == dtype)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # the transformers library asks it
    at = 0
    for name, tensor in tensors.items():
        end = at + math.prod(tensor.shape) * dtype.itemsize
        header[name] = {"dtype": spelled, "shape": tensor.shape, "data_offsets": (at, end)}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors.items():
            narrowed(name, tensor.read(), dtype).tofile(file)
