"""Published files as lines and tables, and what was found in them held against the release."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from dlm.core.errors import UserError, quoted
from dlm.core.files import digest, digest_file, source_digest
from dlm.corpora.registry import Card


def file_text(path: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
      UserError: the file is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}") from None


def text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a UTF-8 file that are not empty, each behind its place, `file:line`.

    Raises:
      UserError: the file is not UTF-8.
    """
    for number, line in enumerate(file_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", line


def csv_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a UTF-8 CSV file by column, each behind its place, the line where it ends.

    Line breaks inside quotes stay as they are; a byte order mark is left out.

    Raises:
      UserError: the file is not UTF-8 or no CSV, one of `columns` is absent, or a row has more or
        fewer fields than the first.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, strict=True)
        try:
            names = rows.fieldnames or []
            if absent := [name for name in columns if name not in names]:
                there = quoted(", ".join(names)) or "none"
                raise UserError(f"{path}:1: no column {absent[0]!r}; it has {there}")
            for row in rows:
                where = f"{path}:{rows.line_num}"
                if None in row or None in row.values():
                    raise UserError(f"{where}: more or fewer fields than the {len(names)} columns")
                yield where, row
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 at byte {error.start}") from None
        except csv.Error as error:
            raise UserError(f"{path}:{rows.line_num + 1}: no CSV: {error}") from None


def check_counts(
    where: Path | str, found: Mapping[str, int], wanted: Mapping[str, int], card: Card
) -> None:
    """Holds what was found, by name, against what was measured on the release.

    Raises:
      UserError: they differ.
    """
    if found != wanted:
        there, release = (
            ", ".join(f"{count} {name}" for name, count in counts.items())
            for counts in (found, wanted)
        )
        raise UserError(
            f"{where}: {there}; the release has {release}; the files are damaged or another "
            f"version; {card.remedy}"
        )


def reader_digest(config: Any, root: Path, paths: Iterable[Path], *modules: ModuleType) -> str:
    """Hex digest of all that decides a corpus: options, files, and the code that reads them.

    Args:
      config: the corpus's `Options`; where its files lie (`path`) does not count.
      root: what the files' names are relative to.
      paths: the files.
      modules: whose source counts.
    """
    return digest(
        {
            "options": asdict(config) | {"path": ""},
            "files": {str(path.relative_to(root)): digest_file(path) for path in paths},
            "code": source_digest(*modules),
        }
    )
