"""Sections of a doctor's note, made of a conversation, from scratch: MTS-Dialog.

    python run.py data  --config=configs/mts_dialog.py
    python run.py train --config=configs/mts_dialog.py

Data: the MTS-Dialog files under $DLM_DATA_DIR/mts-dialog. Hardware: two CPU cores. Time: not
measured yet. Expected: not measured yet; 1,201 conversations are too few for a model from scratch
to summarise well.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base


def get_config(arg: str = "") -> ConfigDict:
    """It takes no argument."""
    config = base()
    config.data.name = "mts_dialog"
    config.data.length = 3072
    config.data.rows = 1
    config.tokenizer.vocab_size = 4096

    config.model.num_layers = 3
    config.model.width = 128
    config.model.num_heads = 4
    config.model.init_stddev = 0.06
    config.model.max_length = 3072
    config.model.dropout = 0.1

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 0.04
    config.train.epochs = 10.0
    config.train.eval_every = 200
    config.train.patience = 3
    config.eval.splits = ("validation", "test", "test_2")
    config.eval.dialogues = 50
    config.eval.scorers = ("intent_accuracy", "rouge", "bleu")
    return config
