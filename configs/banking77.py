"""The 77 intents of BANKING77, all of its messages or a few of each intent, from scratch.

    python run.py data  --config=configs/banking77.py:shots=0
    python run.py train --config=configs/banking77.py:shots=10

Data: banking_data of the release under $DLM_DATA_DIR/banking77. Hardware: one CPU core. Time: 3
minutes. Expected: 86.6 % of the test intents (`test/response_accuracy`) after ten epochs of all
messages (`experiments/results/intents`); the paper's tuned BERT has 93.7 %. Few messages: not
measured yet.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base
from dlm.core.config import arguments


def get_config(arg: str = "shots=0") -> ConfigDict:
    """All training messages (`shots=0`), or so many of each intent: `shots=10`, `shots=30`."""
    config = base()
    config.data.name = "banking77"
    config.data.options = ConfigDict({"shots": arguments(arg, shots=0)["shots"]})
    config.data.length = 256
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
    config.train.steps = 560  # of however few messages; ten epochs of all
    config.train.eval_every = 140
    config.train.metric = "validation/response_accuracy"
    config.eval.splits = ("test",)
    config.eval.scorers = ("intent_accuracy",)
    config.eval.dialogues = 3080  # all: the published order is by intent
    return config
