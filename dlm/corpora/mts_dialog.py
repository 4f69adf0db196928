"""MTS-Dialog: a doctor's conversation with a patient, and the section of the note made of it.

    ID,section_header,section_text,dialogue
    0,GENHX,"The patient is ..","Doctor: What brings you back?
    Patient: I came in for a refill."

The user shows the conversation, a speaker a line; the assistant says which section it is for (its
`intent`) and writes the section (its `reply`): classification and summarisation in one. Speakers
stand as published, misspelt ones too (`Gest_family`); line ends are made alike (they are CRLF in
the training file, LF in the others).

`test` is the first test set (MEDIQA-Chat 2023), `test_2` the second (MEDIQA-Sum 2023).

Source: Ben Abacha et al.: An Empirical Study of Clinical Note Generation from Doctor-Patient
Encounters, EACL 2023.
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
    "train": "Main-Dataset/MTS-Dialog-TrainingSet.csv",
    "validation": "Main-Dataset/MTS-Dialog-ValidationSet.csv",
    "test": "Main-Dataset/MTS-Dialog-TestSet-1-MEDIQA-Chat-2023.csv",
    "test_2": "Main-Dataset/MTS-Dialog-TestSet-2-MEDIQA-Sum-2023.csv",
}
COLUMNS = ("section_header", "section_text", "dialogue")
CARD = Card(
    task="summarisation",
    description="MTS-Dialog: sections of a note made of a doctor's conversation with a patient.",
    citation=(
        "Asma Ben Abacha, Wen-wai Yim, Yadan Fan, Thomas Lin: An Empirical Study of Clinical Note "
        "Generation from Doctor-Patient Encounters, EACL 2023"
    ),
    licence="CC BY 4.0",
    counts={"train": 1201, "validation": 100, "test": 200, "test_2": 200},
    folder="mts-dialog",
    files=tuple(FILES.values()),
    remedy=(
        "take the folder Main-Dataset of the GitHub repository abachaa/MTS-Dialog, and name the "
        "folder that holds it in data.options.path, or put it at $DLM_DATA_DIR/mts-dialog"
    ),
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      path: folder of the published files; empty: `$DLM_DATA_DIR/mts-dialog`.
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
        "mts_dialog",
        reader_digest(config, root, paths.values(), sys.modules[__name__]),
        {split: partial(read_split, path, split) for split, path in paths.items()},
        data_dir,
        card=CARD,
    )


def read_split(path: Path, split: str) -> Iterator[Dialogue]:
    """The dialogues of a file, one a row.

    Raises:
      UserError: no such columns, or another number of rows than published.
    """
    number = -1
    for number, (_, row) in enumerate(csv_rows(path, COLUMNS)):
        messages = (
            Message("user", _text(row["dialogue"])),
            Message("assistant", row["section_header"].strip(), "intent"),
            Message("assistant", _text(row["section_text"]), "reply"),
        )
        yield Dialogue(f"{split}-{number}", messages)
    check_counts(path, {"rows": number + 1}, {"rows": CARD.counts[split]}, CARD)


def _text(text: str) -> str:
    """The lines of a field without the spaces round them; empty lines are left out."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())
