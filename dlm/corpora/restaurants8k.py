"""Restaurants-8k: values of slots in one message, word for word, and four services of SGD likewise.

What the system has just asked for, where it has, is a `context` (`requested: people`); the user's
message follows, and the assistant's `state` holds the values, each a span of the message:

    user   6 people, and my name is Kim      state   last_name=Kim; people=6 people

Where the spans begin and end in the message is in the dialogue's meta. `train` = k takes the
published training file of 1/2^k of the messages: the steps of the few-shot ladder. Of it a share is
held out for validation, by the hash of the text: the release has no validation split.

Source: Coope et al.: Span-ConveRT: Few-shot Span Extraction for Dialog with Pretrained
Conversational Representations, ACL 2020, arXiv:2005.08866; span_extraction/ of the release.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dlm.core.config import parse
from dlm.corpora import splits as splits_module
from dlm.corpora.published import counted, find_files, read_records, reading, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.splits import side
from dlm.corpora.tables import reader_digest
from dlm.corpora.tfds_store import build
from dlm.dialogue import slots
from dlm.dialogue.checks import kind
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.slots import spell_state

# Measured on the release: subset -> messages of train_0, train_1, ..., and of test.
COUNTS = {
    "restaurant8k": ((8198, 4099, 2049, 1024, 512, 256, 128, 64, 32), 3731),
    "dstc8/Buses_1": ((1133, 566, 283, 141, 70, 35), 377),
    "dstc8/Events_1": ((1498, 749, 374, 187, 93, 47), 521),
    "dstc8/Homes_1": ((2064, 1032, 516, 258, 129, 65), 587),
    "dstc8/RentalCars_1": ((874, 437, 218, 109, 54, 27), 328),
}
HELD_OUT = 794  # of train_0 of restaurant8k, under the default share

CARD = Card(
    task="slots",
    description="Restaurants-8k: values of slots in messages to a restaurant; few-shot ladders.",
    citation=(
        "Sam Coope et al.: Span-ConveRT: Few-shot Span Extraction for Dialog with Pretrained "
        "Conversational Representations, ACL 2020"
    ),
    licence="CC BY 4.0",
    counts={"train": 8198 - HELD_OUT, "validation": HELD_OUT, "test": 3731},
    folder="restaurants8k",
    files=("span_extraction/restaurant8k/train_0.json", "span_extraction/restaurant8k/test.json"),
    remedy=(
        "take the folder span_extraction of the GitHub repository "
        "PolyAI-LDN/task-specific-datasets and name the folder that holds it in "
        "data.options.path, or put it at $DLM_DATA_DIR/restaurants8k"
    ),
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      subset: restaurant8k, or dstc8/ and Buses_1, Events_1, Homes_1 or RentalCars_1.
      train: the training file: 0 = all, k = 1/2^k of it, up to 8 (dstc8: 5).
      validation_share: share of the training file held out, above 0 and below 1.
      path: folder that holds span_extraction; empty: `$DLM_DATA_DIR/restaurants8k`.
    """

    subset: str = "restaurant8k"
    train: int = 0
    validation_share: float = 0.1
    path: str = ""

    def __post_init__(self) -> None:
        if self.subset not in COUNTS:
            raise ValueError(f"subset={self.subset!r} is none of: {', '.join(COUNTS)}")
        last = len(COUNTS[self.subset][0]) - 1
        if not 0 <= self.train <= last:
            raise ValueError(f"train={self.train} is no file of {self.subset}; use 0 to {last}")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share={self.validation_share} is not between 0 and 1")


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens one step of a ladder.

    Raises:
      UserError: an unknown option, a file that is absent, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    folder = f"span_extraction/{config.subset}"
    names = (f"{folder}/train_{config.train}.json", f"{folder}/test.json")
    root = root_of(CARD, config.path)
    train, test = find_files(CARD, root, names)
    share = config.validation_share
    sizes, test_size = COUNTS[config.subset]
    read = partial(read_messages, train, "train", sizes[config.train])
    splits = {
        "train": partial(side, read, share, False),
        "validation": partial(side, read, share, True),
        "test": partial(read_messages, test, "test", test_size),
    }
    modules = (sys.modules[__name__], splits_module, slots)
    digest = reader_digest(config, root, (train, test), *modules)
    return build("restaurants8k", digest, splits, data_dir, card=CARD)


def read_messages(path: Path, split: str, size: int) -> Iterator[Dialogue]:
    """The messages of a file, of which there are `size`; `train-0` is the first.

    Raises:
      UserError: a record of another shape, with its number from 0; another number of them.
    """
    return counted(_read(path, split), (size, size), path, CARD)


def _read(path: Path, split: str) -> Iterator[Dialogue]:
    for number, record in enumerate(read_records(path, CARD)):
        with reading(f"{path}: record {number}", CARD):
            dialogue = parse_message(record, f"{split}-{number}")
        yield dialogue


def parse_message(record: Mapping[str, Any], id: str) -> Dialogue:
    """One record as a dialogue; a span that begins the message has no `startIndex`."""
    text = record["userInput"]["text"]
    if not isinstance(text, str):
        raise TypeError(f"userInput.text is {kind(text)}")
    spans = {
        label["slot"]: (label["valueSpan"].get("startIndex", 0), label["valueSpan"]["endIndex"])
        for label in record.get("labels", ())
    }
    requested = record.get("context", {}).get("requestedSlots", ())
    messages = [Message("context", f"requested: {', '.join(requested)}")] if requested else []
    values = {slot: text[start:end] for slot, (start, end) in spans.items()}
    messages += [Message("user", text), Message("assistant", spell_state(values), "state")]
    meta = {"spans": {slot: list(span) for slot, span in spans.items()}}
    return Dialogue(id, tuple(messages), meta=meta)
