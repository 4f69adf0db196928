"""What identifies a run: everything that its results depend on, and nothing else.

Two runs of one identity give the same figures, but for rounding; a finished one is never repeated.
The commit stands beside the identity and is no part of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dlm.commands import start
from dlm.commands.environment import commit
from dlm.commands.frozen import check_run
from dlm.commands.setup import Setup
from dlm.core import files
from dlm.core.config import flat
from dlm.dialogue import pretrained
from dlm.evaluation import scoring
from dlm.losses import binding

IDENTITY_FILE = "identity.json"
SUMMARY_FILE = "summary.json"
NUMERICS = 1  # raised where the same run gives other numbers
# Settings that no result depends on, but for rounding.
FREE = {
    *("data.cache_dir", "train.log_every", "train.accumulate", "loss.chunk"),
    *("model.attention", "model.remat", "model.scan_layers"),
}
# Paths, and what is written at all: their contents have digests of their own.
PATHS = {
    *("init", "tokenizer.path", "data.path", "data.validation_path", "data.test_path"),
    *("data.options.path", "data.options.validation_path", "data.options.test_path"),
}


def identify(setup: Setup) -> dict[str, Any]:
    """The identity of a run, and the parts that it is the digest of.

    Returns:
      `identity`, the SHA-256 in hex of the other entries but `commit`: `config` (the settings that
      affect results), `corpus`, `sources` (of every module with a function that the config names),
      `tokenizer` (with its chat template; "" where it is made from the rest), `init`, `frozen`
      and `numerics`.

    Raises:
      UserError: something that the config names is not there.
    """
    frozen = {name: Path(path) for name, path in setup.frozen_workdirs.items()}
    for name, path in frozen.items():
        check_run(name, path)
    parts: dict[str, Any] = {
        "config": decisive(setup),
        "corpus": setup.corpus.digest if setup.has_corpus else "",
        "sources": sources(setup),
        "tokenizer": tokenizer_digest(setup),
        "init": origin(setup.settings.init),
        "frozen": {name: run_digest(path) for name, path in frozen.items()},
        "numerics": NUMERICS,
    }
    return {"identity": files.digest(parts), **parts, "commit": commit()}


def decisive(setup: Setup) -> dict[str, Any]:
    """The settings that affect results, flat."""
    left_out = FREE | PATHS | {f"loss.args.{name}" for name in setup.frozen_workdirs}
    return {
        name: value
        for name, value in flat(setup.resolved).items()
        if name not in left_out and not name.startswith("mesh.")
    }


def sources(setup: Setup) -> dict[str, str]:
    """Digests of the source files of all functions that a config names, by their modules."""
    settings = setup.settings
    losses = [settings.loss.name, *summed_losses(settings.loss.args)]
    functions: list[Callable] = [binding.find(name) for name in losses]
    functions += [scoring.find(name) for name in settings.eval.scorers]
    functions += [setup.open_world] if settings.tools else []
    functions += [setup.user] if settings.eval.users else []
    modules = {function.__module__ for function in functions}
    return {name: files.digest_file(str(sys.modules[name].__file__)) for name in sorted(modules)}


def summed_losses(args: Mapping[str, Any]) -> list[str]:
    """The losses that a weighted sum of losses names, {name of a loss: weight}."""
    return [name for value in args.values() if isinstance(value, Mapping) for name in value]


def tokenizer_digest(setup: Setup) -> str:
    """The digest of the tokenizer and chat template that are read; "" where one is made anew."""
    path, init = setup.settings.tokenizer.path, setup.settings.init
    read = pretrained.load(path) if path else start.source_tokenizer(init)
    if read is None:
        return ""
    template = read.pretrained.chat_template if read.pretrained else ""
    return files.digest([read.digest, template])


def origin(init: str) -> str:
    """What the weights of `init` are, wherever they lie."""
    if start.is_drawn(init):
        return init
    if (checkpoint := start.source_checkpoint(init)) is not None:
        return checkpoint.digest
    run = start.source_run(init)
    assert run is not None, init
    return run_digest(run)


def run_digest(workdir: Path) -> str:
    """The identity of a finished run; of one that is not, the digest of its best checkpoint."""
    path = workdir / IDENTITY_FILE
    if path.is_file() and (workdir / SUMMARY_FILE).is_file():
        return files.read_json(path)["identity"]
    return start.trained_digest(workdir)
