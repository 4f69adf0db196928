"""The emotion of each utterance in conversations of a series, from scratch: MELD.

    python run.py data  --config=configs/meld.py:set=meld
    python run.py train --config=configs/meld.py:set=meld

Data: the MELD files under $DLM_DATA_DIR/meld. Hardware: two CPU cores. Time: not measured yet.
Expected: not measured yet; neutral is 48 % of the test utterances.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base
from dlm.core.config import arguments


def get_config(arg: str = "set=meld") -> ConfigDict:
    """One set: `set=meld`, `dyadic` or `emorynlp`."""
    config = base()
    config.data.name = "meld"
    config.data.options = ConfigDict(arguments(arg, set="meld"))
    config.data.length = 1024
    config.data.rows = 4
    config.tokenizer.vocab_size = 4096

    config.model.num_layers = 3
    config.model.width = 128
    config.model.num_heads = 4
    config.model.init_stddev = 0.06
    config.model.max_length = 1024
    config.model.dropout = 0.1

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 0.04
    config.train.epochs = 6.0
    config.train.eval_every = 200
    config.train.patience = 3
    config.eval.splits = ("validation", "test")
    config.eval.dialogues = 50
    config.eval.scorers = ("emotion_f1",)
    return config
