"""Links of small knowledge graphs that are asked for, from scratch.

    python run.py data  --config=configs/kg_small.py:graph=nations
    python run.py train --config=configs/kg_small.py:graph=nations

Data: the graphs under $DLM_DATA_DIR/kg-small. Hardware: two CPU cores. Time: 12 minutes with a
fraction of them (140 updates). Expected, nations: a Hits@1 of 78.0 % on the first 200 validation
questions and 85.0 % on those of test, where the commonest answer has 64.0 % and 58.0 %.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base
from dlm.core.config import arguments


def get_config(arg: str = "graph=nations") -> ConfigDict:
    """One graph: `graph=nations`, `kinship`, `umls`, `countries_S1`, `_S2` or `_S3`."""
    config = base()
    config.data.name = "kg_small"
    config.data.options = ConfigDict(arguments(arg, graph="nations"))
    config.data.length = 64
    config.data.rows = 64
    config.tokenizer.vocab_size = 1024

    config.model.num_layers = 2
    config.model.width = 128
    config.model.num_heads = 4
    config.model.init_stddev = 0.06
    config.model.max_length = 64
    config.model.dropout = 0.1

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 0.04
    config.train.epochs = 20.0
    config.train.eval_every = 200
    config.train.patience = 3
    config.eval.splits = ("validation", "test")
    config.eval.dialogues = 200
    config.eval.scorers = ("hits_at_1",)
    return config
