"""One small model for eight kinds of work, from scratch: a mixture of eight corpora.

    python run.py train --config=configs/all_tasks.py
    python run.py train --config=configs/all_tasks.py:alone=chat --config.train.steps=800

Restaurants with a database, intents, tool calls, questions over a graph, kinship reasoning, chat,
translation and medical notes, an eighth of the tokens each; with `alone`, one of them.
`experiments/all_tasks.py` runs both, with one tokenizer, and puts them side by side.

Data: camrest676, clinc150, llamafactory-demo, pathquestion, clutrr, xdailydialog and mts-dialog
under $DLM_DATA_DIR. Hardware: two CPU cores. Time: a budget of an hour. Expected (one seed, test;
in brackets a model of each task alone): joint goal accuracy 33 % (28), intent accuracy 83 % (88),
Hits@1 of questions 62 % (42), of kinship 87 % (76; validation), perplexity of chat 29.3 (32.9).
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base
from dlm.core.config import arguments
from dlm.core.errors import UserError

PARTS = {
    "restaurants": {"name": "camrest676"},
    "intents": {"name": "clinc150"},
    "tools": {"name": "llamafactory_demo"},
    "questions": {"name": "pathquestion"},
    "kinship": {"name": "clutrr"},
    "chat": {"name": "xdailydialog"},
    "translation": {"name": "xdailydialog_translation"},
    "notes": {"name": "mts_dialog"},
}


def get_config(arg: str = "alone=") -> ConfigDict:
    """All parts, or one of them: `alone=chat`."""
    alone = arguments(arg, alone="")["alone"]
    if alone and alone not in PARTS:
        raise UserError(f"alone={alone!r} is none of: {', '.join(PARTS)} (config argument)")
    config = base()
    config.data.name = "mixture"
    parts = {name: {**part, "weight": 1.0} for name, part in PARTS.items() if alone in ("", name)}
    config.data.options = ConfigDict({"parts": parts})
    config.data.length = 768
    config.data.rows = 8
    config.tokenizer.vocab_size = 8192

    config.model.num_layers = 3
    config.model.width = 192
    config.model.num_heads = 6
    config.model.init_stddev = 0.06
    config.model.max_length = 768
    config.model.dropout = 0.1

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup = 0.04
    config.train.steps = 1500
    config.train.eval_every = 250
    if alone:
        config.train.metric = f"validation/task:{alone}/loss"
    config.eval.splits = ("validation", "test")
    if alone == "kinship":  # its test sets are named by their length
        config.eval.splits = ("validation",)
    config.eval.at_most = 1600
    config.eval.dialogues = 400
    config.eval.scorers = (
        *("exact_match", "bleu", "intent_accuracy", "joint_goal_accuracy", "call_match"),
        *("hits_at_1", "rouge", "distinct"),
    )
    return config
