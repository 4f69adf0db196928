"""Values of slots, word for word: Restaurants-8k and its few-shot ladder, from scratch.

    python run.py data  --config=configs/restaurants8k.py:train=0
    python run.py train --config=configs/restaurants8k.py:train=3

`train` = k learns from 1/2^k of the messages, in as many updates;
--config.data.options.subset=dstc8/Buses_1 takes one of the services of SGD. Data: span_extraction
of the release under $DLM_DATA_DIR/restaurants8k. Hardware: two CPU cores. Time: not measured yet.
Expected: not measured yet; the paper's Span-ConveRT has a slot F1 of .96 on all messages and .89 on
1/8 (k = 3).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base
from dlm.core.config import arguments


def get_config(arg: str = "train=0") -> ConfigDict:
    """One step of the ladder: `train=0` (all messages) to `train=8` (32)."""
    config = base()
    config.data.name = "restaurants8k"
    config.data.options = ConfigDict({"train": arguments(arg, train=0)["train"]})
    config.data.length = 256
    config.data.rows = 16
    config.tokenizer.vocab_size = 1024

    config.model.num_layers = 3
    config.model.width = 128
    config.model.num_heads = 4
    config.model.init_stddev = 0.06
    config.model.max_length = 256
    config.model.dropout = 0.2

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 0.04
    config.train.steps = 460  # of however few messages; ten epochs of all
    config.train.eval_every = 115
    config.train.metric = "validation/state_accuracy"
    config.eval.splits = ("test",)
    config.eval.scorers = ("slot_f1", "joint_goal_accuracy")
    config.eval.dialogues = 3731  # all
    return config
