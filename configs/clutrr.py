"""Family relations that a story implies, from scratch: CLUTRR.

    python run.py data  --config=configs/clutrr.py:set=089907f8
    python run.py train --config=configs/clutrr.py:set=089907f8

Data: the six CLUTRR sets under $DLM_DATA_DIR/clutrr. Hardware: two CPU cores. Time: not measured
yet. Expected: not measured yet; accuracy falls with the number of steps beyond those of training.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base
from dlm.core.config import arguments


def get_config(arg: str = "set=089907f8") -> ConfigDict:
    """One set: `set=089907f8`, `db9b8f04`, `7c5b0e70`, `06b8f2a1`, `523348e6` or `d83ecc3e`."""
    config = base()
    config.data.name = "clutrr"
    config.data.options = ConfigDict(arguments(arg, set="089907f8"))
    config.data.length = 768
    config.data.rows = 8
    config.tokenizer.vocab_size = 1024

    config.model.num_layers = 3
    config.model.width = 128
    config.model.num_heads = 4
    config.model.init_stddev = 0.06
    config.model.max_length = 768
    config.model.dropout = 0.1

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 0.04
    config.train.epochs = 4.0
    config.train.eval_every = 200
    config.train.patience = 3
    config.eval.splits = ("validation", "test_k2", "test_k3")
    config.eval.dialogues = 50
    config.eval.scorers = ("hits_at_1",)
    return config
