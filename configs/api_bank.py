r"""Tool calls of API-Bank: an evaluation set, so there is nothing to train on.

    python run.py data --config=configs/api_bank.py
    python run.py eval --workdir=runs/NAME --config.data.name=api_bank \
        --config.data.options="{}" --config.eval.splits="('test',)"

The second line scores a run of any weights (`import`ed, or trained) by its own tokenizer and
template; `train` cannot run. Data: the release under $DLM_DATA_DIR/api-bank. Hardware: two CPU
cores. Time: not measured yet. Expected: not measured yet.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dlm.commands.settings import base


def get_config(arg: str = "") -> ConfigDict:
    """It takes no argument."""
    config = base()
    config.data.name = "api_bank"
    config.data.length = 3072
    config.data.rows = 1
    config.tokenizer.vocab_size = 2048

    config.model.num_layers = 3
    config.model.width = 128
    config.model.num_heads = 4
    config.model.max_length = 3072

    config.train.epochs = 1.0
    config.eval.splits = ("test",)
    config.eval.scorers = ("call_match", "bleu")
    config.eval.dialogues = 10
    return config
