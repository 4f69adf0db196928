"""Writes a model in a form that other libraries read.

    python run.py export --source=WORKDIR --target=DIR --format=huggingface [--dtype=float32]
    python run.py export --source=CHECKPOINT --target=FILE --format=gguf [--dtype=float16]

The source is a run (its best checkpoint is taken) or a checkpoint as `init` takes it: a Hugging
Face folder or hub name, a GGUF file, a .bin file of llama2.c. The target must not be there yet.
--dtype is float32 (the default), float16 or bfloat16; a number beyond its range is refused. The
tokenizer goes with the model, and the chat template that it was trained with. A GGUF file holds a
tokenizer only if llama.cpp knows one of its kind: not one that was learned here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlm.commands import start
from dlm.commands.setup import Setup, parse_options, take_flag
from dlm.core.errors import UserError
from dlm.core.files import write_json
from dlm.dialogue.gguf_tokenizer import to_gguf
from dlm.dialogue.tokenizer import Tokenizer
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model
from dlm.models.vocabulary import joined
from dlm.weights import export, sources

FORMATS = ("huggingface", "gguf")
# What of a Hugging Face folder is neither weights nor their config.
_KEPT_FILES = (
    *("tokenizer*", "vocab.*", "merges.txt", "*tokens*.json", "chat_template*"),
    "generation_config.json",
)


@dataclass(frozen=True)
class Exported:
    """What is written, wherever it comes from.

    Attributes:
      config: of the model.
      params: of the model.
      tokenizer: None where the files that came are kept, or none can be used.
      chat_template: Jinja text; "" for none.
      ends: ids that end what the model writes.
      fields: of the `config.json` that the model came with.
      metadata: of the GGUF file that it came with.
      folder: whose tokenizer files are taken as they are.
    """

    config: ModelConfig
    params: Mapping[str, Any]
    tokenizer: Tokenizer | None
    chat_template: str = ""
    ends: Collection[int] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None


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
    write(read(source, layout), path, layout, dtype)
    print(f"written: {path}")
    return 0


def read(source: str, layout: str) -> Exported:
    """Loads a run's best parameters, or a checkpoint's, and what goes with them to a layout."""
    return _of_checkpoint(source, layout) if sources.is_checkpoint(source) else _of_run(source)


def _of_run(workdir: str) -> Exported:
    setup = Setup(parse_options([f"--workdir={workdir}"], saved=True))
    params, config = joined(setup.trained_params(), setup.model.config)
    return Exported(
        config,
        params,
        setup.tokenizer,
        chat_template=setup.template.jinja,
        ends=setup.template.ends,
    )


def _of_checkpoint(name: str, layout: str) -> Exported:
    """In its own layout a checkpoint keeps what came with it; else its tokenizer is translated."""
    source = sources.open_source(name)
    params = source.load(Model(source.config))
    if source.kind == layout == "huggingface":
        folder, fields = source.path, source.metadata
        return Exported(source.config, params, None, fields=fields, folder=folder)
    if source.kind == layout == "gguf":
        return Exported(source.config, params, None, metadata=source.metadata)
    try:
        tokenizer = start.checkpoint_tokenizer(source)
    except UserError as error:
        print(f"without a tokenizer: {error}")
        return Exported(source.config, params, None)
    template = tokenizer.pretrained.chat_template if tokenizer.pretrained else ""
    end = tokenizer.special_id("eos_token")
    ends = [] if end is None else [end]
    return Exported(source.config, params, tokenizer, chat_template=template, ends=ends)


def write(model: Exported, target: Path, layout: str, dtype: str) -> None:
    """Writes the target whole or not at all."""
    aside = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        if layout == "gguf":
            path = aside / "model"
            metadata = _without_storage(model.metadata) or _tokenizer_fields(model)
            export.write_gguf(path, model.params, model.config, dtype=dtype, metadata=metadata)
            os.replace(path, target)
        else:
            _write_folder(model, aside, dtype)
            os.replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_folder(model: Exported, folder: Path, dtype: str) -> None:
    """Config, weights, and the tokenizer's files: those that came, or ours."""
    fields = dict(model.fields)
    if model.folder is not None:
        for pattern in _KEPT_FILES:
            for path in model.folder.glob(pattern):
                shutil.copyfile(path, folder / path.name)
    elif model.tokenizer is not None:
        fields = _token_ids(model.tokenizer, model.ends)
        model.tokenizer.save_pretrained(folder, model.chat_template)
        write_json(folder / "generation_config.json", fields)
    export.write_huggingface(folder, model.params, model.config, dtype=dtype, fields=fields)


def _token_ids(tokenizer: Tokenizer, ends: Collection[int]) -> dict[str, Any]:
    """How `config.json` names the tokens that begin, end and fill."""
    stops = sorted(ends)
    return {
        "bos_token_id": tokenizer.special_id("bos_token"),
        "eos_token_id": stops[0] if len(stops) == 1 else stops or None,
        "pad_token_id": tokenizer.pad_id,
    }


def _tokenizer_fields(model: Exported) -> dict[str, Any]:
    """A tokenizer as a GGUF file holds it; says so where it cannot."""
    if model.tokenizer is None:
        return {}
    fields = to_gguf(model.tokenizer, model.chat_template, model.config.vocab_size)
    if fields is None:
        print("without a tokenizer: llama.cpp knows none of its kind")
    return fields or {}


def _without_storage(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What of a GGUF file's metadata does not speak of how its numbers are stored."""
    storage = ("architecture", "file_type", "quantization_version", "alignment")
    dropped = {f"general.{name}" for name in storage}
    return {name: value for name, value in metadata.items() if name not in dropped}
