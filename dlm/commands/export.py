"""Writes a model in a form that other libraries read.

    python run.py export --source=WORKDIR --target=DIR --format=huggingface [--dtype=float32]
    python run.py export --source=CHECKPOINT --target=FILE --format=gguf [--dtype=float16]

The source is a run (its best checkpoint is taken) or a checkpoint as `init` takes it: a Hugging
Face folder or hub name, a GGUF file, a .bin file of llama2.c. The target must not be there yet.
--dtype is float32 (the default), float16 or bfloat16; a number beyond its range is refused. The
tokenizer goes with the model, to Hugging Face with the chat template that the model was trained
with; a GGUF file gets it from another GGUF file only.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dlm.commands import start
from dlm.commands.setup import Setup, parse_options, take_flag
from dlm.core.errors import UserError
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model
from dlm.models.vocabulary import joined
from dlm.weights import export, sources

FORMATS = ("huggingface", "gguf")
# What of a Hugging Face folder is neither weights nor their config.
_TOKENIZER_FILES = ("tokenizer*", "vocab.*", "merges.txt", "*tokens*.json", "chat_template*")


@dataclass(frozen=True)
class Exported:
    """What is written, wherever it comes from.

    Attributes:
      config: of the model.
      params: of the model.
      save_tokenizer: writes the tokenizer's files into a folder.
      fields: of the `config.json` that the model came with.
      metadata: of the GGUF file that it came with.
    """

    config: ModelConfig
    params: Mapping[str, Any]
    save_tokenizer: Callable[[Path], None]
    fields: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)


def run(argv: list[str]) -> int:
    """The verb `export`."""
    flags: dict[str, str | None] = {}
    for name in ("source", "target", "format", "dtype"):
        flags[name], argv = take_flag(argv, name)
    if argv:
        raise UserError(f"export does not know {argv[0]!r}; see python run.py export --help")
    source, target, layout = flags["source"], flags["target"], flags["format"]
    if not source or not target or not layout:
        raise UserError("export needs --source, --target and --format; see its --help")
    dtype = flags["dtype"] or "float32"
    for name, value, known in (("format", layout, FORMATS), ("dtype", dtype, export.DTYPES)):
        if value not in known:
            raise UserError(f"--{name}={value} is unknown; there are: {', '.join(known)}")
    path = Path(target)
    if path.exists():
        raise UserError(f"{path} is there already; choose another --target")
    write(read(source), path, layout, dtype)
    print(f"written: {path}")
    return 0


def read(source: str) -> Exported:
    """Loads a run's best parameters, or a checkpoint's."""
    return _of_checkpoint(source) if sources.is_checkpoint(source) else _of_run(source)


def _of_run(workdir: str) -> Exported:
    setup = Setup(parse_options([f"--workdir={workdir}"], saved=True))
    save = partial(setup.tokenizer.save_pretrained, chat_template=setup.template.jinja)
    params, config = joined(setup.trained_params(), setup.model.config)
    return Exported(config, params, save)


def _of_checkpoint(name: str) -> Exported:
    source = sources.open_source(name)
    params = source.load(Model(source.config))
    if source.kind == "huggingface":
        save = partial(_copy_tokenizer, source.path)
        return Exported(source.config, params, save, fields=source.metadata)
    return Exported(source.config, params, partial(_rebuild, source), metadata=source.metadata)


def _copy_tokenizer(source: Path, folder: Path) -> None:
    for pattern in _TOKENIZER_FILES:
        for path in source.glob(pattern):
            shutil.copyfile(path, folder / path.name)


def _rebuild(source: sources.Source, folder: Path) -> None:
    """Writes the tokenizer of a file, unless that holds none."""
    if source.kind == "gguf" and "tokenizer.ggml.tokens" not in source.metadata:
        return
    tokenizer = start.checkpoint_tokenizer(source)
    assert tokenizer.pretrained is not None
    tokenizer.save_pretrained(folder, tokenizer.pretrained.chat_template)


def write(model: Exported, target: Path, layout: str, dtype: str) -> None:
    """Writes the target whole or not at all."""
    aside = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        if layout == "gguf":
            kept = _without_storage(model.metadata)
            export.write_gguf(
                aside / "model", model.params, model.config, dtype=dtype, metadata=kept
            )
            os.replace(aside / "model", target)
        else:
            export.write_huggingface(
                aside, model.params, model.config, dtype=dtype, fields=model.fields
            )
            model.save_tokenizer(aside)
            os.replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _without_storage(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What of a GGUF file's metadata does not speak of how its numbers are stored."""
    storage = ("architecture", "file_type", "quantization_version", "alignment")
    dropped = {f"general.{name}" for name in storage}
    return {name: value for name, value in metadata.items() if name not in dropped}
