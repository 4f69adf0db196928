"""DREAM: questions on a conversation, each with three answers to choose from.

The conversation is `context`, a line an utterance (`M: What do you mean?`), the user asks, and the
reply is the right answer; `candidates` are the three as published, `answer` the index of the right
one. So it is learned as a choice, or by cross-entropy as text. Every question is a dialogue.

Source: Sun et al.: DREAM: A Challenge Dataset and Models for Dialogue-Based Reading Comprehension,
TACL 2019, arXiv:1902.00164.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dlm.core.config import parse
from dlm.corpora.published import find_files, read_records, reading, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tables import check_counts, reader_digest
from dlm.corpora.tfds_store import build
from dlm.dialogue.schema import Dialogue, Message

FILES = {"train": "data/train.json", "validation": "data/dev.json", "test": "data/test.json"}
COUNTS = {  # measured on the release
    "train": {"conversations": 3869, "questions": 6116},
    "validation": {"conversations": 1288, "questions": 2040},
    "test": {"conversations": 1287, "questions": 2041},
}
CARD = Card(
    task="choice",
    description="DREAM: questions on conversations, with three answers to choose from.",
    citation=(
        "Kai Sun, Dian Yu, Jianshu Chen, Dong Yu, Yejin Choi, Claire Cardie: DREAM: A Challenge "
        "Dataset and Models for Dialogue-Based Reading Comprehension, TACL 2019"
    ),
    licence="for non-commercial research only",
    counts={split: counts["questions"] for split, counts in COUNTS.items()},
    folder="dream",
    files=tuple(FILES.values()),
    remedy=(
        "take the folder data of the GitHub repository nlpdata/dream, and name the folder that "
        "holds it in data.options.path, or put it at $DLM_DATA_DIR/dream"
    ),
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      path: folder of the published files; empty: `$DLM_DATA_DIR/dream`.
    """

    path: str = ""


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens the corpus.

    Raises:
      UserError: a file that is absent or not of this format, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    root = root_of(CARD, config.path)
    paths = dict(zip(FILES, find_files(CARD, root, FILES.values()), strict=True))
    return build(
        "dream",
        reader_digest(config, root, paths.values(), sys.modules[__name__]),
        {split: partial(read_split, path, split) for split, path in paths.items()},
        data_dir,
        card=CARD,
    )


def read_split(path: Path, split: str) -> Iterator[Dialogue]:
    """The questions of a file; ids are `train-5-510-0`: the conversation's, and which question.

    Raises:
      UserError: the file is not of this format, or counts unlike the published.
    """
    records, questions = read_records(path, CARD), 0
    for number, record in enumerate(records):
        with reading(f"{path}: record {number}", CARD):
            utterances, asked, name = record
            conversation = Message("context", "\n".join(utterances))
            dialogues = [
                _dialogue(conversation, question, f"{split}-{name}-{index}")
                for index, question in enumerate(asked)
            ]
        questions += len(dialogues)
        yield from dialogues
    found = {"conversations": len(records), "questions": questions}
    check_counts(path, found, COUNTS[split], CARD)


def _dialogue(conversation: Message, question: Mapping[str, Any], name: str) -> Dialogue:
    choice, answer = question["choice"], question["answer"]
    messages = (
        conversation,
        Message("user", question["question"]),
        Message("assistant", answer, "reply"),
    )
    return Dialogue(name, messages, candidates=tuple(choice), answer=choice.index(answer))
