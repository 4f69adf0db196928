"""GGUF files: typed metadata, tensor descriptions, and numbers in many formats.

The header is read here rather than by the `gguf` library's reader, which takes seconds for a
vocabulary and maps the whole file into memory; the number formats, which change, are the library's.
Source of the format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlm.core.errors import UserError
from dlm.weights.tensors import Tensor

MAGIC = b"GGUF"

_SCALARS = dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?"))) | {10: "Q", 11: "q", 12: "d"}
_FLOAT32, _STRING, _ARRAY = 6, 8, 9
_CHUNK = 1 << 14  # numbers that are converted at a time: few enough to stay in the cache


@dataclass(frozen=True)
class Header:
    """What a file holds.

    Attributes:
      metadata: its fields by name, as plain Python values; arrays as lists.
      tensors: by name, each to be read on demand as float32.
    """

    metadata: Mapping[str, Any]
    tensors: dict[str, Tensor]


def read_header(path: Path) -> Header:
    """Reads metadata and tensor descriptions.

    Raises:
      UserError: the file is not of this format or damaged, or a tensor ends behind its end or is in
        a number format that the `gguf` library cannot convert.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        cursor = _Cursor(data)
        try:
            return _read(path, cursor)
        except (struct.error, UnicodeDecodeError, OverflowError) as error:
            raise UserError(f"{path}: damaged at byte {cursor.at}: {error}") from None


def _read(path: Path, cursor: _Cursor) -> Header:
    magic, version, num_tensors, num_fields = cursor.take("4sIQQ")
    if magic != MAGIC or version not in (2, 3):
        raise UserError(f"{path}: no GGUF file of version 2 or 3: {magic!r}, version {version}")
    metadata = {cursor.string(): cursor.value(*cursor.take("I")) for _ in range(num_fields)}
    described = []
    for _ in range(num_tensors):
        name, (num_axes,) = cursor.string(), cursor.take("I")
        shape = cursor.take(f"{num_axes}Q")[::-1]  # the fastest axis comes first in the file
        described.append((name, shape, *cursor.take("IQ")))
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1:
        raise UserError(f"{path}: general.alignment={alignment!r} must be a number of bytes")
    start = -(-cursor.at // alignment) * alignment
    tensors = {
        name: _tensor(path, name, shape, kind, start + offset, len(cursor.data))
        for name, shape, kind, offset in described
    }
    return Header(metadata, tensors)


class _Cursor:
    """Reads little-endian values one after the other.

    Attributes:
      data: the bytes of the file.
      at: where the next value begins.
    """

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def take(self, layout: str) -> tuple[Any, ...]:
        """Values of a `struct` layout; struct.error where the file ends before."""
        values = struct.unpack_from(f"<{layout}", self.data, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return values

    def string(self) -> str:
        """A text behind its length."""
        (length,) = self.take("Q")
        end = self.at + length
        if end > len(self.data):
            raise struct.error(f"a text of {length} bytes goes beyond the file's end")
        text = self.data[self.at : end].decode("utf-8")
        self.at = end
        return text

    def value(self, kind: int) -> Any:
        """A value of a type; a float32 as the shortest decimal that it is nearest to."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            item, count = self.take("IQ")
            if item == _STRING:
                return [self.string() for _ in range(count)]
            if item not in _SCALARS:
                raise struct.error(f"arrays of type {item} are unknown")
            return list(self.take(f"{count}{_SCALARS[item]}"))
        if kind not in _SCALARS:
            raise struct.error(f"values of type {kind} are unknown")
        (value,) = self.take(_SCALARS[kind])
        return float(str(np.float32(value))) if kind == _FLOAT32 else value


def _tensor(
    path: Path, name: str, shape: tuple[int, ...], kind: int, start: int, size: int
) -> Tensor:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize, quant_shape_to_byte_shape

    try:
        quantised = GGMLQuantizationType(kind)
        length = math.prod(quant_shape_to_byte_shape(shape, quantised))
        numbers, width = GGML_QUANT_SIZES[quantised]  # of a block, and its bytes
        dequantize(np.zeros(width, np.uint8), quantised)
    except (ValueError, NotImplementedError, IndexError) as error:
        raise UserError(f"{path}: {name!r} {shape} cannot be read: {error}") from None
    if start + length > size:
        raise UserError(
            f"{path}: {name!r} {shape} is cut short: it ends at byte {start + length}, the file at "
            f"{size}"
        )

    def read() -> np.ndarray:
        if quantised == GGMLQuantizationType.F32:
            return np.fromfile(path, np.float32, math.prod(shape), offset=start).reshape(shape)
        blocks = np.fromfile(path, np.uint8, length, offset=start).reshape(-1, width)
        whole = np.empty((len(blocks), numbers), np.float32)
        step = max(1, _CHUNK // numbers)
        for first in range(0, len(blocks), step):
            some = slice(first, first + step)
            whole[some] = dequantize(blocks[some].ravel(), quantised).reshape(-1, numbers)
        return whole.reshape(shape)

    return Tensor(shape, read)
