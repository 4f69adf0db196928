"""MultiWOZ: finding and booking in Cambridge, over seven domains; two annotations and the text.

    user     I need to book a hotel in the east that has 4 stars .
    intent   hotel-inform                        what the user does; request(...) of 2.2, or
                                                 hotel-request(ref) of 2.1, has the slots asked for
    state    hotel-area=east; hotel-stars=4      cumulative; "dontcare" and "none" as published
    act      hotel-request(price)                lower case; where annotated
    reply    ...

`version` is

    2.1    validation and test with states and acts (the files here have no training split);
    2.2    all splits, in the format of Schema-Guided Dialogue with `dialog_acts.json` beside it;
    text   all splits of 2.2 without annotation: user and reply. Brackets round names are taken off.

A slot of 2.1 without a value (empty or "not mentioned") is not in the state; slots of a booking are
`hotel-book day`. Of several accepted values the first is written, the state's meta has all. The
dialogue's meta has the user's `goal` in 2.1; `dlm.corpora.multiwoz_goal` says who reached it.

Source: Budzianowski et al.: MultiWOZ, EMNLP 2018, arXiv:1810.00278; Eric et al.: MultiWOZ 2.1, LREC
2020, arXiv:1907.01669; Zang et al.: MultiWOZ 2.2, NLP4ConvAI 2020, arXiv:2007.12720.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dlm.core.config import parse
from dlm.core.errors import UserError, quoted
from dlm.core.files import read_json
from dlm.corpora import sgd
from dlm.corpora.published import counted, find_files, read_records, reading, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.sgd import state_message, user_messages
from dlm.corpora.tables import file_text, reader_digest
from dlm.corpora.tfds_store import build
from dlm.dialogue import slots
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.slots import Act, spell_acts

NAMES = {"train": "train", "validation": "dev", "test": "test"}
TEXT = "vonCount-Russian-MultiWOZ/interim/v1/english"
V22 = "budzianowski-multiwoz/data/MultiWOZ_2.2"
DB = "budzianowski-multiwoz/db"  # read by `multiwoz_goal` alone
NUMBERS = {"train": 17, "validation": 2, "test": 2}  # of files, in `text` and 2.2
UNSET = ("", "not mentioned")

# Measured on the releases: version -> split -> (dialogues, turns of the system).
COUNTS = {
    "2.1": {"validation": (999, 7365), "test": (1000, 7372)},
    "2.2": {"train": (8437, 56776), "validation": (1000, 7374), "test": (1000, 7372)},
}
COUNTS["text"] = COUNTS["2.2"]

FILES = {
    "2.1": {"validation": ["multiwoz/val.json"], "test": ["multiwoz/test.json"]},
    "2.2": {
        split: [f"{V22}/{name}/dialogues_{n:03}.json" for n in range(1, NUMBERS[split] + 1)]
        for split, name in NAMES.items()
    },
    "text": {
        split: [f"{TEXT}/{name}_dialogues_{n:03}.txt" for n in range(1, NUMBERS[split] + 1)]
        for split, name in NAMES.items()
    },
}
CARD = Card(
    task="task dialogue",
    description="MultiWOZ: finding and booking in Cambridge over seven domains; 2.1, 2.2 or text.",
    citation=(
        "Pawel Budzianowski et al.: MultiWOZ, EMNLP 2018; Mihail Eric et al.: MultiWOZ 2.1, LREC "
        "2020; Xiaoxue Zang et al.: MultiWOZ 2.2, NLP4ConvAI 2020"
    ),
    licence="MIT (2.1 as kept by ConvLab-2: Apache-2.0)",
    counts={split: dialogues for split, (dialogues, _) in COUNTS["text"].items()},
    folder="multiwoz",
    files=(*FILES["2.1"]["test"], *FILES["text"]["train"]),
    remedy=(
        "2.1: val.json and test.json out of data/multiwoz of the GitHub repository "
        "thu-coai/ConvLab-2, as multiwoz/; 2.2: data/MultiWOZ_2.2 of budzianowski/multiwoz, as "
        f"{V22}, and db of it as {DB}; text: interim/v1/english of vonCount/Russian-MultiWOZ, as "
        f"{TEXT}; name the folder that holds them in data.options.path, or put it at "
        f"$DLM_DATA_DIR/multiwoz, where alone the scorer of inform and success looks for {DB}"
    ),
    missing="states and acts of train (2.1 has validation and test only; of 2.2 only the text)",
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      version: 2.1, 2.2 or text.
      path: folder of the releases; empty: `$DLM_DATA_DIR/multiwoz`.
    """

    version: str = "text"
    path: str = ""


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens one version.

    Raises:
      UserError: an unknown version, a file that is absent or of another shape, or counts unlike
        the published.
    """
    config = parse(Options, options, "data.options")
    version = config.version
    if version not in COUNTS:
        raise UserError(f"data.options.version={version!r} is none of: {', '.join(COUNTS)}")
    root = root_of(CARD, config.path)
    paths = {split: find_files(CARD, root, names) for split, names in FILES[version].items()}
    acts = find_files(CARD, root, [f"{V22}/dialog_acts.json"]) if version == "2.2" else []
    files = [*acts, *(path for found in paths.values() for path in found)]
    modules = (sys.modules[__name__], sgd, slots)
    return build(
        "multiwoz",
        reader_digest(config, root, files, *modules),
        {split: partial(_split, version, paths[split], split, acts) for split in paths},
        data_dir,
        card=CARD,
    )


def _split(
    version: str, paths: Sequence[Path], split: str, acts: Sequence[Path]
) -> Iterator[Dialogue]:
    if version == "2.1":
        found = read_21(paths[0])
    elif version == "2.2":
        found = read_22(paths, acts[0])
    else:
        found = read_text(paths, split)
    return counted(found, COUNTS[version][split], paths[0], CARD)


def read_21(path: Path) -> Iterator[Dialogue]:
    """The dialogues of a file of MultiWOZ 2.1: by id, its `goal` and `log`."""
    with reading(path, CARD):
        records = read_json(path).items()
    for name, record in records:
        with reading(f"{path}: dialogue {quoted(name, 60)}", CARD):
            log, messages = record["log"], list[Message]()
            for user, system in zip(log[::2], log[1::2], strict=True):
                messages += [
                    Message("user", user["text"]),
                    Message("assistant", spell_acts(acts_of(user["dialog_act"], True)), "intent"),
                    state_message(belief(system["metadata"])),
                    *_answer(system["dialog_act"], system["text"]),
                ]
            dialogue = Dialogue(name, tuple(messages), meta={"goal": record["goal"]})
        yield dialogue


def belief(metadata: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The slots of the state that have a value, each with the values that are accepted."""
    values = {}
    for domain, parts in metadata.items():
        for before, part in ((f"{domain}-", "semi"), (f"{domain}-book ", "book")):
            for slot, value in parts[part].items():
                if slot != "booked" and value not in UNSET:
                    values[before + slot] = value.split("|")
    return values


