"""What every verb that touches a run needs: its config, workdir, corpus, tokenizer and model."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from dlm.commands import start
from dlm.commands.frozen import FrozenRuns
from dlm.commands.settings import Settings, base
from dlm.commands.start import CONFIG_FILE, MODEL_FILE, TOKENIZER
from dlm.core import config as border
from dlm.core.errors import UserError
from dlm.core.files import read_json, write_json
from dlm.corpora.registry import Prepared
from dlm.corpora.registry import prepare as prepare_corpus
from dlm.data.pipeline import Batches, DataConfig
from dlm.data.store import Pieces, build_or_load
from dlm.dialogue import pretrained
from dlm.dialogue.actions import Tool, User, World
from dlm.dialogue.schema import Dialogue
from dlm.dialogue.template import Template, message_text
from dlm.dialogue.templates import bind
from dlm.dialogue.tokenizer import CONTROL, Tokenizer
from dlm.generation.engine import Engine
from dlm.losses import binding
from dlm.losses.api import level
from dlm.models.decoder import Model
from dlm.models.vocabulary import fitted, grow, opened

LEARNED_FROM = 100_000  # dialogues at most, evenly spaced, that a tokenizer is learned from
AT_ONCE = 1 << 22  # tokens


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

    @property
    def has_corpus(self) -> bool:
        """Whether the config names dialogues; that of an imported model does not."""
        data = self.settings.data
        return data.name != "jsonl" or "path" in data.corpus_options()

    def split(self, name: str) -> Sequence[Dialogue]:
        """The dialogues of a split.

        Raises:
          UserError: the corpus has no such split.
        """
        if name not in self.corpus.splits:
            there = ", ".join(self.corpus.splits)
            raise UserError(f"{self.settings.data.name} has no split {name!r}; it has {there}")
        return self.corpus.splits[name]

    @property
    def first_split(self) -> str:
        """`train`, or of a corpus without it the first split."""
        splits = self.corpus.splits
        return "train" if "train" in splits else next(iter(splits))

    @property
    def _claimed(self) -> bool:
        return (self.workdir / CONFIG_FILE).exists()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The workdir's own tokenizer, once a run has claimed the workdir.

        Before that: that of the model that this run starts from, with control tokens of ours where
        the template needs them, or an extension of it at `tokenizer.path`; or, for a model drawn
        anew, one made from the texts of `first_split`.
        """
        folder = self.workdir / TOKENIZER
        if self._claimed and folder.exists():
            return pretrained.load(folder)
        config, known = self.settings.tokenizer, self._known
        if known is None:
            tokenizer = self._new_tokenizer()
        elif config.path:
            tokenizer = pretrained.load(config.path)
            start.check_extends(tokenizer, known, f"tokenizer.path={config.path}")
        else:
            builtin = self.settings.template.name == "builtin"
            tokenizer = known.with_control(CONTROL) if builtin else known
        if self._claimed:
            tokenizer.save(folder)
        return tokenizer

    @cached_property
    def _known(self) -> Tokenizer | None:
        """The tokenizer that the model of `init` knows."""
        return start.source_tokenizer(self.settings.init)

    @cached_property
    def template(self) -> Template:
        """How dialogues are written out for the tokenizer."""
        return bind(self.settings.template, self.tokenizer, self.settings.policy)

    def _new_tokenizer(self) -> Tokenizer:
        source = self.split(self.first_split)
        entities: set[str] = set()

        def texts() -> Iterator[str]:
            for index in range(0, len(source), -(-len(source) // LEARNED_FROM)):
                dialogue = source[index]
                for message in (*dialogue.messages, *dialogue.chosen, *dialogue.rejected):
                    yield message_text(message)
                yield from dialogue.candidates
                named = dialogue.meta.get("entities")
                if isinstance(named, list | tuple):  # a user's field of that name may hold anything
                    entities.update(name for name in named if isinstance(name, str))

        # The entities are looked at when the last text was read.
        return pretrained.make(texts(), entities, self.settings.tokenizer)

    @cached_property
    def model(self) -> Model:
        """The model as pure functions, its vocabulary that of the tokenizer.

        Its shape is the workdir's own, once a run has claimed it.
        """
        path = self.workdir / MODEL_FILE
        if self._claimed and path.exists():
            config = start.changed(start.read_model(self.workdir), self.settings.model)
        else:
            config = start.model_config(self.settings)
            config = replace(config, vocab_size=config.vocab_size or self.tokenizer.vocab_size)
            config = fitted(config, self._old_tokens, self.tokenizer.vocab_size)
            if self._claimed:
                write_json(path, asdict(config))
        if config.max_length < self.settings.data.length:
            raise UserError(
                f"model.max_length={config.max_length} is below data.length="
                f"{self.settings.data.length}; raise the one or lower the other"
            )
        return Model(config, dtype=self.settings.train.dtype)

    @property
    def _old_tokens(self) -> int:
        """How many tokens the model knows before its vocabulary grows."""
        return (self._known or self.tokenizer).vocab_size

    @cached_property
    def loss(self) -> Callable:
        """The loss of the config, its hyper-parameters bound."""
        loss = self.settings.loss
        known = binding.Known(self.tokenizer.token_id, lambda name: self.frozen.models[name])
        return binding.bind(binding.find(loss.name), loss.args, known)

    @cached_property
    def frozen(self) -> FrozenRuns:
        """The runs that the loss reads and never trains."""
        length = self.settings.data.length
        return FrozenRuns(self.frozen_workdirs, self.model, self.tokenizer, length)

    @property
    def frozen_workdirs(self) -> dict[str, str]:
        """Their workdirs, by the hyper-parameter that names them."""
        loss = self.settings.loss
        return binding.frozen_runs(binding.find(loss.name), loss.args)

    def pieces(self, split: str, *, evaluation: bool = True, groups: bool | None = None) -> Pieces:
        """A split as encoded tokens, from the cache where they are there already.

        Args:
          split: its name.
          evaluation: what of the split is scored; see `EvalConfig.at_most`.
          groups: every ending of a dialogue, not the preferred one alone; None = in training where
            the loss compares endings.
        """
        if groups is None:
            groups = not evaluation and level(binding.find(self.settings.loss.name)) == "sequence"
        data, most = self.settings.data, self.settings.eval.at_most
        source = self.split(split)
        if evaluation and 0 < most < len(source):
            source, split = [source[i] for i in range(most)], f"{split}[:{most}]"
        return build_or_load(
            source,
            self.template,
            self.settings.policy,
            data.length,
            name=split,
            data_digest=self.corpus.digest,
            cache_dir=self.cache,
            overflow=data.overflow,
            evaluation=evaluation,
            groups=groups,
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
            shares=self.corpus.shares,
        )

    @cached_property
    def open_world(self) -> Callable[[Dialogue], World]:
        """What calls are executed in: the `tools` module's worlds, or an empty one."""
        name = self.settings.tools
        return _function("tools", name, "world") if name else lambda dialogue: NoTools()

    @cached_property
    def user(self) -> Callable[[Dialogue], User | None]:
        """The simulated users of the `eval.users` module."""
        return _function("eval.users", self.settings.eval.users, "user")

    def initial_params(self, mesh: Mesh | None = None) -> dict:
        """The parameters before the first update; `mesh` as in `start.initial_params`.

        Of the tokens that the model did not know, those that are learned here may be written.
        """
        known = self._known or self.tokenizer
        source = start.before_growth(self.settings, self.model)
        params = start.initial_params(self.settings, source, mesh, tokenizer=known.digest)
        params = grow(params, self.model.config, self._old_tokens)
        return opened(params, self.learned_tokens()) if self.model.config.masked else params

    def learned_tokens(self) -> np.ndarray:
        """The ids that are a learned target in some split of the corpus: [n] int32, ascending."""
        learned = np.zeros(self.tokenizer.vocab_size, bool)
        for split in self.corpus.splits:
            held = [self.pieces(split, evaluation=split != "train")]
            if held[0].counts.endings:
                held.append(self.pieces(split, evaluation=split != "train", groups=True))
            for arrays in (pieces.arrays for pieces in held):
                for first in range(0, len(arrays["targets"]), AT_ONCE):
                    part = slice(first, first + AT_ONCE)
                    learned[arrays["targets"][part][arrays["loss_weights"][part] > 0]] = True
        return np.flatnonzero(learned).astype(np.int32)

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


def _function(key: str, module: str, name: str) -> Callable:
    """The function of that name in a module that a config names.

    Raises:
      UserError: there is none.
    """
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{key}={module!r}: {error}; name a module with {name}(dialogue)") from None


class NoTools:
    """The world of a run without tools: nothing can be called and nothing changes."""

    tools: Mapping[str, Tool] = {}

    def state(self) -> object:
        """Always the same."""
        return None
