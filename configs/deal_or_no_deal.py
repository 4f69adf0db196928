"""Two people share out things that each values otherwise, from scratch: Deal or No Deal.

    python run.py data  --config=configs/deal_or_no_deal.py
    python run.py train --config=configs/deal_or_no_deal.py

Data: the negotiations under $DLM_DATA_DIR/deal-or-no-deal. Hardware: two CPU cores. Time: not
measured yet. Expected: not measured yet.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base


def get_config(arg: str = "") -> ConfigDict:
    """It takes no argument."""
    config = base()
    config.data.name = "deal_or_no_deal"
    config.data.length = 512
    config.data.rows = 8
    config.tokenizer.vocab_size = 2048

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
    config.eval.splits = ("validation", "test")
    config.eval.dialogues = 50
    config.eval.scorers = ("exact_match", "act_f1", "bleu", "distinct")
    return config
