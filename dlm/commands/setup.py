"""What every verb that touches a run needs: its config, workdir, corpus, tokenizer and model."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from jax.sharding import Mesh
from ml_collections import ConfigDict

from dlm.commands import start
from dlm.commands.settings import Settings, base
from dlm.commands.start import CONFIG_FILE
from dlm.core import config as border
from dlm.core.errors import UserError
from dlm.core.files import read_json
from dlm.corpora.registry import DialogueSource, Prepared
from dlm.corpora.registry import prepare as prepare_corpus
from dlm.data.pipeline import Batches, DataConfig
from dlm.data.store import Pieces, build_or_load
from dlm.dialogue import pretrained
from dlm.dialogue.actions import Tool, World
from dlm.dialogue.schema import Dialogue
from dlm.dialogue.template import Template, message_text
from dlm.dialogue.templates import bind
from dlm.dialogue.tokenizer import CONTROL, Tokenizer
from dlm.generation.engine import Engine
from dlm.losses import api as losses
from dlm.models.decoder import Model

TOKENIZER = "tokenizer"


def cache_dir(data: DataConfig) -> Path:
    """Where corpora are built and encoded tokens are kept; shared by all runs."""
    return Path(data.cache_dir or "~/.cache/dlm").expanduser()


@dataclass(frozen=True)
class Options:
    """The command line of a verb: the run's settings and where it lives.

    Attributes:
      settings: the parsed config.
      resolved: the same as a plain nested dict; what `config.json` holds.
      workdir: the run's folder.
      rest: arguments that are the verb's own.
    """

    settings: Settings
    resolved: dict
    workdir: Path
    rest: list[str]


def take_flag(argv: list[str], name: str) -> tuple[str | None, list[str]]:
    """Takes `--name=VALUE` or `--name VALUE` out of argv; the last one counts."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(f"--{name}")
    known, rest = parser.parse_known_args(argv)
    return getattr(known, name.replace("-", "_")), rest


def parse_options(argv: list[str], *, saved: bool = False) -> Options:
    """Reads `--config=FILE[:ARG] [--config.a.b=VALUE] [--workdir=DIR]`.

    Args:
      argv: the words after the verb.
      saved: the verb works on an existing run: without `--config` the workdir's own is read.

    Raises:
      UserError: neither a config nor a run, or anything wrong in either.
    """
    workdir, rest = take_flag(argv, "workdir")
    named = any(word == "--config" or word.startswith("--config=") for word in rest)
    of_run = read_config(Path(workdir)) if saved and workdir and not named else None
    config, name, rest = border.load(rest, saved=of_run)
    settings = border.parse(Settings, config, "config")
    return Options(settings, config.to_dict(), Path(workdir or f"runs/{name}"), rest)


def read_config(workdir: Path) -> ConfigDict:
    """The config of a run, as its workdir keeps it.

    Raises:
      UserError: there is none, or it is not a config of this version.
    """
    path = workdir / CONFIG_FILE
    if not path.exists():
        raise UserError(f"{workdir} holds no run (no {CONFIG_FILE}); train one, or check --workdir")
    saved = read_json(path)
    border.parse(Settings, saved, str(path))
    config = base()
    config.update(saved)
    return config


