"""Questions on conversations, three answers to choose from, from scratch: DREAM.

    python run.py data  --config=configs/dream.py
    python run.py train --config=configs/dream.py

Data: the DREAM files under $DLM_DATA_DIR/dream. Hardware: two CPU cores. Time: not measured yet.
Expected: not measured yet; chance chooses 33 % right.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base


def get_config(arg: str = "") -> ConfigDict:
    """It takes no argument."""
    config = base()
    config.data.name = "dream"
    config.data.length = 2048
    config.data.rows = 2
    config.tokenizer.vocab_size = 4096

    config.model.num_layers = 3
    config.model.width = 128
    config.model.num_heads = 4
    config.model.init_stddev = 0.06
    config.model.max_length = 2048
    config.model.dropout = 0.1

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 0.04
    config.train.epochs = 3.0
    config.train.eval_every = 200
    config.train.patience = 3
    config.eval.splits = ("validation", "test")
    config.eval.dialogues = 50
    config.eval.scorers = ("exact_match",)
    return config
