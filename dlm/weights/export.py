"""Parameters out, as files that other libraries read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from dlm.core.errors import UserError
from dlm.core.files import write_json
from dlm.core.paths import flatten
from dlm.models import families, llama
from dlm.models.config import ModelConfig
from dlm.models.rope import divisors
from dlm.models.table import Layout, Weight, join
from dlm.weights import huggingface, safetensors_file
from dlm.weights.tensors import Tensor, narrowed

DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
_TOKENIZER = "tokenizer.ggml.model"  # llama.cpp asks for one, and may be told that there is none
_RESPELLED = ("rope_parameters", "dtype")  # version 5 of the transformers library reads both
_SHARD = 5_000_000_000  # bytes of a file, as the transformers library splits


def tensors_of(params: Mapping[str, Any], config: ModelConfig, layout: Layout) -> dict[str, Tensor]:
    """A model's parameters as another library's tensors, each made when it is read.

    Raises:
      UserError: the model belongs to no family that others can read.
    """
    flat = flatten(params)
    joined: dict[str, list[Weight]] = {}
    for weight in families.weight_table(config, layout):
        joined.setdefault(weight.name, []).append(weight)
    paths = {weight.path for weights in joined.values() for weight in weights}
    assert paths == flat.keys(), paths ^ flat.keys()

    def make(weights: list[Weight]) -> np.ndarray:
        return join(weights, [np.asarray(jax.device_get(flat[one.path])) for one in weights])

    return {
        name: Tensor(weights[0].their_shape(flat[weights[0].path].shape), partial(make, weights))
        for name, weights in joined.items()
    }


def write_huggingface(
    folder: Path,
    params: Mapping[str, Any],
    config: ModelConfig,
    *,
    dtype: str = "float32",
    fields: Mapping[str, Any] | None = None,
) -> None:
    """Writes `config.json` and the weights, in several files with an index above 5 GB.

    Args:
      folder: must exist.
      params: of the model.
      config: of the model.
      dtype: a name of DTYPES.
      fields: of the `config.json` that the model came with; those that dlm knows are overwritten.

    Raises:
      UserError: the model belongs to no family that others can read, or a number is beyond the
        range of `dtype`.
    """
    translated = families.family_of(config).to_huggingface(config)
    kept = {name: value for name, value in (fields or {}).items() if name not in _RESPELLED}
    tensors = tensors_of(params, config, "huggingface")
    shards = list(_shards(tensors, DTYPES[dtype].itemsize))
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = huggingface.WEIGHTS
        if len(shards) > 1:
            name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        safetensors_file.write(folder / name, shard, DTYPES[dtype])
        where.update(dict.fromkeys(shard, name))
    if len(shards) > 1:
        size = sum(math.prod(tensor.shape) for tensor in tensors.values()) * DTYPES[dtype].itemsize
        write_json(
            folder / huggingface.INDEX, {"metadata": {"total_size": size}, "weight_map": where}
        )
    write_json(folder / huggingface.CONFIG, {**kept, **translated, "torch_dtype": dtype})


def _shards(tensors: Mapping[str, Tensor], itemsize: int) -> Iterator[dict[str, Tensor]]:
    """Fills files with tensors in their order, none above the limit unless one tensor is."""
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        more = math.prod(tensor.shape) * itemsize
        if shard and size + more > _SHARD:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += more
    yield shard


def write_gguf(
    path: Path,
    params: Mapping[str, Any],
    config: ModelConfig,
    *,
    dtype: str = "float32",
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes a GGUF file; vectors and positions stay float32, as llama.cpp wants them.

    Args:
      path: of the file.
      params: of the model.
      config: of the model.
      dtype: of the matrices, "float32" or "float16".
      metadata: further fields, such as the tokenizer's; a list's items are of one type.

    Raises:
      UserError: the model belongs to no family that others can read, another dtype is asked for, or
        a number is beyond its range.
    """
    import gguf

    if dtype not in ("float32", "float16"):
        raise UserError(f"GGUF files are written as float32 or float16, not {dtype}")
    family = families.family_of(config)
    tensors = tensors_of(params, config, "gguf")
    if config.rope_scaling.kind == "llama3":
        scaling = divisors(config).astype(np.float32)
        tensors[llama.FREQUENCIES] = Tensor(scaling.shape, lambda: scaling)
    writer = gguf.GGUFWriter(path, family.NAME)
    kind = gguf.LlamaFileType.ALL_F32 if dtype == "float32" else gguf.LlamaFileType.MOSTLY_F16
    writer.add_file_type(kind)
    fields = {_TOKENIZER: "no_vocab", **(metadata or {}), **family.to_gguf(config)}
    for name, value in fields.items():
        _add_field(writer, name, value)
    wide = {name for name, tensor in tensors.items() if len(tensor.shape) == 1}
    wide.add("position_embd.weight")
    dtypes = {name: DTYPES["float32" if name in wide else dtype] for name in tensors}
    for name, tensor in tensors.items():
        size = math.prod(tensor.shape) * dtypes[name].itemsize
        writer.add_tensor_info(name, tensor.shape, dtypes[name], size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in tensors.items():
        writer.write_tensor_data(narrowed(name, tensor.read(), dtypes[name]))
    writer.close()


def _add_field(writer: Any, name: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        low, wide = value < 0, not -(2**31) <= value < 2**32
        kinds = (writer.add_uint32, writer.add_uint64), (writer.add_int32, writer.add_int64)
        kinds[low][wide](name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)
