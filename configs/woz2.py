"""Belief states of WOZ 2.0 in English, German or Italian, from scratch.

    python run.py data  --config=configs/woz2.py:language=en
    python run.py train --config=configs/woz2.py:language=en

Data: data/woz of the release under $DLM_DATA_DIR/woz2. Hardware: two CPU cores. Time: not measured
yet. Expected: not measured yet; of the published trackers NBT has a joint goal accuracy of .844 and
BERT .905 on English.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base
from dlm.core.config import arguments


def get_config(arg: str = "language=en") -> ConfigDict:
    """One language: `language=en`, `de` or `it`; `de_en`, `it_en`: with English labels."""
    config = base()
    config.data.name = "woz2"
    config.data.options = ConfigDict({"language": arguments(arg, language="en")["language"]})
    config.data.length = 512
    config.data.rows = 8
    config.tokenizer.vocab_size = 2048

    config.model.num_layers = 3
    config.model.width = 128
    config.model.num_heads = 4
    config.model.init_stddev = 0.06
    config.model.max_length = 512
    config.model.dropout = 0.1

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 0.04
    config.train.epochs = 20.0
    config.train.eval_every = 200
    config.train.patience = 3
    config.train.metric = "validation/state_accuracy"
    config.eval.splits = ("validation", "test")
    config.eval.scorers = ("joint_goal_accuracy", "slot_f1", "act_f1", "bleu")
    config.eval.dialogues = 20
    return config
