"""MELD, MELD-Dyadic and EmoryNLP: conversations of a series, and the emotion of each utterance.

    Utterance,Speaker,Emotion,...,Dialogue_ID,...
    You must’ve had your hands full.,The Interviewer,neutral,...,0,...

Emotion recognition in conversation: utterances are messages of users, their speakers the messages'
`name`, and after each the assistant writes its `state`, the emotion heard:

    user       The Interviewer: You must’ve had your hands full.
    assistant  emotion=neutral

A model reads no names, so the text begins with the speaker's. In EmoryNLP several may speak at
once: `Bonnie, Rachel Green`. MELD's sentiment is in the message's meta. Emotions are spelled as
published: MELD's seven and EmoryNLP's seven are others.

Source: Poria et al.: MELD: A Multimodal Multi-Party Dataset for Emotion Recognition in
Conversations, ACL 2019; Zahiri, Choi: Emotion Detection on TV Show Transcripts with Sequence-based
Convolutional Neural Networks, 2018 (EmoryNLP).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from dlm.core.config import parse
from dlm.core.errors import UserError
from dlm.corpora.published import MALFORMED_LITERAL, find_files, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tables import check_counts, csv_rows, reader_digest
from dlm.corpora.tfds_store import build
from dlm.dialogue import slots
from dlm.dialogue.checks import check_choice
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.slots import spell_state

SPLITS = {"train": "train", "validation": "dev", "test": "test"}


class Set(NamedTuple):
    """A published set: its files, what tells its conversations apart, and what was measured."""

    file: str
    keys: tuple[str, ...]
    counts: Mapping[str, tuple[int, int]]  # split -> (conversations, utterances)


SETS = {
    "meld": Set(
        "data/MELD/{}_sent_emo.csv",
        ("Dialogue_ID",),
        {"train": (1038, 9989), "validation": (114, 1109), "test": (280, 2610)},
    ),
    "dyadic": Set(
        "data/MELD_Dyadic/{}_sent_emo_dya.csv",
        ("Dialogue_ID",),
        {"train": (2160, 12840), "validation": (270, 1462), "test": (577, 3400)},
    ),
    "emorynlp": Set(
        "data/emorynlp/emorynlp_{}_final.csv",
        ("Season", "Episode", "Scene_ID"),
        {"train": (659, 7551), "validation": (89, 954), "test": (79, 984)},
    ),
}
CARD = Card(
    task="emotions",
    description="MELD: the emotion of each utterance in conversations of a series.",
    citation=(
        "Soujanya Poria, Devamanyu Hazarika, Navonil Majumder, Gautam Naik, Erik Cambria, Rada "
        "Mihalcea: MELD: A Multimodal Multi-Party Dataset for Emotion Recognition in "
        "Conversations, ACL 2019; Sayyed M. Zahiri, Jinho D. Choi: Emotion Detection on TV Show "
        "Transcripts with Sequence-based Convolutional Neural Networks, AAAI Workshops 2018"
    ),
    licence="GPL-3.0",
    counts={split: counts[0] for split, counts in SETS["meld"].counts.items()},
    folder="meld",
    files=tuple(SETS["meld"].file.format(name) for name in SPLITS.values()),
    remedy=(
        "take the folder data of the GitHub repository declare-lab/MELD, and name the folder that "
        "holds it in data.options.path, or put it at $DLM_DATA_DIR/meld"
    ),
    missing="audio and video; dialogue 60 of MELD's training split",
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      set: meld, dyadic (its two-party conversations) or emorynlp.
      path: folder of the published files; empty: `$DLM_DATA_DIR/meld`.
    """

    set: str = "meld"
    path: str = ""


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens one set.

    Raises:
      UserError: no such set, a file that is absent or no CSV, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    check_choice(config.set, tuple(SETS), "", "data.options.set")
    root = root_of(CARD, config.path)
    chosen = SETS[config.set]
    names = [chosen.file.format(name) for name in SPLITS.values()]
    paths = dict(zip(SPLITS, find_files(CARD, root, names), strict=True))
    return build(
        "meld",
        reader_digest(config, root, paths.values(), sys.modules[__name__], slots),
        {split: partial(read_split, path, chosen, split) for split, path in paths.items()},
        data_dir,
        card=CARD,
    )


def read_split(path: Path, chosen: Set, split: str) -> Iterator[Dialogue]:
    """The conversations of a file.

    Raises:
      UserError: a column is absent, a speaker is no name, or counts unlike the published.
    """
    rows = csv_rows(path, ("Utterance", "Speaker", "Emotion", *chosen.keys))
    found = {"conversations": 0, "utterances": 0}
    for _, group in groupby(rows, key=lambda row: [row[1][key] for key in chosen.keys]):
        messages = [message for where, row in group for message in _messages(row, where)]
        yield Dialogue(f"{split}-{found['conversations']}", tuple(messages))
        found["conversations"] += 1
        found["utterances"] += len(messages) // 2
    wanted = dict(zip(found, chosen.counts[split], strict=True))
    check_counts(path, found, wanted, CARD)


def _messages(row: Mapping[str, str], where: str) -> tuple[Message, Message]:
    """An utterance, and its emotion."""
    speaker = row["Speaker"].strip()
    if speaker.startswith("["):  # EmoryNLP: a list of names
        try:
            speaker = ", ".join(ast.literal_eval(speaker))
        except MALFORMED_LITERAL:
            raise UserError(f"{where}: Speaker {speaker!r:.60} is no list of names") from None
    meta = {"sentiment": row["Sentiment"]} if "Sentiment" in row else {}
    said = Message("user", f"{speaker}: {row['Utterance'].strip()}", name=speaker, meta=meta)
    return said, Message("assistant", spell_state({"emotion": row["Emotion"]}), "state")
