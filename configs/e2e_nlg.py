"""Texts that say what is known of a restaurant, from scratch: E2E NLG.

    python run.py data  --config=configs/e2e_nlg.py
    python run.py train --config=configs/e2e_nlg.py

Data: the E2E NLG files under $DLM_DATA_DIR/e2e-nlg. Hardware: two CPU cores. Time: not measured
yet. Expected: not measured yet; test BLEU of a tuned GPT-2 medium is 68.2 with several references
(Hu et al. 2021, Table 3).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base


def get_config(arg: str = "") -> ConfigDict:
    """It takes no argument."""
    config = base()
    config.data.name = "e2e_nlg"
    config.data.length = 256
    config.data.rows = 16
    config.tokenizer.vocab_size = 2048

    config.model.num_layers = 3
    config.model.width = 128
    config.model.num_heads = 4
    config.model.init_stddev = 0.06
    config.model.max_length = 256
    config.model.dropout = 0.1

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 0.04
    config.train.epochs = 2.0
    config.train.eval_every = 200
    config.train.patience = 3
    config.eval.splits = ("validation", "test")
    config.eval.dialogues = 50
    config.eval.scorers = ("bleu", "rouge")
    return config
