"""Everyday chat to be scored on: the official validation and test of DailyDialog.

    python run.py data  --config=configs/dailydialog.py
    python run.py eval  --config=configs/dailydialog.py --workdir=runs/xdailydialog-language=en

Data: the DailyDialog files under $DLM_DATA_DIR/dailydialog-valtest. Hardware: two CPU cores. Time:
not measured yet. Expected: not measured yet.
What cannot be done: there is no training split, so `train` is refused. The second command scores a
run of configs/xdailydialog.py, whose model this is.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base


def get_config(arg: str = "") -> ConfigDict:
    """It takes no argument."""
    config = base()
    config.data.name = "dailydialog"
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
    config.eval.scorers = ("act_f1", "bleu", "distinct")
    return config
