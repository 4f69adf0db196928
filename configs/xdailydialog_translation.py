"""Everyday chat translated inside a conversation, from scratch: XDailyDialog.

    python run.py data  --config=configs/xdailydialog_translation.py:source=en,target=it
    python run.py train --config=configs/xdailydialog_translation.py:source=en,target=it

Data: the XDailyDialog release under $DLM_DATA_DIR/xdailydialog. Hardware: two CPU cores. Time: not
measured yet. Expected: not measured yet; 7,702 conversations are few for a translator.
What cannot be done: German has no training split, so with it `train` is refused.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base
from dlm.core.config import arguments


def get_config(arg: str = "source=en,target=it") -> ConfigDict:
    """Two languages: `source=en,target=it`; of en, it, zh and de."""
    config = base()
    config.data.name = "xdailydialog_translation"
    config.data.options = ConfigDict(arguments(arg, source="en", target="it"))
    config.data.length = 768
    config.data.rows = 4
    config.tokenizer.vocab_size = 8192

    config.model.num_layers = 4
    config.model.width = 192
    config.model.num_heads = 6
    config.model.init_stddev = 0.06
    config.model.max_length = 768
    config.model.dropout = 0.1

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 0.04
    config.train.epochs = 3.0
    config.train.eval_every = 200
    config.train.patience = 3
    config.eval.splits = ("validation", "test")
    config.eval.dialogues = 20
    config.eval.scorers = ("bleu",)
    return config
