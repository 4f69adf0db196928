"""CamRest676 with its database, from scratch: intent, state, query, act and reply.

    python run.py data  --config=configs/camrest676.py
    python run.py train --config=configs/camrest676.py

The queries that the model writes are executed in live evaluation and in chat. Data: data and db of
the release under $DLM_DATA_DIR/camrest676. Hardware: two CPU cores. Time: not measured yet.
Expected: not measured yet; after 200 of 500 updates the validation loss is 1.03, 26.2 % of states
and 6.0 % of responses are right, and none of 20 simulated users is served. The gold replies have an
inform of 93.3 % and a success of 83.0 % on validation (91.1 and 81.5 on test).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base


def get_config(arg: str = "") -> ConfigDict:
    """It takes no argument."""
    config = base()
    config.tools = "dlm.corpora.camrest676"

    config.data.name = "camrest676"
    config.data.length = 1024
    config.data.rows = 8
    config.tokenizer.vocab_size = 2048

    config.model.num_layers = 3
    config.model.width = 128
    config.model.num_heads = 4
    config.model.init_stddev = 0.06
    config.model.max_length = 2048
    config.model.dropout = 0.1

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 0.04
    config.train.epochs = 20.0
    config.train.eval_every = 200
    config.train.patience = 3
    config.train.metric = "validation/state_accuracy"
    config.eval.splits = ("validation", "test")
    config.eval.scorers = ("joint_goal_accuracy", "slot_f1", "call_match", "inform_success", "bleu")
    config.eval.dialogues = 20
    config.eval.users = "dlm.corpora.camrest676_user"
    config.eval.simulations = 20
    return config
