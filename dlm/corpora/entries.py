"""Dialogues as they are stored, read from a file of JSON lines in as many processes as cores.

Here is no TFDS: it would take each process seconds to start.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from dlm.core.errors import UserError
from dlm.core.workers import in_order, num_workers
from dlm.dialogue.readers import EMPTY, Rejection, lines_from, scan
from dlm.dialogue.schema import Dialogue, content_hash, response_units, to_json

BLOCK = 1 << 20  # bytes of a file that are read together
SHARE = 4 * BLOCK  # bytes that are worth a process


class Entry(NamedTuple):
    """A dialogue that was checked.

    Attributes:
      id: of the dialogue.
      text: all of it, as JSON.
      content: its content hash.
      messages, responses: how many it has.
    """

    id: str
    text: str
    content: int
    messages: int
    responses: int

    def called(self, id: str) -> Entry:
        """The same dialogue under another id."""
        return self._replace(id=id, text=_text({**json.loads(self.text), "id": id}))


def entry(dialogue: Dialogue) -> Entry:
    """What is stored of a dialogue."""
    record = to_json(dialogue)
    return Entry(
        dialogue.id,
        _text(record),
        content_hash(record),
        len(dialogue.messages),
        len(response_units(dialogue)),
    )


def read_entries(
    path: str | Path, format: str, workers: int | None = None
) -> Iterator[Entry | Rejection]:
    """Yields what each line of a file holds, in order.

    Args:
      path: of a file that is there.
      format: a key of `readers.FORMATS`.
      workers: processes that read; they change no result. None: as the file's size asks.

    Raises:
      UserError: the file holds no dialogue.
    """
    size = Path(path).stat().st_size
    workers = workers or num_workers(size, SHARE)
    count = lines = 0
    work = partial(_block, str(path), format)
    for number, found in in_order(work, -(-size // BLOCK), workers, f"reads {path}"):
        for one in found:
            count += isinstance(one, Entry)
            yield one._replace(line=lines + one.line) if isinstance(one, Rejection) else one
        lines += number
    if not count:
        raise UserError(f"{path}: {EMPTY}")


def _block(path: str, format: str, number: int) -> tuple[int, list[Entry | Rejection]]:
    """How many lines begin in block `number`, and what they hold."""
    lines = list(lines_from(path, number * BLOCK, (number + 1) * BLOCK))
    found = scan(lines, format, path)
    return len(lines), [entry(one) if isinstance(one, Dialogue) else one for one in found]


def _text(record: dict) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))
