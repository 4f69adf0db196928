"""Replies of MultiWOZ from scratch: of the files that are usually there the text is learned.

    python run.py train --config=configs/multiwoz.py:version=text
    python run.py data  --config=configs/multiwoz.py:version=2.1
    python run.py eval  --workdir=runs/multiwoz-version=text \
        --config.data.options="{'version': '2.1'}"

States and acts: `version=2.2` has them for every split, where its JSON is there; `version=2.1` for
validation and test only, so it cannot be trained on. The last line scores the replies against the
goals of 2.1 (inform, success), which text has none of. Data: under $DLM_DATA_DIR/multiwoz (see
`data --list`). Hardware: two CPU cores. Time: not measured yet. Expected: not measured yet; the
gold replies have an inform of 96.9 % and a success of 93.4 % on validation (96.1 and 92.6 on test),
silence has 18.2 % and 2.1 %.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base
from dlm.core.config import arguments


def get_config(arg: str = "version=text") -> ConfigDict:
    """One version: `version=text`, `2.1` or `2.2`."""
    config = base()
    config.data.name = "multiwoz"
    config.data.options = ConfigDict({"version": arguments(arg, version="text")["version"]})
    config.data.length = 1024
    config.data.rows = 4
    config.tokenizer.vocab_size = 4096

    config.model.num_layers = 3
    config.model.width = 128
    config.model.num_heads = 4
    config.model.init_stddev = 0.06
    config.model.max_length = 1024
    config.model.dropout = 0.1

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 0.04
    config.train.epochs = 2.0
    config.train.eval_every = 200
    config.train.patience = 3
    config.eval.splits = ("validation", "test")
    config.eval.scorers = ("joint_goal_accuracy", "slot_f1", "act_f1", "inform_success", "bleu")
    config.eval.dialogues = 20
    return config