class Setup:
    """The parts of one run, each made when it is first asked for.

    Attributes:
      settings: the parsed config.
      workdir: the run's folder.
    """

    def __init__(self, options: Options):
        self.settings = options.settings
        self.resolved = options.resolved
        self.workdir = options.workdir
        self.cache = cache_dir(options.settings.data)

    @cached_property
    def corpus(self) -> Prepared:
        """The dialogues, built or opened."""
        data = self.settings.data
        return prepare_corpus(data.name, data.corpus_options(), self.cache)

    def split(self, name: str) -> DialogueSource:
        """The dialogues of a split.

        Raises:
          UserError: the corpus has no such split.
        """
        if name not in self.corpus.splits:
            there = ", ".join(self.corpus.splits)
            raise UserError(f"{self.settings.data.name} has no split {name!r}; it has {there}")
        return self.corpus.splits[name]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The workdir's own tokenizer, once a run has claimed the workdir.

        Before that: the one of the run or the checkpoint that this one starts from, or made from
        the training texts. The built-in template's control tokens are added to a checkpoint's.
        """
        folder = self.workdir / TOKENIZER
        claimed = (self.workdir / CONFIG_FILE).exists()
        if claimed and folder.exists():
            return pretrained.load(folder)
        if (run := start.source_run(self.settings.init)) is not None:
            tokenizer = pretrained.load(run / TOKENIZER)
        elif (checkpoint := start.source_checkpoint(self.settings.init)) is not None:
            tokenizer = start.checkpoint_tokenizer(checkpoint)
            if self.settings.template.name == "builtin":
                tokenizer = tokenizer.with_control(CONTROL)
        else:
            tokenizer = self._new_tokenizer()
        if claimed:
            tokenizer.save(folder)
        return tokenizer

    @cached_property
    def template(self) -> Template:
        """How dialogues are written out for the tokenizer."""
        return bind(self.settings.template, self.tokenizer)

    def _new_tokenizer(self) -> Tokenizer:
        texts: list[str] = []
        entities: set[str] = set()
        for dialogue in self.split("train"):
            texts.extend(message_text(message) for message in dialogue.messages)
            named = dialogue.meta.get("entities")
            if isinstance(named, list | tuple):  # a user's field of that name may hold anything
                entities.update(name for name in named if isinstance(name, str))
        return pretrained.make(texts, entities, self.settings.tokenizer)

    @cached_property
    def model(self) -> Model:
        """The model as pure functions, its vocabulary that of the tokenizer."""
        config = start.model_config(self.settings)
        config = replace(config, vocab_size=config.vocab_size or self.tokenizer.vocab_size)
        if config.vocab_size < self.tokenizer.vocab_size:
            raise UserError(
                f"init={self.settings.init!r} has {config.vocab_size} tokens, the tokenizer "
                f"{self.tokenizer.vocab_size}; set template.name='checkpoint', which adds none"
            )
        if config.max_length < self.settings.data.length:
            raise UserError(
                f"model.max_length={config.max_length} is below data.length="
                f"{self.settings.data.length}; raise the one or lower the other"
            )
        return Model(config, dtype=self.settings.train.dtype)

    @cached_property
    def loss(self) -> Callable:
        """The loss of the config, its hyper-parameters bound."""
        loss = self.settings.loss
        return losses.bind(losses.find(loss.name), loss.args, self.tokenizer.token_id)

    def pieces(self, split: str, *, evaluation: bool = True) -> Pieces:
        """A split as encoded tokens, from the cache where they are there already."""
        data = self.settings.data
        return build_or_load(
            self.split(split),
            self.template,
            self.settings.policy,
            data.length,
            name=split,
            data_digest=self.corpus.digest,
            cache_dir=self.cache,
            overflow=data.overflow,
            evaluation=evaluation,
        )

    def batches(self, pieces: Pieces, *, shuffle: bool = False) -> Batches:
        """Batches over pieces: shuffled epochs for training, one epoch in order otherwise."""
        data = self.settings.data
        return Batches(
            pieces,
            data.rows,
            data.length,
            seed=self.settings.seed,
            pack=data.pack,
            shuffle=shuffle,
        )

    @cached_property
    def open_world(self) -> Callable[[Dialogue], World]:
        """What calls are executed in: the `tools` module's worlds, or an empty one."""
        name = self.settings.tools
        if not name:
            return lambda dialogue: NoTools()
        try:
            return importlib.import_module(name).world
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"tools={name!r}: {error}; name a module with world(dialogue)"
            ) from None

    @cached_property
    def tools(self) -> Mapping[str, Tool]:
        """The functions that calls may name, for the grammar of calls."""
        return self.open_world(self.split("train")[0]).tools

    def initial_params(self, mesh: Mesh | None = None) -> dict:
        """The parameters before the first update; see `start.initial_params`."""
        digest = self.tokenizer.digest
        return start.initial_params(self.settings, self.model, mesh, tokenizer=digest)

    def trained_params(self) -> dict:
        """The parameters of the workdir's best checkpoint.

        Raises:
          UserError: the workdir holds none.
        """
        start.find_checkpoints(self.workdir)  # before a tokenizer is made in vain
        digest = self.tokenizer.digest
        return start.trained_params(self.workdir, self.model, tokenizer=digest)

    def engine(self, params: dict) -> Engine:
        """A generation engine over the given parameters; it reads no more than training shows."""
        return Engine(self.model, params, self.tokenizer.pad_id, self.settings.data.length)


class NoTools:
    """The world of a run without tools: nothing can be called and nothing changes."""

    tools: Mapping[str, Tool] = {}

    def state(self) -> object:
        """Always the same."""
        return None
