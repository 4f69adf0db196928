"""BANKING77: the intent of a customer's message to a bank, of 77.

A message is the user's, its label the assistant's `intent`; nothing is replied. The release has no
validation split: a share of the training messages is held out, by the hash of their text. `shots`
= n learns from n of the others of each intent, drawn by that hash too: the paper has 10 and 30, but
its draw is not published. What is held out stays.

Source: Casanueva et al.: Efficient Intent Detection with Dual Sentence Encoders, NLP4ConvAI 2020,
arXiv:2003.04807; banking_data/*.csv of the release.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dlm.core.config import parse
from dlm.corpora import splits as splits_module
from dlm.corpora.published import counted, find_files, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.splits import asked, share_of, side
from dlm.corpora.tables import csv_rows, reader_digest
from dlm.corpora.tfds_store import build
from dlm.dialogue.schema import Dialogue, Message

COUNTS = {"train": 10003, "test": 3080}  # measured on the release
HELD_OUT = 989  # of them, under the default share

CARD = Card(
    task="intents",
    description="BANKING77: customers' messages to a bank, 77 intents.",
    citation=(
        "Inigo Casanueva et al.: Efficient Intent Detection with Dual Sentence Encoders, "
        "NLP4ConvAI 2020"
    ),
    licence="CC BY 4.0",
    counts={"train": 10003 - HELD_OUT, "validation": HELD_OUT, "test": 3080},
    folder="banking77",
    files=("banking_data/train.csv", "banking_data/test.csv"),
    remedy=(
        "take the folder banking_data of the GitHub repository PolyAI-LDN/task-specific-datasets "
        "and name the folder that holds it in data.options.path, or put it at "
        "$DLM_DATA_DIR/banking77"
    ),
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      shots: training messages of each intent, 30 or 10 in the paper (an intent that has fewer
        brings all); 0 = all.
      validation_share: share of the training messages held out, above 0 and below 1.
      path: folder that holds banking_data; empty: `$DLM_DATA_DIR/banking77`.
    """

    shots: int = 0
    validation_share: float = 0.1
    path: str = ""

    def __post_init__(self) -> None:
        if self.shots < 0:
            raise ValueError(f"shots={self.shots} is no number of messages; 0 = all")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share={self.validation_share} is not between 0 and 1")


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens the corpus.

    Raises:
      UserError: a file that is absent, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    root = root_of(CARD, config.path)
    train, test = find_files(CARD, root, CARD.files)
    share = config.validation_share
    read = partial(read_messages, train, "train")
    splits = {
        "train": partial(_few, partial(side, read, share, False), config.shots),
        "validation": partial(side, read, share, True),
        "test": partial(read_messages, test, "test"),
    }
    digest = reader_digest(config, root, (train, test), sys.modules[__name__], splits_module)
    return build("banking77", digest, splits, data_dir, card=CARD)


def read_messages(path: Path, split: str) -> Iterator[Dialogue]:
    """The messages of a file, `train-0` the first of the training file's.

    Raises:
      UserError: not a row of a text and a category, with its line; other counts than published.
    """
    return counted(_read(path, split), (COUNTS[split], COUNTS[split]), path, CARD)


def _read(path: Path, split: str) -> Iterator[Dialogue]:
    for number, (_, row) in enumerate(csv_rows(path, ("text", "category"))):
        intent = Message("assistant", row["category"], "intent")
        yield Dialogue(f"{split}-{number}", (Message("user", row["text"]), intent))


def _few(read: Callable[[], Iterable[Dialogue]], shots: int) -> Iterator[Dialogue]:
    """Of each intent the `shots` messages with the lowest hashes, in their order; 0 = all."""
    drawn: dict[Any, list[str]] = {}
    for dialogue in sorted(read(), key=lambda dialogue: share_of(asked(dialogue))):
        drawn.setdefault(dialogue.messages[1].content, []).append(dialogue.id)
    kept = {id for ids in drawn.values() for id in ids[: shots or None]}
    return (dialogue for dialogue in read() if dialogue.id in kept)
