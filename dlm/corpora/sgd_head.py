"""Schema-Guided Dialogue, newest annotation: service calls with their results, and a labelled test.

As `sgd`, with the calls that the system makes before it answers,

    call     Restaurants_1.FindRestaurants(city="San Jose", cuisine="American")
    tool     city=San Jose; cuisine=American; ...; restaurant_name=71 Saint Peter    one a line

and the intents of the dialogue's services as tools with a JSON schema, in place of the context.
An empty list of results is the text "no result".

Either all files are there (127, 20 and 34), or those of a snapshot that lacks the largest ones (96,
17 and 24), in which dialogues of several services are under-represented: scores on its test split
are not those of the published one.

Source: as `sgd`; the release's commit e852981ae349 of 2022.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dlm.core.config import parse
from dlm.core.errors import UserError
from dlm.corpora import sgd
from dlm.corpora.published import counted, find_files, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.sgd import SPLITS, Options
from dlm.corpora.tables import reader_digest
from dlm.corpora.tfds_store import build
from dlm.dialogue import slots
from dlm.dialogue.schema import Dialogue

# Files, dialogues and responses (turns of the system and calls) of each split: measured on the
# snapshot; of the whole release the published figures, which count no calls.
SNAPSHOT = {
    "train": (96, 12174, 111878 + 33963),
    "validation": (17, 2098, 19384 + 6027),
    "test": (24, 2921, 24863 + 7658),
}
WHOLE = {split: (sgd.FILES[split], sgd.COUNTS[split][0], None) for split in SPLITS}

CARD = Card(
    task="task dialogue, schema-guided, tools",
    description="Schema-Guided Dialogue, newest annotation: service calls and a labelled test.",
    citation=sgd.CARD.citation,
    licence="CC BY-SA 4.0",
    counts={split: dialogues for split, (_, dialogues, _) in SNAPSHOT.items()},
    folder="sgd-head-partial",
    files=sgd.CARD.files,
    remedy=(
        "take the GitHub repository google-research-datasets/dstc8-schema-guided-dialogue at "
        "commit e852981ae349 and name its folder in data.options.path, or put it at "
        "$DLM_DATA_DIR/sgd-head-partial"
    ),
    missing=(
        "sizes are of the snapshot of 137 of 181 files: 31 of train, 3 of validation and 10 of "
        "test are absent there, so scores on its test are not those of the published test"
    ),
)


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens the corpus.

    Raises:
      UserError: a file that is absent or of another shape, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    root = root_of(CARD, config.path)
    find_files(CARD, root, CARD.files)
    paths = {split: sorted((root / SPLITS[split]).glob("dialogues_*.json")) for split in SPLITS}
    wanted = _wanted({split: len(found) for split, found in paths.items()}, root)
    modules = (sys.modules[__name__], sgd, slots)
    read = partial(parse_dialogue, schema=config.schema)
    return build(
        "sgd_head",
        reader_digest(config, root, sgd.all_files(root, paths), *modules),
        {
            split: partial(_split, root, paths[split], split, wanted[split], read)
            for split in SPLITS
        },
        data_dir,
        card=CARD,
    )


def _wanted(files: Mapping[str, int], root: Path) -> dict[str, tuple[int, int | None]]:
    """The counts of the release that has so many files.

    Raises:
      UserError: none has.
    """
    for counts in (SNAPSHOT, WHOLE):
        if files == {split: number for split, (number, *_) in counts.items()}:
            return {split: (dialogues, n) for split, (_, dialogues, n) in counts.items()}
    found = ", ".join(f"{split} {number}" for split, number in files.items())
    raise UserError(
        f"{root}: neither all files of dialogues nor 96, 17, 24: {found}; {CARD.remedy}"
    )


def _split(
    root: Path,
    paths: Sequence[Path],
    split: str,
    wanted: tuple[int, int | None],
    read: Any,
) -> Iterator[Dialogue]:
    found = sgd.read_dialogues(root, paths, split, read=read)
    return counted(found, wanted, root / SPLITS[split], CARD)


def parse_dialogue(
    record: Mapping[str, Any],
    services: Mapping[str, Mapping[str, Any]],
    trained: frozenset[str],
    *,
    schema: bool,
) -> Dialogue:
    """One published dialogue as messages; see the module."""
    dialogue = sgd.parse_dialogue(record, services, trained, schema=False)
    shown = [tool for name in record["services"] for tool in tools_of(services[name])]
    return replace(dialogue, tools=tuple(shown)) if schema else dialogue


def tools_of(service: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The intents of a service as tools, `Restaurants_1.FindRestaurants` one of them."""
    by_name = {slot["name"]: slot for slot in service["slots"]}
    for intent in service["intents"]:
        properties = {}
        for name in (*intent["required_slots"], *intent["optional_slots"]):
            slot = by_name[name]
            values = {"enum": slot["possible_values"]} if slot["is_categorical"] else {}
            properties[name] = {"type": "string", "description": slot["description"], **values}
        yield {
            "name": f"{service['service_name']}.{intent['name']}",
            "description": intent["description"],
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": list(intent["required_slots"]),
            },
        }
