"""Where a run's model comes from: drawn anew by a config or a preset, or another run's weights."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax

from dlm.commands.settings import Settings
from dlm.core import config as border
from dlm.core.errors import UserError
from dlm.core.files import read_json
from dlm.models import families
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model
from dlm.training.checkpoints import Checkpoints

SCRATCH = "scratch"
CONFIG_FILE = "config.json"
CHECKPOINTS = "checkpoints"


def source_run(init: str) -> Path | None:
    """The workdir that `init` names; None for weights that are drawn anew.

    Raises:
      UserError: it is neither "scratch", nor a preset, nor the workdir of a run.
    """
    if init == SCRATCH or init in families.PRESETS:
        return None
    if not (Path(init) / CONFIG_FILE).is_file():
        known = ", ".join([SCRATCH, *families.PRESETS])
        raise UserError(f"init={init!r} is neither the workdir of a run nor one of: {known}")
    return Path(init)


def model_config(settings: Settings) -> ModelConfig:
    """The shape of the model: that of the run or preset of `init`, changed by what `model` says.

    What `model` leaves at its default is not said; a vocabulary of 0 is that of the tokenizer.
    """
    run = source_run(settings.init)
    if settings.init == SCRATCH:
        return settings.model
    if run is None:
        shape = replace(families.preset(settings.init), vocab_size=0)
    else:
        path = run / CONFIG_FILE
        shape = model_config(border.parse(Settings, read_json(path), str(path)))
    default = ModelConfig()
    given = {field.name: getattr(settings.model, field.name) for field in fields(ModelConfig)}
    changed = {name: v for name, v in given.items() if v != getattr(default, name)}
    return replace(shape, **changed)


def initial_params(settings: Settings, model: Model, **digests: str) -> dict[str, Any]:
    """The parameters before the first update, float32.

    Raises:
      UserError: the run of `init` has no checkpoint, its shapes differ, or it belongs to other
        `digests`.
    """
    run = source_run(settings.init)
    if run is None:
        return model.init(jax.random.key(settings.seed))
    return trained_params(run, model, **digests)


def trained_params(workdir: Path, model: Model, **digests: str) -> dict[str, Any]:
    """The parameters of a run's best checkpoint, of its last where none was evaluated.

    Raises:
      UserError: there is no checkpoint, it has other shapes, or belongs to other `digests`.
    """
    with Checkpoints(find_checkpoints(workdir), digests=digests) as checkpoints:
        step = checkpoints.best_good()
        step = checkpoints.latest_good() if step is None else step
        if step is None:
            raise UserError(f"{workdir} holds no checkpoint that is whole; resume its training")
        like = {"params": jax.eval_shape(model.init, jax.random.key(0))}
        return checkpoints.restore(step, like, partial=True)["params"]


def find_checkpoints(workdir: Path) -> Path:
    """The checkpoint folder of a run.

    Raises:
      UserError: there is none.
    """
    folder = workdir / CHECKPOINTS
    if not folder.is_dir():
        raise UserError(f"{workdir} holds no checkpoint; train it first: python run.py train")
    return folder
