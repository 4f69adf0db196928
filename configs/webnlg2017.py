"""Texts that say facts of DBpedia, from scratch: WebNLG 2017.

    python run.py data  --config=configs/webnlg2017.py
    python run.py train --config=configs/webnlg2017.py

Data: the WebNLG 2017 files under $DLM_DATA_DIR/webnlg2017. Hardware: two CPU cores. Time: not
measured yet. Expected: not measured yet; names that training does not have are hard for a model of
this size (test_unseen).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base


def get_config(arg: str = "") -> ConfigDict:
    """It takes no argument."""
    config = base()
    config.data.name = "webnlg2017"
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
    config.train.epochs = 4.0
    config.train.eval_every = 200
    config.train.patience = 3
    config.eval.splits = ("validation", "test", "test_unseen")
    config.eval.dialogues = 50
    config.eval.scorers = ("bleu", "rouge")
    return config
