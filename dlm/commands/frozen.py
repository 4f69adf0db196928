"""Runs whose parameters a loss reads and never trains: a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from dlm.commands import start
from dlm.core.errors import UserError
from dlm.dialogue import pretrained
from dlm.dialogue.tokenizer import Tokenizer
from dlm.models.decoder import Model
from dlm.training.mesh import param_shardings, shaped


class FrozenRuns:
    """The runs that `loss.args` names, by the hyper-parameter that does.

    Attributes:
      models: of each run.
    """

    def __init__(
        self, workdirs: Mapping[str, str], model: Model, tokenizer: Tokenizer, length: int
    ):
        """Opens the runs; parameters are read later.

        Args:
          workdirs: of the runs.
          model: of the run that is trained.
          tokenizer: of the run that is trained.
          length: of its rows.

        Raises:
          UserError: one is no finished run, knows other tokens, or reads shorter rows.
        """
        self._workdirs = {name: Path(workdir) for name, workdir in workdirs.items()}
        self._digest = tokenizer.digest
        self.models = {
            name: _model(name, workdir, model, tokenizer, length)
            for name, workdir in self._workdirs.items()
        }

    def shapes(self, mesh: Mesh) -> dict[str, Any] | None:
        """Shapes of the parameters by name, laid over the mesh by the built-in rules.

        None where there is no such run.
        """
        return {name: _shapes(model, mesh) for name, model in self.models.items()} or None

    def params(self, mesh: Mesh) -> dict[str, Any] | None:
        """The parameters of each run's best checkpoint, as `shapes` says.

        Raises:
          UserError: a run has no whole checkpoint.
        """
        return {
            name: start.trained_params(
                self._workdirs[name],
                model,
                jax.tree.map(lambda leaf: leaf.sharding, _shapes(model, mesh)),
                tokenizer=self._digest,
            )
            for name, model in self.models.items()
        } or None

    def digests(self) -> dict[str, str]:
        """What a run that learns from these belongs to: their checkpoints' digests, no path."""
        return {name: start.trained_digest(workdir) for name, workdir in self._workdirs.items()}


def _shapes(model: Model, mesh: Mesh) -> dict[str, Any]:
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return shaped(shapes, param_shardings(shapes, mesh))


def check_run(name: str, workdir: Path) -> str:
    """Refuses what is no run; returns what messages call it.

    Args:
      name: the hyper-parameter that names it.
      workdir: of the run.

    Raises:
      UserError: there is no run.
    """
    where = f"loss.args.{name}={str(workdir)!r}"
    if not (workdir / start.MODEL_FILE).is_file():
        raise UserError(f"{where} is not the workdir of a finished run")
    start.find_checkpoints(workdir)
    return where


def _model(name: str, workdir: Path, trained: Model, tokenizer: Tokenizer, length: int) -> Model:
    where = check_run(name, workdir)
    config = start.read_model(workdir)
    sizes = (config.vocab_size, trained.config.vocab_size)
    if pretrained.load(workdir / start.TOKENIZER).digest != tokenizer.digest or len(set(sizes)) > 1:
        raise UserError(
            f"{where}: that run knows other tokens ({sizes[0]} of them, this run {sizes[1]}); let "
            f"both begin with one tokenizer, or make them of the same texts"
        )
    if config.max_length < length:
        raise UserError(
            f"{where}: that run reads {config.max_length} tokens, data.length={length}; lower it"
        )
    return Model(config, dtype=trained.dtype)
