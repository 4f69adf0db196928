"""Preferences: a small GPT tuned on chosen replies, then by DPO on chosen and rejected ones.

    python run.py train --config=configs/preference.py:stage=sft --workdir=runs/sft
    python run.py train --config=configs/preference.py:stage=dpo,init=runs/sft --workdir=runs/dpo

Data: the preference demo of LLaMA-Factory under $DLM_DATA_DIR/llamafactory-demo. Both replies and
their history share a row; pairs that do not fit it are left out and counted. Hardware: two CPU
cores. Time: three minutes, both stages. Expected: with five seeds the margin of held-out pairs, log
p(chosen) - log p(rejected), rises by 2.5 to 6.9 nats in DPO (`experiments/preference_margin.py`).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base
from dlm.core.config import arguments
from dlm.core.errors import UserError


def get_config(arg: str = "stage=sft") -> ConfigDict:
    """One stage: `stage=sft`, or `stage=dpo,init=DIR` from the workdir of the first."""
    given = arguments(arg, stage="sft", init="")
    if given["stage"] == "dpo" and not given["init"]:
        raise UserError("stage=dpo starts from a tuned model: stage=dpo,init=DIR")
    config = base()
    config.data.name = "llamafactory_demo"
    config.data.options = ConfigDict({"set": "dpo"})
    config.data.length = 1024
    config.data.rows = 4
    config.tokenizer.vocab_size = 2048

    config.model.num_layers = 2
    config.model.width = 128
    config.model.num_heads = 4
    config.model.init_stddev = 0.06
    config.model.max_length = 1024

    config.init = given["init"] or config.init
    config.eval.splits = ("validation", "test")
    config.eval.dialogues = 0
    if given["stage"] == "sft":
        config.optimizer.learning_rate = 2e-3
        config.optimizer.warmup = 0.1
        config.train.epochs = 2.0
    elif given["stage"] == "dpo":
        config.loss.name = "dpo"
        config.loss.args = ConfigDict({"beta": 0.1})
        config.optimizer.learning_rate = 1e-4
        config.optimizer.warmup = 0.1
        config.train.epochs = 2.0
        config.train.metric = "validation/margin"
    else:
        raise UserError(f"stage={given['stage']!r}: choose sft or dpo")
    return config
