"""CLINC150: the intent of one query, of 150 in ten domains, or `oos` where it is none of them.

A query is a user's message, its label the assistant's `intent`; nothing is replied. The queries out
of scope stand in the same splits, under a task of their own, so that

    test/task:in_scope/response_accuracy        is the paper's accuracy over the 4,500 of scope
    test/task:out_of_scope/response_accuracy    is its recall over the 1,000 out of it

Variants: `full`, `small` (50 queries an intent), `imbalanced` (25 to 100), and `oos_plus` (more
training queries out of scope); validation and test are the same.

Source: Larson et al.: An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction,
EMNLP-IJCNLP 2019, arXiv:1909.02027; data/*.json of the release.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dlm.core.config import parse
from dlm.core.errors import UserError
from dlm.core.files import read_json
from dlm.corpora.published import counted, find_files, reading, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tables import reader_digest
from dlm.corpora.tfds_store import build
from dlm.dialogue.schema import Dialogue, Message

SPLITS = {"train": "train", "validation": "val", "test": "test"}

# Measured on the release: variant -> split -> queries, those out of scope included.
COUNTS = {
    variant: {"train": train, "validation": 3100, "test": 5500}
    for variant, train in {
        "full": 15100,
        "small": 7600,
        "imbalanced": 10625,
        "oos_plus": 15250,
    }.items()
}
CARD = Card(
    task="intents, out of scope",
    description="CLINC150: queries to an assistant, 150 intents and queries out of scope.",
    citation=(
        "Stefan Larson et al.: An Evaluation Dataset for Intent Classification and Out-of-Scope "
        "Prediction, EMNLP-IJCNLP 2019"
    ),
    licence="CC BY 3.0",
    counts=COUNTS["full"],
    folder="clinc150",
    files=("data/data_full.json",),
    remedy=(
        "take the GitHub repository clinc/oos-eval and name its folder in data.options.path, or "
        "put it at $DLM_DATA_DIR/clinc150"
    ),
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      variant: full, small, imbalanced or oos_plus.
      path: folder of the release; empty: `$DLM_DATA_DIR/clinc150`.
    """

    variant: str = "full"
    path: str = ""


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens one variant.

    Raises:
      UserError: an unknown variant, a file that is absent, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    if config.variant not in COUNTS:
        known = ", ".join(COUNTS)
        raise UserError(f"data.options.variant={config.variant!r} is none of: {known}")
    root = root_of(CARD, config.path)
    [path] = find_files(CARD, root, [f"data/data_{config.variant}.json"])
    return build(
        "clinc150",
        reader_digest(config, root, [path], sys.modules[__name__]),
        {split: partial(_split, path, config.variant, split) for split in SPLITS},
        data_dir,
        card=CARD,
    )


def _split(path: Path, variant: str, split: str) -> Iterator[Dialogue]:
    wanted = COUNTS[variant][split]
    return counted(read_queries(path, split), (wanted, wanted), path, CARD)


def read_queries(path: Path, split: str) -> Iterator[Dialogue]:
    """The queries of a split: those of scope, then those out of it (`train-7`, `train-oos-0`)."""
    name = SPLITS[split]
    record = read_json(path)
    for part, task, prefix in ((name, "in_scope", ""), (f"oos_{name}", "out_of_scope", "oos-")):
        with reading(f"{path}: {part}", CARD):
            for number, (query, intent) in enumerate(record[part]):
                messages = (Message("user", query), Message("assistant", intent, "intent"))
                yield Dialogue(f"{split}-{prefix}{number}", messages, task=task)
