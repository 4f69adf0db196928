"""Everyday chat with acts from scratch: XDailyDialog in English, Italian or Chinese.

    python run.py data  --config=configs/xdailydialog.py:language=en
    python run.py train --config=configs/xdailydialog.py:language=en

Data: the XDailyDialog release under $DLM_DATA_DIR/xdailydialog. Hardware: two CPU cores. Time: not
measured yet; it has about 6 million tokens an epoch. Expected: not measured yet; a model of this
size chats without knowing much.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base
from dlm.core.config import arguments


def get_config(arg: str = "language=en") -> ConfigDict:
    """One language: `language=en`, `it` or `zh`."""
    config = base()
    config.data.name = "xdailydialog"
    config.data.options = ConfigDict({"language": arguments(arg, language="en")["language"]})
    config.data.length = 512
    config.data.rows = 8
    config.tokenizer.vocab_size = 4096

    config.model.num_layers = 4
    config.model.width = 192
    config.model.num_heads = 6
    config.model.init_stddev = 0.06
    config.model.max_length = 1024
    config.model.dropout = 0.1

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 0.04
    config.train.epochs = 3.0
    config.train.eval_every = 200
    config.train.patience = 3
    config.eval.splits = ("validation", "test")
    config.eval.dialogues = 20
    config.eval.scorers = ("bleu", "distinct", "act_f1")
    return config
