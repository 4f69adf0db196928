"""A run's whole configuration: every section is a frozen dataclass that lives beside its reader."""

from __future__ import annotations

from dataclasses import dataclass, field

from ml_collections import ConfigDict

from dlm.core import config as border
from dlm.data.pipeline import DataConfig
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.templates import TemplateConfig
from dlm.dialogue.tokenizer import TokenizerConfig
from dlm.evaluation.evaluate import EvalConfig
from dlm.generation.engine import GenerateConfig
from dlm.losses.api import LossConfig
from dlm.models.config import ModelConfig
from dlm.training.loop import TrainConfig
from dlm.training.mesh import MeshConfig
from dlm.training.optimizer import OptimizerConfig


@dataclass(frozen=True)
class Settings:
    """One run, as `configs/NAME.py` describes it.

    Attributes:
      seed: drives initial weights, data order and dropout.
      init: where the weights come from: "scratch" = drawn anew from `model`; a preset's name =
        drawn anew in its shape; the workdir of another run; or a checkpoint of another library (a
        Hugging Face folder or hub name OWNER/NAME, a GGUF file, a .bin file of llama2.c).
      tools: module whose `world(dialogue)` gives the functions that calls execute; "" = none.
      policy: which messages are learned.
    """

    seed: int = 0
    init: str = "scratch"
    tools: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)


def base() -> ConfigDict:
    """The defaults of every section, for a config file to change."""
    return border.defaults(Settings)
