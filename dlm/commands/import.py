"""Makes a run of a checkpoint of another library, to talk to or to begin others from.

    python run.py import --source=CHECKPOINT --target=WORKDIR --format=dlm

The source is a Hugging Face folder or hub name, a GGUF file or a .bin file of llama2.c; the target
must not be there yet. `python run.py chat --workdir=WORKDIR` then talks to it by its own chat
template, and `--config.init=WORKDIR` begins with its weights.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np

from dlm.commands import start
from dlm.commands.settings import Settings
from dlm.commands.setup import take_flag
from dlm.core.errors import UserError
from dlm.core.files import write_json
from dlm.data.pipeline import DataConfig
from dlm.dialogue.encoding import PolicyConfig
from dlm.dialogue.templates import TemplateConfig, bind
from dlm.models.decoder import Model
from dlm.training.checkpoints import Checkpoints
from dlm.weights import sources

_LENGTH = 2048  # tokens of a conversation, at most


def run(argv: list[str]) -> int:
    """The verb `import`."""
    flags: dict[str, str | None] = {}
    for name in ("source", "target", "format"):
        flags[name], argv = take_flag(argv, name)
    if argv:
        raise UserError(f"import does not know {argv[0]!r}; see python run.py import --help")
    source, target, form = flags["source"], flags["target"], flags["format"]
    if not source or not target or form != "dlm":
        raise UserError("import needs --source, --target and --format=dlm; see its --help")
    if not sources.is_checkpoint(source):
        raise UserError(f"{source} is no checkpoint of another library; see import --help")
    path = Path(target)
    if path.exists():
        raise UserError(f"{path} is there already; choose another --target")
    make_run(sources.open_source(source), path)
    print(f"written: {path}\ntalk to it: python run.py chat --workdir={path}")
    return 0


def make_run(source: sources.Source, workdir: Path) -> None:
    """Writes tokenizer, checkpoint, shape and config: the whole run or none.

    Raises:
      UserError: the checkpoint has no chat template that can be used, so nobody could talk to it.
    """
    tokenizer = start.checkpoint_tokenizer(source)
    template = TemplateConfig("checkpoint")
    try:
        bind(template, tokenizer, PolicyConfig())
    except UserError as error:
        raise UserError(
            f"{error} (to train from it, name it as init; to write it elsewhere, export it)"
        ) from None
    params = source.load(Model(source.config))
    aside = workdir.with_name(f".{workdir.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    tokenizer.save(aside / start.TOKENIZER)
    digests = {"tokenizer": tokenizer.digest, "init": source.digest}
    with Checkpoints(
        aside / start.CHECKPOINTS, digests=digests, lower_is_better=True
    ) as checkpoints:
        checkpoints.save(0, {"params": params, "step": np.zeros((), np.int32)})
    settings = Settings(
        model=source.config,
        template=template,
        data=DataConfig(length=min(source.config.max_length, _LENGTH)),
    )
    write_json(aside / start.MODEL_FILE, asdict(source.config))
    write_json(aside / start.CONFIG_FILE, asdict(settings))
    os.replace(aside, workdir)
