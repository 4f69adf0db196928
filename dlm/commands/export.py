"""Writes a model in a form that other libraries read.

    python run.py export --source=WORKDIR --target=DIR --format=huggingface [--dtype=float32]
    python run.py export --source=CHECKPOINT --target=FILE --format=gguf [--dtype=float16]

The source is a run (its best checkpoint is taken) or a checkpoint as `init` takes it: a Hugging
Face folder or hub name, a GGUF file, a .bin file of llama2.c. The target must not be there yet.
--dtype is float32 (the default), float16 or bfloat16; a number beyond its range is refused. The
tokenizer goes with the model.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlm.commands.setup import Setup, parse_options, take_flag
from dlm.core.errors import UserError
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model
from dlm.weights import export, sources

FORMATS = ("huggingface", "gguf")


@dataclass(frozen=True)
class Exported:
    """What is written, wherever it comes from.

    Attributes:
      config: of the model.
      params: of the model.
      folder: whose tokenizer files go with it; None where there are none.
      fields: of the `config.json` that the model came with.
      metadata: of the GGUF file that it came with.
    """

    config: ModelConfig
    params: Mapping[str, Any]
    folder: Path | None = None
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
    if not sources.is_checkpoint(source):
        setup = Setup(parse_options([f"--workdir={source}"], saved=True))
        return Exported(setup.model.config, setup.trained_params())
    opened = sources.open_source(source)
    params = opened.load(Model(opened.config))
    if opened.kind == "huggingface":
        return Exported(opened.config, params, folder=opened.path, fields=opened.metadata)
    return Exported(opened.config, params, metadata=opened.metadata)


def write(model: Exported, target: Path, layout: str, dtype: str) -> None:
    """Writes the target whole or not at all."""
    aside = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        if layout == "gguf":
            export.write_gguf(
                aside / "model",
                model.params,
                model.config,
                dtype=dtype,
                metadata=_kept(model.metadata),
            )
            os.replace(aside / "model", target)
        else:
            export.write_huggingface(
                aside, model.params, model.config, dtype=dtype, fields=model.fields
            )
            os.replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _kept(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What of a GGUF file's metadata does not speak of how its numbers are stored."""
    own = ("general.architecture", "general.file_type", "general.quantization_version")
    return {
        name: value
        for name, value in metadata.items()
        if name not in (*own, "general.alignment") and not name.startswith("split.")
    }
