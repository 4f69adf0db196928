"""WebNLG Challenge 2017: facts of DBpedia, and texts that say them.

The user gives the (modified) triples as published, one a line, `subject | predicate | object`; the
reply is the text. In training every text is a dialogue, those marked `toFix` (77) included. In the
other splits every entry is one: its reply is the first text, and `meta.references` are all, for
scores that take several. `meta.category` is the entry's. `test` has the categories of training,
`test_unseen` those that training does not have.

Source: Gardent et al.: The WebNLG Challenge: Generating Text from RDF Data, INLG 2017; Creating
Training Corpora for NLG Micro-Planners, ACL 2017.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from dlm.core.config import parse
from dlm.core.errors import UserError
from dlm.corpora.published import find_files, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tables import check_counts, reader_digest
from dlm.corpora.tfds_store import build
from dlm.dialogue.schema import Dialogue, Message

FOLDER = "webnlg_challenge_2017"
TEST = f"{FOLDER}/test/testdata_with_lex.xml"
UNSEEN = ("Artist", "Athlete", "CelestialBody", "MeanOfTransportation", "Politician")
PARTS = {"train": "train", "validation": "dev"}
COUNTS = {  # measured on the release
    "train": {"entries": 6940, "texts": 18102},
    "validation": {"entries": 872, "texts": 2268},
    "test": {"entries": 971, "texts": 2495},
    "test_unseen": {"entries": 891, "texts": 2433},
}
CARD = Card(
    task="data to text",
    description="WebNLG 2017: texts that say facts of DBpedia.",
    citation=(
        "Claire Gardent, Anastasia Shimorina, Shashi Narayan, Laura Perez-Beltrachini: The WebNLG "
        "Challenge: Generating Text from RDF Data, INLG 2017"
    ),
    licence="CC BY-NC-SA 4.0",
    counts={"train": 18102, "validation": 872, "test": 971, "test_unseen": 891},
    folder="webnlg2017",
    files=(TEST,),
    remedy=(
        f"take the folder {FOLDER} of the GitHub repository fuzihaofzh/webnlg-dataset, and name "
        "the folder that holds it in data.options.path, or put it at $DLM_DATA_DIR/webnlg2017"
    ),
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      path: folder of the published files; empty: `$DLM_DATA_DIR/webnlg2017`.
    """

    path: str = ""


class Entry(NamedTuple):
    """Facts, as lines of text, and the texts that say them."""

    category: str
    facts: str
    texts: list[str]


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens the corpus.

    Raises:
      UserError: a file that is absent or no such XML, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    root = root_of(CARD, config.path)
    files = {split: find_entries(root, split) for split in COUNTS}
    paths = sorted({path for found in files.values() for path in found})
    return build(
        "webnlg2017",
        reader_digest(config, root, paths, sys.modules[__name__]),
        {split: partial(read_split, root, paths, split) for split, paths in files.items()},
        data_dir,
        card=CARD,
    )


def find_entries(root: Path, split: str) -> list[Path]:
    """The files of a split, in a fixed order.

    Raises:
      UserError: there is none.
    """
    if split not in PARTS:
        return find_files(CARD, root, [TEST])
    pattern = f"{FOLDER}/{PARTS[split]}/*triples/*.xml"
    found = sorted(root.glob(pattern))
    if not found:
        raise UserError(f"{root}: no file {pattern}; {CARD.remedy}")
    return found


def read_split(root: Path, paths: list[Path], split: str) -> Iterator[Dialogue]:
    """The dialogues of a split: one a text for `train`, otherwise one an entry.

    Raises:
      UserError: a file is no such XML, or counts unlike the published.
    """
    entries = [entry for path in paths for entry in read_entries(path)]
    if split not in PARTS:
        entries = [e for e in entries if (e.category in UNSEEN) == (split == "test_unseen")]
    texts = sum(len(entry.texts) for entry in entries)
    check_counts(f"{root}: {split}", {"entries": len(entries), "texts": texts}, COUNTS[split], CARD)
    for number, entry in enumerate(entries):
        shown = Message("user", entry.facts)
        if split == "train":
            for index, text in enumerate(entry.texts):
                said = Message("assistant", text, "reply")
                name = f"{split}-{number}-{index}"
                yield Dialogue(name, (shown, said), meta={"category": entry.category})
        else:
            said = Message("assistant", entry.texts[0], "reply")
            meta = {"category": entry.category, "references": entry.texts}
            yield Dialogue(f"{split}-{number}", (shown, said), meta=meta)


def read_entries(path: Path) -> Iterator[Entry]:
    """The entries of a file.

    Raises:
      UserError: the file is no XML, or an entry lacks a category, triples or a text.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # of encodings, the latter
        raise UserError(f"{path}: no XML: {error}") from None
    for number, entry in enumerate(root.iter("entry")):
        where = f"{path}: entry {number}"
        facts = [fact.text or "" for fact in entry.iterfind("modifiedtripleset/mtriple")]
        if wrong := [fact for fact in facts if fact.count(" | ") != 2]:
            raise UserError(f"{where}: {wrong[0]!r:.60} is no 'subject | predicate | object'")
        texts = [" ".join((text.text or "").split()) for text in entry.iterfind("lex")]
        if not facts or not all(texts) or not texts:
            raise UserError(f"{where}: no modifiedtripleset of triples, or no text in a lex")
        yield Entry(entry.get("category", ""), "\n".join(facts), texts)
