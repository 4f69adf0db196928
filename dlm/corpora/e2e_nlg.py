"""E2E NLG: what is known of a restaurant, and texts that say it.

    "name[Blue Spice], eatType[coffee shop]","A coffee shop called Blue Spice."

The user gives the meaning representation as published; the reply is the text. In training every
row is a dialogue. In validation and test the rows of a meaning representation are one: its reply
is the first text, and `meta.references` are all, for scores that take several. Line breaks and
runs of spaces in a text become one space each.

Source: Novikova, Dusek, Rieser: The E2E Dataset: New Challenges for End-to-End Generation, SIGDIAL
2017, arXiv:1706.09254.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dlm.core.config import parse
from dlm.corpora.published import find_files, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tables import check_counts, csv_rows, reader_digest
from dlm.corpora.tfds_store import build
from dlm.dialogue.schema import Dialogue, Message

FILES = {
    "train": "e2e-dataset/trainset.csv",
    "validation": "e2e-dataset/devset.csv",
    "test": "e2e-dataset/testset_w_refs.csv",
}
COUNTS = {  # measured on the release; an input is a meaning representation
    "train": {"texts": 42061, "inputs": 4862},
    "validation": {"texts": 4672, "inputs": 547},
    "test": {"texts": 4693, "inputs": 630},
}
CARD = Card(
    task="data to text",
    description="E2E NLG: texts that say what is known of a restaurant.",
    citation=(
        "Jekaterina Novikova, Ondrej Dusek, Verena Rieser: The E2E Dataset: New Challenges for "
        "End-to-End Generation, SIGDIAL 2017"
    ),
    licence="CC BY-SA 4.0",
    counts={"train": 42061, "validation": 547, "test": 630},
    folder="e2e-nlg",
    files=tuple(FILES.values()),
    remedy=(
        "take the files of the GitHub repository tuetschek/e2e-dataset, tag v1.0.0, as the folder "
        "e2e-dataset, and name the folder that holds it in data.options.path, or put it at "
        "$DLM_DATA_DIR/e2e-nlg"
    ),
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      path: folder of the published files; empty: `$DLM_DATA_DIR/e2e-nlg`.
    """

    path: str = ""


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens the corpus.

    Raises:
      UserError: a file that is absent or no CSV, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    root = root_of(CARD, config.path)
    paths = dict(zip(FILES, find_files(CARD, root, FILES.values()), strict=True))
    return build(
        "e2e_nlg",
        reader_digest(config, root, paths.values(), sys.modules[__name__]),
        {split: partial(read_split, path, split) for split, path in paths.items()},
        data_dir,
        card=CARD,
    )


def read_split(path: Path, split: str) -> Iterator[Dialogue]:
    """The dialogues of a file: one a row for `train`, otherwise one a meaning representation.

    Raises:
      UserError: no such columns, or counts unlike the published.
    """
    texts: dict[str, list[str]] = {}
    rows = [(row["mr"], " ".join(row["ref"].split())) for _, row in csv_rows(path, ("mr", "ref"))]
    for meaning, text in rows:
        texts.setdefault(meaning, []).append(text)
    check_counts(path, {"texts": len(rows), "inputs": len(texts)}, COUNTS[split], CARD)
    if split == "train":
        for number, (meaning, text) in enumerate(rows):
            yield Dialogue(f"{split}-{number}", (Message("user", meaning), _reply(text)))
        return
    for number, (meaning, references) in enumerate(texts.items()):
        messages = (Message("user", meaning), _reply(references[0]))
        yield Dialogue(f"{split}-{number}", messages, meta={"references": references})


def _reply(text: str) -> Message:
    return Message("assistant", text, "reply")
