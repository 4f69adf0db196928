"""A small GPT from scratch on the embedded concierge corpus: booking, one-hop questions, refusals.

    python run.py                       # the same as: python run.py quickstart

Hardware: two CPU cores. Time: within five minutes. Expected: at least 90 % of replies exactly right
on held-out dialogues (`test/response_accuracy`) and on names that never occur in training
(`test_unseen/response_accuracy`).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base


def get_config(arg: str = "") -> ConfigDict:
    """The quickstart run; it takes no argument."""
    config = base()
    config.tools = "dlm.corpora.concierge.world"

    config.data.name = "concierge"
    config.data.options = ConfigDict({"skills": ("booking", "question", "out_of_scope")})
    config.data.length = 512
    config.data.rows = 8
    config.tokenizer.vocab_size = 768

    config.model.num_layers = 3
    config.model.width = 128
    config.model.num_heads = 4
    config.model.init_stddev = 0.06
    config.model.max_length = 1024

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 0.04
    config.train.steps = 600
    config.train.eval_every = 100
    config.eval.splits = ("test", "test_unseen")
    config.eval.rollouts = 50
    return config
