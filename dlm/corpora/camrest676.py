"""CamRest676: finding a restaurant in Cambridge, with the database that the answers come from.

    user     I need an expensive restaurant in the south.
    intent   inform                              `inform` where the state changes, `request(...)`
    state    area=south; pricerange=expensive    cumulative; "dontcare" as published
    call     find(area="south", pricerange="expensive")
    tool     5 found                             at most five of them, in the database's order
             address=...; area=south; food=...; name=...; phone=...; postcode=...; pricerange=...
    act      request(food)                       where annotated: what the system asks for
    reply    ...

The release has no calls: the database is asked with the slots of the state whose value is not
"dontcare", as soon as there is a state and whenever they have changed, and what it gives stands in
the history from then on. `world` answers the same in a live conversation. Of four messages the
label is put right: a pair of `slot` is a request whatever its act, all others inform.

No split is published; the papers divide 3:1:1, here in the order of the file.

Source: Wen et al.: A Network-based End-to-End Trainable Task-oriented Dialogue System, EACL 2017,
arXiv:1604.04562; data/ and db/ of the release.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from dlm.core.config import parse
from dlm.core.errors import UserError
from dlm.core.files import parse_json
from dlm.corpora import woz2
from dlm.corpora.published import counted, find_files, reading, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tables import check_counts, file_text, reader_digest
from dlm.corpora.tfds_store import build
from dlm.corpora.woz2 import belief, system_messages
from dlm.dialogue import slots
from dlm.dialogue.actions import Tool
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.slots import Act, spell_acts, spell_state

DONTCARE = "dontcare"
SLOTS = ("area", "food", "pricerange")
FIELDS = (*SLOTS, "name", "address", "phone", "postcode")
SHOWN = 5  # of what is found

# Measured on the release: (dialogues, responses), by the order of the file.
COUNTS = {"train": (406, 2304), "validation": (135, 768), "test": (135, 754)}
CARD = Card(
    task="task dialogue",
    description="CamRest676: finding a restaurant in Cambridge, with its database.",
    citation=(
        "Tsung-Hsien Wen et al.: A Network-based End-to-End Trainable Task-oriented Dialogue "
        "System, EACL 2017"
    ),
    licence="Apache-2.0",
    counts={split: dialogues for split, (dialogues, _) in COUNTS.items()},
    folder="camrest676",
    files=("data/CamRest676.json", "db/CamRest.json"),
    remedy=(
        "take the folders data and db of the GitHub repository shawnwun/NNDIAL and name the folder "
        "that holds them in data.options.path, or put it at $DLM_DATA_DIR/camrest676"
    ),
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      path: folder of the release; empty: `$DLM_DATA_DIR/camrest676`.
    """

    path: str = ""


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens the corpus.

    Raises:
      UserError: a file that is absent or of another shape, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    root = root_of(CARD, config.path)
    dialogues, database = find_files(CARD, root, CARD.files)
    return build(
        "camrest676",
        reader_digest(config, root, (dialogues, database), sys.modules[__name__], woz2, slots),
        {split: partial(_split, dialogues, database, split) for split in COUNTS},
        data_dir,
        card=CARD,
    )


def _split(path: Path, database: Path, split: str) -> Iterator[Dialogue]:
    sizes = [dialogues for dialogues, _ in COUNTS.values()]
    index = list(COUNTS).index(split)
    records = read_commented(path)
    check_counts(path, {"dialogues": len(records)}, {"dialogues": sum(sizes)}, CARD)
    part = list(enumerate(records))[sum(sizes[:index]) : sum(sizes[: index + 1])]
    found = _read(path, part, read_database(database))
    return counted(found, COUNTS[split], path, CARD)


def read_commented(path: Path) -> list[Any]:
    """The list in a JSON file of the release, which begins with lines of `#`.

    Raises:
      UserError: there is none.
    """
    lines = file_text(path).split("\n")
    records = parse_json("\n".join("" if line.startswith("#") else line for line in lines), path)
    if not isinstance(records, list):
        raise UserError(f"{path}: no list; {CARD.remedy}")
    return records


class Database:
    """The restaurants, and the one question that can be asked of them.

    Args:
      records: one a restaurant, as published.

    Attributes:
      restaurants: field -> value of each, in the order of the records.
      tools: `find`.
    """

    def __init__(self, records: Iterable[Mapping[str, str]]):
        self.restaurants = [
            {field: record[field] for field in FIELDS if field in record} for record in records
        ]
        values = {slot: {r[slot] for r in self.restaurants if slot in r} for slot in SLOTS}
        properties = {slot: {"type": "string", "enum": sorted(values[slot])} for slot in SLOTS}
        properties["food"] = {"type": "string"}  # users ask for more than there is
        self.tools = {
            "find": Tool(
                "find",
                "finds restaurants by area, food and price range; each may be left out",
                {"type": "object", "properties": properties, "additionalProperties": False},
                self.find,
            )
        }

    def find(self, **constraints: str) -> str:
        """How many restaurants have all these values, and the first of them, one a line."""
        found = [r for r in self.restaurants if constraints.items() <= r.items()]
        return "\n".join([f"{len(found)} found", *map(spell_state, found[:SHOWN])])

    def state(self) -> object:
        """Always the same: asking changes nothing."""
        return None


def read_database(path: Path) -> Database:
    """The database in a file of the release.

    Raises:
      UserError: a record of another shape.
    """
    records = read_commented(path)
    with reading(path, CARD):
        return Database(records)


_database = cache(read_database)


def world(dialogue: Dialogue) -> Database:
    """The database of the release under `$DLM_DATA_DIR`, for live conversations."""
    del dialogue  # there is one city
    return _database(find_files(CARD, root_of(CARD), CARD.files)[1])


def _read(path: Path, records: Iterable[tuple[int, Any]], database: Database) -> Iterator[Dialogue]:
    for number, record in records:
        with reading(f"{path}: record {number}", CARD):
            dialogue = parse_dialogue(record, database)
        yield dialogue


def parse_dialogue(record: Mapping[str, Any], database: Database) -> Dialogue:
    """A published dialogue; `meta.goal` holds what its user was to find and ask."""
    messages: list[Message] = []
    known: dict[str, str] = {}
    asked: dict[str, str] | None = None
    for turn in record["dial"]:
        user, system = turn["usr"], turn["sys"]
        state = belief(user["slu"])
        messages += [
            Message("user", user["transcript"]),
            Message("assistant", _intent(user["slu"], changed=state != known), "intent"),
            Message("assistant", spell_state(state), "state"),
        ]
        wanted = {slot: state[slot] for slot in sorted(state) if state[slot] != DONTCARE}
        if state and wanted != asked:
            messages += [
                Message("assistant", channel="call", name="find", arguments=wanted),
                Message("tool", database.find(**wanted), name="find"),
            ]
            asked = wanted
        known = state
        acts = [name if isinstance(name, str) else name[0].split(", ") for name in system["DA"]]
        messages += system_messages(acts, system["sent"])
    meta = {"goal": record["goal"], "finished": record["finished"]}
    return Dialogue(str(record["dialogue_id"]), tuple(messages), meta=meta)


def _intent(slu: Sequence[Mapping[str, Any]], *, changed: bool) -> str:
    pairs = [pair for entry in slu for pair in entry["slots"]]
    requested = tuple((value, None) for slot, value in sorted(pairs) if slot == "slot")
    return spell_acts([Act("inform")] * changed + [Act("request", requested)] * bool(requested))
