"""A pretrained checkpoint, whatever its format: config, digest, parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from dlm.core import files
from dlm.core.errors import UserError
from dlm.models import families, llama
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model
from dlm.models.table import Layout
from dlm.weights import gguf_file, huggingface, llama2c
from dlm.weights.tensors import Place, Tensor, load, place_on_default


@dataclass(frozen=True)
class Source:
    """A checkpoint whose headers are read and whose numbers are not.

    Attributes:
      kind: its format.
      path: the folder ("huggingface") or the file ("gguf", "llama2c"), where its tokenizer is too.
      config: of its model, the vocabulary's size given.
      files: what decides its weights.
      tensors: by their names in `layout`.
      layout: the column of the weight table that they follow.
      metadata: the fields of `config.json`, or of the GGUF file (`tokenizer.ggml.*` among them).
    """

    kind: Literal["huggingface", "gguf", "llama2c"]
    path: Path
    config: ModelConfig
    files: tuple[Path, ...]
    tensors: Mapping[str, Tensor]
    layout: Layout
    metadata: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of the files' contents; their path and names do not matter."""
        return files.digest([files.digest_file(path) for path in self.files])

    def load(self, model: Model, place: Place = place_on_default) -> dict[str, Any]:
        """The parameters of a model, float32; see `tensors.load`.

        Args:
          model: of `config`, or a change of it that keeps the shapes.
          place: puts a leaf on its device or mesh, given its path.

        Raises:
          UserError: a tensor is missing, extra, of another shape, or cut short.
        """
        table = families.weight_table(model.config, self.layout)
        return load(self.tensors, table, model, where=str(self.path), place=place)


def is_checkpoint(name: str) -> bool:
    """Whether a text names a checkpoint of another library: a file, a folder, or a hub name."""
    path = Path(name)
    if path.is_dir():
        config = path / huggingface.CONFIG
        return config.is_file() and "model_type" in files.read_json(config)
    return path.is_file() or huggingface.is_hub_name(name)


def open_source(name: str) -> Source:
    """Opens a checkpoint: a Hugging Face folder or hub name, or a file.

    Raises:
      UserError: there is none, or it is not one that can be read.
    """
    path = Path(name)
    if path.is_file():
        return _open_file(path)
    return _open_folder(path if path.is_dir() else huggingface.fetch(name))


def _open_file(path: Path) -> Source:
    with path.open("rb") as file:
        magic = file.read(len(gguf_file.MAGIC))
    if magic == gguf_file.MAGIC:
        return _open_gguf(path)
    if path.suffix != ".bin":
        raise UserError(
            f"{path} is no checkpoint: wanted a GGUF file, a .bin file of llama2.c, or the folder "
            "of a Hugging Face checkpoint"
        )
    config, tensors = llama2c.read(path)
    return Source("llama2c", path, config, (path,), tensors, "gguf", {})


def _open_gguf(path: Path) -> Source:
    header = gguf_file.read_header(path)
    tensors = dict(header.tensors)
    scaling = tensors.pop(llama.FREQUENCIES, None)
    try:
        if "token_embd.weight" not in tensors:
            raise UserError("token_embd.weight is missing")
        family = families.named(header.metadata.get("general.architecture", ""))
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        config = family.from_gguf(header.metadata, shapes)
        if scaling is not None:
            config = llama.with_divisors(config, scaling.read())
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return Source("gguf", path, config, (path,), tensors, "gguf", header.metadata)


def _open_folder(folder: Path) -> Source:
    fields, family, config = huggingface.read_config(folder)
    paths = huggingface.weight_files(folder)
    tensors = huggingface.read_tensors(folder, paths, family, config)
    decisive = (folder / huggingface.CONFIG, *paths)
    return Source("huggingface", folder, config, decisive, tensors, "huggingface", fields)
