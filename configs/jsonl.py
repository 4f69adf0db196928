"""Fine-tunes a small GPT on your own dialogues: interactive format, OpenAI, ShareGPT or pairs.

    python run.py train --config=configs/jsonl.py --config.data.path=my.jsonl

Hardware: two CPU cores. Time: a few minutes for a few thousand short dialogues. Expected: depends
on the data; read `report.md` in the workdir.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base


def get_config(arg: str = "") -> ConfigDict:
    """One JSONL file; `data.path` is given on the command line."""
    config = base()
    config.data.name = "jsonl"
    config.data.length = 512
    config.data.rows = 8
    config.tokenizer.vocab_size = 2048

    config.model.num_layers = 4
    config.model.width = 192
    config.model.num_heads = 6
    config.model.max_length = 1024
    config.model.dropout = 0.1

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 0.04
    config.train.epochs = 5.0
    config.train.eval_every = 100
    config.train.patience = 5
    config.eval.splits = ("validation",)
    return config
