"""Schema-Guided Dialogue: assistants of 45 services, each described by a schema to be read.

    context  Restaurants_1: ...                        the schema of the dialogue's services
    user     Can you give me the address?
    intent   Restaurants_1.FindRestaurants; request(Restaurants_1.street_address)
    state    Restaurants_1.city=San Jose; Restaurants_1.cuisine=American
    act      inform(street_address=71 North San Pedro Street)
    reply    ...

Intent and state are those of the services that a turn is annotated with, cumulative for each of
them; "NONE" and "dontcare" are as published. Of several spellings of a value the first is written;
the state's meta holds all (`values`). `task` is `single` or `multi`, the paper's two parts; the
dialogue's meta names its services, and of them those that training never sees (`unseen`).

This is the complete release of the challenge (DSTC8). Its test split is published without intents
and states: acts and replies are all that can be scored there. `sgd_head` has more annotations.

Source: Rastogi et al.: Towards Scalable Multi-Domain Conversational Agents: The Schema-Guided
Dialogue Dataset, AAAI 2020, arXiv:1909.05855.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from dlm.core.config import parse
from dlm.corpora.published import counted, find_files, read_records, reading, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tables import reader_digest
from dlm.corpora.tfds_store import build
from dlm.dialogue import slots
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.slots import Act, spell_acts, spell_state

SPLITS = {"train": "train", "validation": "dev", "test": "test"}
FILES = {"train": 127, "validation": 20, "test": 34}

# Measured on the release: split -> (dialogues, turns of the system).
COUNTS = {"train": (16142, 164982), "validation": (2482, 24363), "test": (4201, 42297)}
CARD = Card(
    task="task dialogue, schema-guided",
    description="Schema-Guided Dialogue: assistants of 45 services, by schema (DSTC8 release).",
    citation=(
        "Abhinav Rastogi et al.: Towards Scalable Multi-Domain Conversational Agents: The "
        "Schema-Guided Dialogue Dataset, AAAI 2020"
    ),
    licence="CC BY-SA 4.0",
    counts={split: dialogues for split, (dialogues, _) in COUNTS.items()},
    folder="sgd",
    files=tuple(f"{name}/schema.json" for name in SPLITS.values()),
    remedy=(
        "take the GitHub repository google-research-datasets/dstc8-schema-guided-dialogue at "
        "commit 760ac5492965 and name its folder in data.options.path, or put it at "
        "$DLM_DATA_DIR/sgd"
    ),
    missing="intents and states of test (unlabelled): only acts and replies are scored there",
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      schema: whether the model reads the schema of the services.
      path: folder of the release; empty: `$DLM_DATA_DIR/sgd`.
    """

    schema: bool = True
    path: str = ""


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens the corpus.

    Raises:
      UserError: a file that is absent or of another shape, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    root = root_of(CARD, config.path)
    names = {
        split: [f"{name}/dialogues_{n:03}.json" for n in range(1, FILES[split] + 1)]
        for split, name in SPLITS.items()
    }
    paths = {split: find_files(CARD, root, names[split]) for split in SPLITS}
    find_files(CARD, root, CARD.files)
    modules = (sys.modules[__name__], slots)
    read = partial(read_dialogues, root, read=partial(parse_dialogue, schema=config.schema))
    return build(
        "sgd",
        reader_digest(config, root, all_files(root, paths), *modules),
        {split: partial(_split, read, paths[split], split, root) for split in SPLITS},
        data_dir,
        card=CARD,
    )


def _split(
    read: Callable[[Sequence[Path], str], Iterator[Dialogue]],
    paths: Sequence[Path],
    split: str,
    root: Path,
) -> Iterator[Dialogue]:
    return counted(read(paths, split), COUNTS[split], root / SPLITS[split], CARD)


def all_files(root: Path, paths: Mapping[str, Sequence[Path]]) -> list[Path]:
    """Every file that is read: the schemas, and the dialogues of all splits."""
    schemas = (root / name / "schema.json" for name in SPLITS.values())
    return [*schemas, *(path for found in paths.values() for path in found)]


def read_dialogues(
    root: Path, paths: Sequence[Path], split: str, *, read: Callable[..., Dialogue]
) -> Iterator[Dialogue]:
    """The dialogues of a split, file by file.

    Args:
      root: folder of the release, for the schemas.
      paths: the split's files of dialogues.
      split: its name.
      read: makes a dialogue of a record, the split's schema, and the names of the services that
        training has.

    Raises:
      UserError: a record of another shape, with file and id.
    """
    schema = read_schema(root / SPLITS[split] / "schema.json")
    trained = frozenset(read_schema(root / "train" / "schema.json"))
    for path in paths:
        for number, record in enumerate(read_records(path, CARD)):
            with reading(f"{path}: dialogue {number}", CARD):
                dialogue = read(record, schema, trained)
            yield dialogue


