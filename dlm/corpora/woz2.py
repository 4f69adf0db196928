"""WOZ 2.0: finding a restaurant, in English, German or Italian.

A published turn is what the system said and what the user answers; here the user's message comes
first, with what was understood, and the system's reply in the next turn ends the round:

    user     Could I get the phone number of Yu Garden?
    intent   request(phone)             `inform` where the turn changes the state, `request(...)`
    state    area=east; food=chinese    cumulative; "dontcare" as published
    act      request(area)              where annotated; a value that is confirmed: confirm(...)
    reply    ...

The last user message of a dialogue has no reply. In German (`de`) and Italian (`it`) the user's
messages, slots and values are translated, in `de_en` and `it_en` the messages alone, with the
English slots and values. The system's side is published in English.

Source: Wen et al.: A Network-based End-to-End Trainable Task-oriented Dialogue System, EACL 2017;
Mrksic et al.: Neural Belief Tracker, ACL 2017, arXiv:1606.03777; the translations of Mrksic et al.:
Semantic Specialisation of Distributional Word Vector Spaces using Monolingual and Cross-Lingual
Constraints, TACL 2017, arXiv:1706.00374.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dlm.core.config import parse
from dlm.core.errors import UserError
from dlm.corpora.published import counted, find_files, read_records, reading, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tables import reader_digest
from dlm.corpora.tfds_store import build
from dlm.dialogue import slots
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.slots import Act, spell_acts, spell_state

LANGUAGES = ("en", "de", "it", "de_en", "it_en")
SPLITS = {"train": "train", "validation": "validate", "test": "test"}

# Measured on the release: split -> (dialogues, turns), the same in every language.
COUNTS = {"train": (600, 2536), "validation": (200, 830), "test": (400, 1646)}
CARD = Card(
    task="task dialogue",
    description="WOZ 2.0: finding a restaurant in three languages, with belief states.",
    citation=(
        "Tsung-Hsien Wen et al.: A Network-based End-to-End Trainable Task-oriented Dialogue "
        "System, EACL 2017; Nikola Mrksic et al.: Neural Belief Tracker: Data-Driven Dialogue "
        "State Tracking, ACL 2017"
    ),
    licence="Apache-2.0",
    counts={split: dialogues for split, (dialogues, _) in COUNTS.items()},
    folder="woz2",
    files=tuple(f"data/woz/woz_{name}_en.json" for name in SPLITS.values()),
    remedy=(
        "take the folder data/woz of the GitHub repository nmrksic/neural-belief-tracker and name "
        "the folder that holds data in data.options.path, or put it at $DLM_DATA_DIR/woz2"
    ),
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      language: en, de or it; de_en, it_en: labels in English.
      path: folder of the release; empty: `$DLM_DATA_DIR/woz2`.
    """

    language: str = "en"
    path: str = ""


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens one language.

    Raises:
      UserError: an unknown language, a file that is absent, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    if config.language not in LANGUAGES:
        known = ", ".join(LANGUAGES)
        raise UserError(f"data.options.language={config.language!r} is none of: {known}")
    names = [f"data/woz/woz_{name}_{config.language}.json" for name in SPLITS.values()]
    root = root_of(CARD, config.path)
    paths = find_files(CARD, root, names)
    return build(
        "woz2",
        reader_digest(config, root, paths, sys.modules[__name__], slots),
        {
            split: partial(read_dialogues, path, split)
            for split, path in zip(SPLITS, paths, strict=True)
        },
        data_dir,
        card=CARD,
    )


def read_dialogues(path: Path, split: str) -> Iterator[Dialogue]:
    """The dialogues of a file, `train-17` that of index 17.

    Raises:
      UserError: a record of another shape, with its number from 0; other counts than published.
    """
    return counted(_read(path, split), COUNTS[split], path, CARD)


def _read(path: Path, split: str) -> Iterator[Dialogue]:
    for number, record in enumerate(read_records(path, CARD)):
        with reading(f"{path}: dialogue {number}", CARD):
            dialogue = parse_dialogue(record["dialogue"], f"{split}-{number}")
        yield dialogue


def parse_dialogue(turns: Sequence[Mapping[str, Any]], id: str) -> Dialogue:
    """The published turns, each what the system said and what the user answers, as messages."""
    messages: list[Message] = []
    for number, turn in enumerate(turns):
        if number:
            messages += system_messages(turn["system_acts"], turn["system_transcript"])
        messages += [
            Message("user", turn["transcript"]),
            Message("assistant", intent(turn["turn_label"]), "intent"),
            Message("assistant", spell_state(belief(turn["belief_state"])), "state"),
        ]
    return Dialogue(id, tuple(messages))


def belief(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The slots that the user has informed of; those asked for, `["slot", name]`, are none."""
    pairs = [pair for entry in entries for pair in entry["slots"]]
    return {slot: value for slot, value in pairs if slot != "slot"}


def intent(label: Sequence[tuple[str, str]]) -> str:
    """What the user does in a turn: `inform` of something, `request` slots, both, or neither."""
    requested = tuple((value, None) for slot, value in sorted(label) if slot == "request")
    informs = len(requested) < len(label)
    acts = [Act("inform")] * informs + [Act("request", requested)] * bool(requested)
    return spell_acts(acts)


def system_messages(acts: Sequence[Any], text: str) -> list[Message]:
    """The system's act, where it has one, and its reply.

    A slot alone is asked for; a slot with its value is confirmed.
    """
    asked = tuple((slot, None) for slot in acts if isinstance(slot, str))
    confirmed = tuple((slot, value) for slot, value in (a for a in acts if not isinstance(a, str)))
    said = [Act(name, pairs) for name, pairs in (("request", asked), ("confirm", confirmed))]
    line = spell_acts(act for act in said if act.slots)
    act = [Message("assistant", line, "act")] if line else []
    return [*act, Message("assistant", text.strip(), "reply")]
