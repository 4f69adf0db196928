"""Intents of CLINC150 with queries out of scope, from scratch.

    python run.py data  --config=configs/clinc150.py:variant=full
    python run.py train --config=configs/clinc150.py:variant=full

Variants: full, small, imbalanced, oos_plus. Data: the release under $DLM_DATA_DIR/clinc150.
Hardware: one CPU core. Time: 4 minutes for `full`. Expected of `full`: 89.9 % of the queries in
scope right (`test/task:in_scope/response_accuracy`) and 25 % of those out of it found
(`test/task:out_of_scope/response_accuracy`; `experiments/results/intents`); the paper's BERT gets
96.9 % and 40.3 %. The other variants: not measured yet.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base
from dlm.core.config import arguments


def get_config(arg: str = "variant=full") -> ConfigDict:
    """One variant: `variant=full`, `small`, `imbalanced` or `oos_plus`."""
    config = base()
    config.data.name = "clinc150"
    config.data.options = ConfigDict({"variant": arguments(arg, variant="full")["variant"]})
    config.data.length = 128
    config.data.rows = 16
    config.tokenizer.vocab_size = 2048

    config.model.num_layers = 3
    config.model.width = 128
    config.model.num_heads = 4
    config.model.init_stddev = 0.06
    config.model.max_length = 256
    config.model.dropout = 0.2

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 0.04
    config.train.epochs = 10.0
    config.train.eval_every = 200
    config.train.patience = 5
    config.train.metric = "validation/response_accuracy"
    config.eval.splits = ("test",)
    config.eval.scorers = ("intent_accuracy",)
    config.eval.dialogues = 5500  # all: the published order is by intent
    return config