def read_schema(path: Path) -> dict[str, Mapping[str, Any]]:
    """The services that a schema file describes, by name.

    Raises:
      UserError: a record of another shape.
    """
    with reading(path, CARD):
        return {service["service_name"]: service for service in read_records(path, CARD)}


def parse_dialogue(
    record: Mapping[str, Any],
    services: Mapping[str, Mapping[str, Any]],
    trained: frozenset[str],
    *,
    schema: bool,
) -> Dialogue:
    """One published dialogue as messages; see the module."""
    used = record["services"]
    shown = "\n".join(schema_text(services[name]) for name in used)
    messages = [Message("context", shown)] if schema else []
    for turn in record["turns"]:
        messages += user_messages(turn) if turn["speaker"] == "USER" else system_messages(turn)
    return Dialogue(
        record["dialogue_id"],
        tuple(messages),
        task="multi" if len(used) > 1 else "single",
        meta={"services": used, "unseen": [name for name in used if name not in trained]},
    )


def schema_text(service: Mapping[str, Any]) -> str:
    """A schema as text: the service, its intents with required and optional slots, its slots."""
    lines = [f"{service['service_name']}: {service['description']}"]
    for intent in service["intents"]:
        optional = [f"{slot}={value}" for slot, value in intent["optional_slots"].items()]
        asked = ", ".join([*intent["required_slots"], *optional])
        lines.append(f"{intent['name']}({asked}): {intent['description']}")
    for slot in service["slots"]:
        values = f" ({', '.join(slot['possible_values'])})" if slot["is_categorical"] else ""
        lines.append(f"{slot['name']}: {slot['description']}{values}")
    return "\n".join(lines)


def user_messages(turn: Mapping[str, Any], *, prefix: bool = True) -> list[Message]:
    """The user's message, and what was understood of it where the turn is labelled.

    With `prefix` the names of intents and slots stand behind their service's, and every service of
    the turn has its intent. Without, as in MultiWOZ 2.2, names say it themselves, every service has
    a frame in each turn, and an intent of "NONE" is none.
    """
    said = Message("user", turn["utterance"])
    frames = [frame for frame in turn["frames"] if frame["state"]["active_intent"]]
    if not frames:
        return [said]
    intents: list[str] = []
    requested: list[str] = []
    values: dict[str, Sequence[str]] = {}
    for frame in frames:
        state, before = frame["state"], f"{frame['service']}." if prefix else ""
        if prefix or state["active_intent"] != "NONE":
            intents.append(before + state["active_intent"])
        requested += [before + slot for slot in state["requested_slots"]]
        values |= {before + slot: spelled for slot, spelled in state["slot_values"].items()}
    acts = [Act(intent) for intent in intents]
    if requested:
        acts.append(Act("request", tuple((slot, None) for slot in sorted(requested))))
    return [said, Message("assistant", spell_acts(acts), "intent"), state_message(values)]


def state_message(values: Mapping[str, Sequence[str]]) -> Message:
    """The state of slots with all accepted spellings of their values: the first ones, spelled."""
    state = spell_state({slot: spellings[0] for slot, spellings in values.items()})
    several = {slot: spellings for slot, spellings in values.items() if len(spellings) > 1}
    return Message("assistant", state, "state", meta={"values": several} if several else {})


def system_messages(turn: Mapping[str, Any]) -> list[Message]:
    """The system's calls with their results where annotated, its acts and its reply."""
    messages: list[Message] = []
    for frame in turn["frames"]:
        if call := frame.get("service_call"):
            name = f"{frame['service']}.{call['method']}"
            result = "\n".join(map(spell_state, frame["service_results"])) or "no result"
            messages += [
                Message("assistant", channel="call", name=name, arguments=call["parameters"]),
                Message("tool", result, name=name),
            ]
    acts = spell_acts(act for frame in turn["frames"] for act in acts_of(frame["actions"]))
    said = Message("assistant", turn["utterance"], "reply")
    return [*messages, Message("assistant", acts, "act"), said]


def acts_of(actions: Sequence[Mapping[str, Any]]) -> list[Act]:
    """The acts of a frame; neighbours of one name are one act of several slots."""
    acts = []
    for name, group in groupby(actions, key=lambda action: action["act"].lower()):
        pairs = [
            (action["slot"], value)
            for action in group
            if action["slot"]
            for value in action["values"] or [None]
        ]
        acts.append(Act(name, tuple(pairs)))
    return acts
