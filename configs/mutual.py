"""Which of four replies follows from a conversation, from scratch: MuTual.

    python run.py data  --config=configs/mutual.py:set=mutual
    python run.py train --config=configs/mutual.py:set=mutual

Data: the MuTual files under $DLM_DATA_DIR/mutual. Hardware: two CPU cores. Time: not measured yet.
Expected: not measured yet; chance chooses 25 % right.
What cannot be done: the answers of `test` are withheld, so nothing of it is scored.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base
from dlm.core.config import arguments


def get_config(arg: str = "set=mutual") -> ConfigDict:
    """One set: `set=mutual` or `mutual_plus`."""
    config = base()
    config.data.name = "mutual"
    config.data.options = ConfigDict(arguments(arg, set="mutual"))
    config.data.length = 512
    config.data.rows = 8
    config.tokenizer.vocab_size = 4096

    config.model.num_layers = 3
    config.model.width = 128
    config.model.num_heads = 4
    config.model.init_stddev = 0.06
    config.model.max_length = 512
    config.model.dropout = 0.1

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 0.04
    config.train.epochs = 3.0
    config.train.eval_every = 200
    config.train.patience = 3
    config.eval.splits = ("validation",)
    config.eval.dialogues = 50
    config.eval.scorers = ("exact_match",)
    return config
