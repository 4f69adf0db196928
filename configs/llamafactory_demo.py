"""Tool calls, and two sets of preferences, from scratch: the demo sets of LLaMA-Factory.

    python run.py data  --config=configs/llamafactory_demo.py:set=toolcall
    python run.py train --config=configs/llamafactory_demo.py:set=toolcall

Data: the demo files under $DLM_DATA_DIR/llamafactory-demo. Hardware: two CPU cores. Time: not
measured yet. Expected: not measured yet; 240 conversations show that it runs.
With set=dpo the chosen reply is learned (configs/preference.py compares the two). What cannot be
done: no loss reads a label, so with set=kto every last reply is learned, wanted or not.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base
from dlm.core.config import arguments


def get_config(arg: str = "set=toolcall") -> ConfigDict:
    """One set: `set=toolcall`, `dpo` or `kto`."""
    config = base()
    config.data.name = "llamafactory_demo"
    config.data.options = ConfigDict(arguments(arg, set="toolcall"))
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
    config.train.epochs = 6.0
    config.train.eval_every = 200
    config.train.patience = 3
    config.eval.splits = ("validation", "test")
    config.eval.dialogues = 50
    config.eval.scorers = ("exact_match", "call_match", "bleu")
    return config
