"""Where a run's model comes from: drawn anew, a checkpoint of another library, or another run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from dlm.commands.settings import Settings
from dlm.core import config as border
from dlm.core.errors import UserError
from dlm.core.files import read_json
from dlm.core.paths import flatten
from dlm.dialogue import pretrained
from dlm.dialogue.tokenizer import Tokenizer
from dlm.models import families
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model
from dlm.training.checkpoints import Checkpoints
from dlm.training.loop import lower_is_better
from dlm.training.mesh import param_shardings, shaped
from dlm.weights import sources
from dlm.weights.tensors import Place, place_on_default

SCRATCH = "scratch"
CONFIG_FILE = "config.json"
MODEL_FILE = "model.json"
TOKENIZER = "tokenizer"
OF_THE_RUN = ("dropout", "attention", "remat", "scan_layers")  # of `model`, and no shape
CHECKPOINTS = "checkpoints"


def is_drawn(init: str) -> bool:
    """Whether the weights are drawn anew."""
    return init == SCRATCH or init in families.PRESETS


def source_run(init: str) -> Path | None:
    """The workdir that `init` names; None where weights are drawn anew or another library's.

    Raises:
      UserError: it names nothing that there is.
    """
    if is_drawn(init) or sources.is_checkpoint(init):
        return None
    if not (Path(init) / CONFIG_FILE).is_file():
        known = ", ".join([SCRATCH, *families.PRESETS])
        raise UserError(
            f"init={init!r} is neither the workdir of a run, nor a checkpoint (a Hugging Face "
            f"folder or hub name OWNER/NAME, a GGUF file), nor one of: {known}"
        )
    return Path(init)


def source_checkpoint(init: str) -> sources.Source | None:
    """The checkpoint of another library that `init` names, opened; None for anything else.

    Raises:
      UserError: it cannot be read.
    """
    if is_drawn(init) or not sources.is_checkpoint(init):
        return None
    return sources.open_source(init)


def checkpoint_tokenizer(source: sources.Source) -> Tokenizer:
    """The tokenizer that came with a checkpoint: in its folder, in its file, or beside it.

    Raises:
      UserError: there is none, or it is of a kind that we cannot use.
    """
    if source.kind == "huggingface":
        return pretrained.from_directory(source.path)
    if source.kind == "gguf":
        return pretrained.from_gguf(source.metadata, str(source.path))
    beside = source.path.with_name(f"tok{source.config.vocab_size}.bin")  # as llama2.c names it
    if not beside.is_file():
        raise UserError(f"{source.path}: its vocabulary {beside.name} is missing beside it")
    return pretrained.from_llama2c(beside)


def source_digests(init: str) -> dict[str, str]:
    """What a run's checkpoints belong to beside its data: the digest of the weights it began with.

    Of another run's weights the tokenizer's digest speaks, and the run's own checkpoints.
    """
    source = source_checkpoint(init)
    return {} if source is None else {"init": source.digest}


def model_config(settings: Settings) -> ModelConfig:
    """The shape of the model: that of the source of `init`, changed by what `model` says.

    What `model` leaves at its default is not said; a vocabulary of 0 is that of the tokenizer.
    """
    if settings.init == SCRATCH:
        return settings.model
    return changed(_source_config(settings.init), settings.model)


def changed(shape: ModelConfig, said: ModelConfig) -> ModelConfig:
    """A shape, changed by what a config says other than the defaults.

    How the layers are run is no shape: that is always what this config says.
    """
    default = ModelConfig()
    given = {field.name: getattr(said, field.name) for field in fields(ModelConfig)}
    return replace(
        shape,
        **{n: x for n, x in given.items() if n in OF_THE_RUN or x != getattr(default, n)},
    )


def read_model(workdir: Path) -> ModelConfig:
    """The shape of a run's model, as its workdir keeps it.

    Raises:
      UserError: the run has none.
    """
    path = workdir / MODEL_FILE
    return border.parse(ModelConfig, read_json(path), str(path))


def _source_config(init: str) -> ModelConfig:
    if init in families.PRESETS:
        return replace(families.preset(init), vocab_size=0)
    if source := source_checkpoint(init):
        return source.config
    return read_model(_run(init))


def before_growth(settings: Settings, model: Model) -> Model:
    """The model with the vocabulary of its source; see `vocabulary.grow`."""
    source = replace(model.config, new_tokens=0, masked=False)
    if not is_drawn(settings.init):
        source = _source_config(settings.init)
    names = ("vocab_size", "new_tokens", "masked")
    vocabulary = {name: getattr(source, name) for name in names}
    return replace(model, config=replace(model.config, **vocabulary))


def source_tokenizer(init: str) -> Tokenizer | None:
    """The tokenizer that the model of `init` knows; None where the model is drawn anew.

    Raises:
      UserError: there is none, or it is of a kind that we cannot use.
    """
    if is_drawn(init):
        return None
    if (source := source_checkpoint(init)) is not None:
        return checkpoint_tokenizer(source)
    return pretrained.load(_run(init) / TOKENIZER)


def check_extends(tokenizer: Tokenizer, known: Tokenizer, where: str) -> None:
    """Refuses a tokenizer that spells differently from the one that a model knows.

    Raises:
      UserError: an id means something else; names the first.
    """
    for i in range(known.vocab_size):
        for spell in (Tokenizer.control_name, Tokenizer.token_bytes):
            if spell(tokenizer, i) != spell(known, i):
                raise UserError(
                    f"{where}: id {i} is {spell(tokenizer, i)!r}, the model of init knows it as "
                    f"{spell(known, i)!r}; a tokenizer may add to the model's, not change it"
                )


def _run(init: str) -> Path:
    run = source_run(init)
    assert run is not None, init
    return run


def initial_params(
    settings: Settings, model: Model, mesh: Mesh | None = None, **digests: str
) -> dict[str, Any]:
    """The parameters of the source, float32.

    Args:
      settings: of the run.
      model: of the run, before its vocabulary grows.
      mesh: each leaf is made where it lies on it, never as a whole; None = the first device.
      digests: what the run of `init` must belong to.

    Raises:
      UserError: the run of `init` has no checkpoint, its shapes differ, or it belongs to other
        `digests`; or the checkpoint's tensors are not the model's.
    """
    key = jax.random.key(settings.seed)
    shardings = None
    if mesh is not None:
        shardings = param_shardings(jax.eval_shape(model.init, key), mesh, settings.mesh.rules)
    if is_drawn(settings.init):
        init = model.init if mesh is None else jax.jit(model.init, out_shardings=shardings)
        return init(key)
    if source := source_checkpoint(settings.init):
        return source.load(model, placer(shardings))
    return trained_params(_run(settings.init), model, shardings, **digests)


def placer(shardings: Mapping[str, Any] | None) -> Place:
    """What puts each leaf of another library's checkpoint on the devices that hold it."""
    if shardings is None:
        return place_on_default
    flat = flatten(shardings)
    return lambda path, array: jax.device_put(array, flat[path])


