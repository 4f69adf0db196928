"""Schema-Guided Dialogue (DSTC8 release) from scratch: intents, states, acts and replies.

    python run.py data  --config=configs/sgd.py:schema=0
    python run.py train --config=configs/sgd.py:schema=0

`schema=1` shows the schemas of the services, as the published task does (longer dialogues). The
test split is unlabelled: its intents and states cannot be scored, validation's are. The first 300
dialogues of a split are scored (--config.eval.at_most=0: all). Data: the release under
$DLM_DATA_DIR/sgd. Hardware: two CPU cores. Time: not measured yet. Expected: not measured yet; the
baseline has a joint goal accuracy of .383 on validation (SGD-All, fuzzy match).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base
from dlm.core.config import arguments


def get_config(arg: str = "schema=0") -> ConfigDict:
    """Without (`schema=0`) or with (`schema=1`) the schemas of the services."""
    config = base()
    config.data.name = "sgd"
    schema = bool(arguments(arg, schema=0)["schema"])
    config.data.options = ConfigDict({"schema": schema})
    config.data.length = 2048  # at 1024 a quarter of the training turns falls off
    config.data.rows = 4
    config.tokenizer.vocab_size = 4096

    config.model.num_layers = 3
    config.model.width = 128
    config.model.num_heads = 4
    config.model.init_stddev = 0.06
    config.model.max_length = 2048
    config.model.dropout = 0.1

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 0.04
    config.train.epochs = 1.0
    config.train.eval_every = 500
    config.train.patience = 3
    config.train.metric = "validation/state_accuracy"
    config.eval.splits = ("validation", "test")
    config.eval.at_most = 300
    config.eval.scorers = ("intent_accuracy", "joint_goal_accuracy", "slot_f1", "act_f1", "bleu")
    config.eval.dialogues = 20
    return config
