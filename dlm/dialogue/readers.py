"""Files of dialogues: one reader a format, all yielding `Dialogue`, line by line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from dlm.core.errors import UserError
from dlm.dialogue import formats
from dlm.dialogue.checks import RecordError, check_choice
from dlm.dialogue.schema import Dialogue, from_json, to_json

MAX_LINE = 8_000_000  # bytes
EXCERPT = 2_000  # bytes of a rejected line that are kept
EMPTY = "holds no dialogue; give one JSON object a line"
Line = tuple[bytes, bool]  # a line, or its beginning and True where it is too long

FORMATS: dict[str, Callable[[Any, str], Any]] = {
    "dlm": lambda record, where: record,
    "openai": formats.from_openai,
    "sharegpt": formats.from_sharegpt,
    "prompt_response": formats.from_prompt_response,
}


class Rejection(NamedTuple):
    """A record that is no dialogue.

    Attributes:
      line: its number in the file, from 1.
      field: the field that is wrong.
      problem: what is wrong and the remedy.
      record: as text, cut after 2,000 bytes.
    """

    line: int
    field: str
    problem: str
    record: str

    def error(self, path: str | Path) -> RecordError:
        """The error of a reader that takes no bad record."""
        return RecordError(f"{path}:{self.line}", self.field, self.problem)

    def noted(self, path: str | Path) -> dict[str, Any]:
        """What is kept of it: `where`, `field`, `problem` and `record`."""
        where = f"{path}:{self.line}"
        return {"where": where, "field": self.field, "problem": self.problem, "record": self.record}


def read(
    path: str | Path,
    *,
    format: str = "dlm",
    on_bad_record: str = "raise",
    rejected: list[dict[str, Any]] | None = None,
) -> Iterator[Dialogue]:
    """Yields the dialogues of a file that holds one JSON object a line; blank lines are skipped.

    Args:
      path: UTF-8, with or without a byte order mark.
      format: a key of `FORMATS`.
      on_bad_record: "raise", or "skip" and note it in `rejected`.
      rejected: gets `Rejection.noted` of each record that is skipped.

    Raises:
      RecordError: a record is bad; names file, line, field and remedy.
      UserError: the file is missing, or holds no dialogue.
    """
    check_choice(format, tuple(FORMATS), "", "data.format")
    check_choice(on_bad_record, ("raise", "skip"), "", "data.on_bad_record")
    count = 0
    with _open(path) as file:
        for found in scan(_lines(file), format, path):
            if isinstance(found, Dialogue):
                count += 1
                yield found
            elif on_bad_record == "raise":
                raise found.error(path)
            elif rejected is not None:
                rejected.append(found.noted(path))
    if not count:
        raise UserError(f"{path}: {EMPTY}")


def scan(lines: Iterable[Line], format: str, path: str | Path) -> Iterator[Dialogue | Rejection]:
    """Reads lines that hold one JSON object each; blank ones are skipped.

    Args:
      lines: of the file, the first is line 1.
      format: a key of `FORMATS`.
      path: of the file, for messages.
    """
    for number, (line, oversize) in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            dialogue = from_json(FORMATS[format](_record(line, oversize, where), where), where)
            _require_text(dialogue, where)
        except RecordError as error:
            excerpt = line[:EXCERPT].decode("utf-8", errors="backslashreplace").rstrip("\n")
            yield Rejection(number, error.field, error.problem, excerpt)
            continue
        yield dialogue


def lines_from(path: str | Path, start: int, stop: int) -> Iterator[Line]:
    """Yields the lines of a file that begin at bytes `start` to `stop`."""
    with _open(path) as file:
        if start:
            file.seek(start - 1)
            rest = b"."  # of the line before
            while file.tell() < stop and rest and not rest.endswith(b"\n"):
                rest = file.readline(MAX_LINE)
        yield from _lines(file, stop)


def write_jsonl(path: str | Path, dialogues: Iterable[Dialogue]) -> None:
    """Writes dialogues, one a line; the file is whole or, where this fails, as it was before."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("w", encoding="utf-8") as file:
            for dialogue in dialogues:
                record = to_json(dialogue)
                file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _open(path: str | Path) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as error:
        problem = f"cannot be read: {error.strerror}; give the path of a JSONL file"
        raise UserError(f"{path}: {problem}") from None


def _lines(file: BinaryIO, stop: float = float("inf")) -> Iterator[Line]:
    """Yields each line that begins before byte `stop`."""
    while file.tell() < stop and (line := file.readline(MAX_LINE + 1)):
        oversize = len(line) > MAX_LINE and not line.endswith(b"\n")
        rest = line
        while oversize and rest and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE)
        yield line, oversize


def _record(line: bytes, oversize: bool, where: str) -> Any:
    """Returns the JSON value of a line."""
    if oversize:
        megabytes = MAX_LINE // 1_000_000
        raise RecordError(where, "", f"longer than {megabytes} MB; split the dialogue")
    if b"\0" in line:
        problem = f"null byte at byte {line.index(0)}; remove it, or save the file as UTF-8"
        raise RecordError(where, "", problem)
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"invalid UTF-8 at byte {error.start}; save the file as UTF-8"
        raise RecordError(where, "", problem) from None
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        problem = f"malformed JSON at character {error.pos + 1}: {error.msg}"
        problem += "; give one JSON object a line"
        raise RecordError(where, "", problem) from None
    except (ValueError, RecursionError) as error:
        raise RecordError(where, "", f"malformed JSON: {str(error)[:100]}") from None


def _require_text(dialogue: Dialogue, where: str) -> None:
    """Refuses images and sounds: the format has them, no model here reads them."""
    for i, message in enumerate(dialogue.messages):
        for j, part in enumerate(message.content if isinstance(message.content, tuple) else ()):
            if part["type"] != "text":
                problem = f"the model reads text only; take the {part['type']} out"
                raise RecordError(where, f"messages[{i}].content[{j}]", problem)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON; give a number")