def trained_params(
    workdir: Path, model: Model, shardings: Mapping[str, Any] | None = None, **digests: str
) -> dict[str, Any]:
    """The parameters of a run's best checkpoint, of its last where none was evaluated.

    Args:
      workdir: of the run.
      model: of the run.
      shardings: where the leaves are to lie; None = on the first device.
      digests: what the run must belong to.

    Raises:
      UserError: there is no checkpoint, it has other shapes, or belongs to other `digests`.
    """
    with _checkpoints(workdir, **digests) as checkpoints:
        step = _best(checkpoints, workdir)
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        if shardings is not None:
            shapes = shaped(shapes, shardings)
        like = {"params": shapes}
        return checkpoints.restore(step, like, partial=True)["params"]


def trained_digest(workdir: Path) -> str:
    """The digest of the checkpoint that `trained_params` reads.

    Raises:
      UserError: there is none.
    """
    with _checkpoints(workdir) as checkpoints:
        return checkpoints.digest(_best(checkpoints, workdir))


def _checkpoints(workdir: Path, **digests: str) -> Checkpoints:
    """A run's checkpoints, of which the best is the best by the metric of the run's own config.

    Raises:
      UserError: there are none, or its config is not one of this version.
    """
    folder, path = find_checkpoints(workdir), workdir / CONFIG_FILE
    metric = border.parse(Settings, read_json(path), str(path)).train.metric
    return Checkpoints(folder, digests=digests, lower_is_better=lower_is_better(metric))


def _best(checkpoints: Checkpoints, workdir: Path) -> int:
    step = checkpoints.best_good()
    step = checkpoints.latest_good() if step is None else step
    if step is None:
        raise UserError(f"{workdir} holds no checkpoint that is whole; resume its training")
    return step


def find_checkpoints(workdir: Path) -> Path:
    """The checkpoint folder of a run.

    Raises:
      UserError: there is none.
    """
    folder = workdir / CHECKPOINTS
    if not folder.is_dir():
        raise UserError(f"{workdir} holds no checkpoint; train it first: python run.py train")
    return folder
