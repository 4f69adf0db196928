"""Checkpoints in the form of the transformers library: a folder, or its name on the hub."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from dlm.core.errors import UserError
from dlm.core.files import read_json
from dlm.models import families
from dlm.models.config import ModelConfig
from dlm.weights import safetensors_file
from dlm.weights.tensors import Tensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
HEAD = "lm_head.weight"

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_WANTED = ("*.json", "*.safetensors", "*.jinja", "merges.txt", "tokenizer.model")


def is_hub_name(name: str) -> bool:
    """Whether a text could be OWNER/NAME on the hub."""
    return _HUB_NAME.fullmatch(name) is not None


def fetch(name: str) -> Path:
    """The folder of a checkpoint of the hub, fetched unless it lies in the library's cache.

    Raises:
      UserError: it is not there, or the hub cannot be reached.
    """
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(_WANTED)))
    except (OSError, ValueError, errors.HfHubHTTPError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"{name!r} is no file or folder here, and as a name on the hub it cannot be fetched: "
            f"{reason}; check the name, or download the checkpoint and give its folder"
        ) from None


def read_config(folder: Path) -> tuple[dict[str, Any], ModuleType, ModelConfig]:
    """Reads and translates the folder's `config.json`; returns its fields and family too.

    Raises:
      UserError: the file is missing or damaged, or asks for what we do not have.
    """
    path = folder / CONFIG
    config = read_json(path)
    if not isinstance(config, dict) or "model_type" not in config:
        raise UserError(f"{path}: model_type is missing; it is no config of a checkpoint")
    try:
        family = families.named(config["model_type"])
        if config.get("quantization_config"):
            raise UserError("quantization_config: quantised weights are read from GGUF files only")
        return config, family, family.from_huggingface(config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, in the order of their names.

    Raises:
      UserError: there are none, the index is damaged, or a file that it names is missing.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / INDEX
    if not index.is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        hint = (
            f"{pickled[0]} is a pickle, which may run code and is not read: convert it to "
            "safetensors (save_pretrained of the transformers library does)"
            if pickled
            else f"wanted {WEIGHTS} or {INDEX}"
        )
        raise UserError(f"{folder} holds no weights that can be read; {hint}")
    names = sorted(set(_weight_map(index).values()))
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise UserError(f"{index}: the file {name!r} is missing in {folder}")
    return [folder / name for name in names]


def _weight_map(index: Path) -> dict[str, str]:
    content = read_json(index)
    found = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise UserError(f"{index}: weight_map must map the names of tensors to those of files")
    return found


def read_tensors(
    folder: Path, files: list[Path], family: ModuleType, config: ModelConfig
) -> dict[str, Tensor]:
    """The tensors of a checkpoint under their full names, without its known constants.

    Raises:
      UserError: a file is damaged, a tensor of the index is not where it says, or a tied head
        differs from the embedding.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors.update(safetensors_file.read_header(file))
    if (folder / INDEX).is_file() and files != [folder / WEIGHTS]:
        missing = sorted(_weight_map(folder / INDEX).keys() - tensors.keys())
        if missing:
            raise UserError(f"{folder}: {missing[0]!r} of {INDEX} is in none of its files")
    if not any(name.startswith(family.PREFIX) for name in tensors):
        tensors = {
            name if name == HEAD else family.PREFIX + name: tensor
            for name, tensor in tensors.items()
        }
    for name in list(tensors):
        if any(re.fullmatch(pattern, name) for pattern in family.BUFFERS):
            del tensors[name]
    if config.tied and HEAD in tensors:
        _check_tied(folder, tensors.pop(HEAD), tensors.get(family.TABLE[0].huggingface))
    return tensors


def _check_tied(folder: Path, head: Tensor, embedding: Tensor | None) -> None:
    """A tied head may stand in the file a second time, as the same numbers."""
    if embedding is None or head.shape != embedding.shape:
        return  # what is wrong with the embedding is told when the model is loaded
    if not np.array_equal(head.read(), embedding.read()):
        raise UserError(
            f"{folder}: {HEAD!r} differs from the embedding, yet {CONFIG} says "
            "tie_word_embeddings; set it to false to keep both"
        )