def acts_of(annotated: Mapping[str, Sequence[Sequence[str]]], user: bool = False) -> list[Act]:
    """The annotated acts in lower case, of the user's only the slots that are asked for.

    A value of "?" is a slot that is asked for, a slot of "none" is none.
    """
    acts = []
    for name, pairs in annotated.items():
        slots = [(slot, None if value == "?" else value) for slot, value, *_ in pairs]
        kept = [(s.lower(), v) for s, v in slots if s != "none" and (not user or v is None)]
        acts.append(Act(name.lower(), tuple(kept)))
    return acts


def _answer(annotated: Mapping[str, Any], text: str) -> list[Message]:
    line = spell_acts(acts_of(annotated))
    act = [Message("assistant", line, "act")] if line else []
    return [*act, Message("assistant", text, "reply")]


def read_22(paths: Sequence[Path], acts: Path) -> Iterator[Dialogue]:
    """The dialogues of files of MultiWOZ 2.2; `acts` is `dialog_acts.json`."""
    annotated = read_json(acts)
    for path in paths:
        for number, record in enumerate(read_records(path, CARD)):
            with reading(f"{path}: dialogue {number}", CARD):
                dialogue = parse_22(record, annotated.get(record["dialogue_id"], {}))
            yield dialogue


def parse_22(record: Mapping[str, Any], annotated: Mapping[str, Any]) -> Dialogue:
    """One dialogue of 2.2 with its acts by turn; a turn may have none."""
    messages: list[Message] = []
    for turn in record["turns"]:
        if turn["speaker"] == "USER":
            messages += user_messages(turn, prefix=False)
        else:
            acts = annotated.get(turn["turn_id"], {}).get("dialog_act", {})
            messages += _answer(acts, turn["utterance"])
    meta = {"services": record["services"]}
    return Dialogue(record["dialogue_id"], tuple(messages), meta=meta)


def read_text(paths: Sequence[Path], split: str) -> Iterator[Dialogue]:
    """The dialogues of text files, `train-17`: a line an utterance, the user first.

    Two empty lines stand between dialogues.
    """
    number = 0
    for path in paths:
        text = file_text(path).strip("\n")
        for block in re.split(r"\n{3,}", text):
            with reading(f"{path}: dialogue {number}", CARD):
                lines = [re.sub(r"[\[\]]", "", line) for line in block.split("\n")]
                messages = [
                    message
                    for user, reply in zip(lines[::2], lines[1::2], strict=True)
                    for message in (Message("user", user), Message("assistant", reply))
                ]
            yield Dialogue(f"{split}-{number}", tuple(messages))
            number += 1
