"""Published files: where they lie, and whether they are the ones that were measured."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dlm.core.errors import UserError, quoted
from dlm.core.files import read_json
from dlm.corpora.registry import Card
from dlm.dialogue.schema import Dialogue, response_units

# What a record of another shape raises where it is taken apart, as JSON or as Python's literals.
MALFORMED = (AttributeError, LookupError, TypeError, ValueError, SyntaxError, RecursionError)
MALFORMED_LITERAL = (*MALFORMED, MemoryError)  # the parser's own, where nesting is deep


def root_of(card: Card, path: str = "") -> Path:
    """The folder of a corpus: `path`, or where it is none, the card's under `$DLM_DATA_DIR`."""
    return Path(path or os.path.join(os.environ.get("DLM_DATA_DIR", ""), card.folder))


def find_files(card: Card, root: Path, names: Iterable[str]) -> list[Path]:
    """The files of these names below `root`.

    Raises:
      UserError: one is absent; the message names it and says where it comes from.
    """
    paths = [root / name for name in names]
    for path in paths:
        if not path.is_file():
            raise UserError(f"{root}: no file {path.relative_to(root)}; {card.remedy}")
    return paths


def absent(card: Card) -> str:
    """What the list of corpora says of the files: the first one not there; empty: all are."""
    root = root_of(card)
    for path in (root, *(root / name for name in card.files)):
        if card.folder and not path.exists():
            return str(path)
    return ""


@contextmanager
def reading(where: str | Path, card: Card) -> Iterator[None]:
    """Reads a record: what one of another shape raises becomes one line.

    Raises:
      UserError: a field is absent or of another type; names the place.
    """
    try:
        yield
    except MALFORMED as error:
        problem = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{where}: no record of this corpus: {quoted(problem)}; {card.remedy}"
        ) from error


def read_records(path: Path, card: Card) -> list[Any]:
    """The records of a JSON file that is a list of them.

    Raises:
      UserError: it is no JSON, or no list.
    """
    records = read_json(path)
    if not isinstance(records, list):
        raise UserError(f"{path}: no list of records; {card.remedy}")
    return records


def counted(
    dialogues: Iterable[Dialogue], wanted: tuple[int, int | None], where: Path, card: Card
) -> Iterator[Dialogue]:
    """Gives the dialogues on, and holds them against what was measured on the release.

    Args:
      dialogues: those of one split.
      wanted: how many dialogues, and how many responses (`response_units`) in all of them; None
        where the release does not say.
      where: the file or folder, for the message.
      card: the corpus's; its remedy ends the message.

    Raises:
      UserError: behind the last one, where there were others.
    """
    found, responses = 0, 0
    for dialogue in dialogues:
        found += 1
        responses += len(response_units(dialogue))
        yield dialogue
    known = wanted[0], responses if wanted[1] is None else wanted[1]
    if (found, responses) != known:
        raise UserError(
            f"{where}: {found} dialogues with {responses} responses, the release has {known[0]} "
            f"with {known[1]}; the files are damaged or another version; {card.remedy}"
        )
