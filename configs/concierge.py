"""A small GPT from scratch on the embedded concierge corpus, all skills.

    python run.py train --config=configs/concierge.py

Booking, corrections and cancellations, several bookings with values carried over, questions over
one and several edges of the city's graph, requests out of scope, summaries. Hardware: two CPU
cores. Time: 40 minutes (on one core). Expected: 98 % of responses exactly right on held-out
dialogues and on names that never occur in training.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base
from dlm.corpora.concierge.skills import SKILLS


def get_config(arg: str = "") -> ConfigDict:
    """All skills; it takes no argument."""
    config = base()
    config.tools = "dlm.corpora.concierge.world"

    config.data.name = "concierge"
    config.data.options = ConfigDict({"skills": tuple(SKILLS), "dialogues": 40_000})
    config.data.length = 512
    config.data.rows = 16
    config.tokenizer.vocab_size = 1024

    config.model.num_layers = 3
    config.model.width = 128
    config.model.num_heads = 4
    config.model.init_stddev = 0.06
    config.model.max_length = 1024

    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup = 0.04
    config.train.steps = 2400
    config.train.eval_every = 400
    config.eval.splits = ("test", "test_unseen")
    config.eval.rollouts = 50
    config.eval.users = "dlm.corpora.concierge.user"
    config.eval.simulations = 50
    return config
