"""Questions answered over paths of a knowledge graph, from scratch: PathQuestion.

    python run.py data  --config=configs/pathquestion.py:set=PQ-2H
    python run.py train --config=configs/pathquestion.py:set=PQ-2H

Data: the PathQuestion files under $DLM_DATA_DIR/pathquestion. Hardware: two CPU cores. Time: not
measured yet. Expected: not measured yet; the paper has 96.0 % of PQ-2H and 87.7 % of PQ-3H (Hits@1,
another random split).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base
from dlm.core.config import arguments


def get_config(arg: str = "set=PQ-2H") -> ConfigDict:
    """One set: `set=PQ-2H`, `PQ-3H`, `PQL-2H`, `PQL-3H`, `WC-P`, `WC-C`, ..."""
    config = base()
    config.data.name = "pathquestion"
    config.data.options = ConfigDict(arguments(arg, set="PQ-2H"))
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
    config.train.epochs = 20.0
    config.train.eval_every = 200
    config.train.patience = 3
    config.eval.splits = ("validation", "test")
    config.eval.dialogues = 200
    config.eval.scorers = ("hits_at_1", "exact_match")
    return config
