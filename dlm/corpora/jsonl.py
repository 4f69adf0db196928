"""Your own dialogues: files of one JSON object a line, in the interactive format or another's.

Without a validation file, a share of the dialogues is held out by the hash of their content: the
same dialogue always falls on the same side, wherever it stands in the file and whatever its id.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from dlm.core import files
from dlm.core.config import parse
from dlm.core.errors import UserError
from dlm.corpora import entries
from dlm.corpora.entries import Entry, read_entries
from dlm.corpora.known import Known
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tfds_store import build
from dlm.dialogue import checks, formats, readers, schema
from dlm.dialogue.checks import RecordError, check_choice
from dlm.dialogue.readers import EXCERPT, FORMATS, Rejection

HASH_RANGE = 2**64

CARD = Card(
    task="your own",
    description="Your own dialogues, a JSON object a line; data.path names the file.",
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      path: the file of the training split, and of the validation split unless that has its own.
      format: "dlm" (the interactive format), "openai", "sharegpt" or "prompt_response".
      validation_path: file of the validation split; empty: a share of `path`.
      test_path: file of the test split; empty: there is none.
      validation_share: share of `path` held out, above 0 and below 1; without `validation_path`.
      on_bad_record: "raise" at the first bad record, or "skip" it, and store it with its reason.
    """

    path: str = ""
    format: str = "dlm"
    validation_path: str = ""
    test_path: str = ""
    validation_share: float = 0.1
    on_bad_record: str = "raise"

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share={self.validation_share} is not between 0 and 1")


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens the corpus.

    Raises:
      UserError: no path, a missing file, a bad record, or a split without dialogues.
    """
    config = parse(Options, options, "data.options")
    if not config.path:
        raise UserError("data.path is empty; name your file: --config.data.path=my.jsonl")
    check_choice(config.format, tuple(FORMATS), "", "data.format")
    check_choice(config.on_bad_record, ("raise", "skip"), "", "data.on_bad_record")
    paths = {
        "train": config.path,
        "validation": config.validation_path or config.path,
        **({"test": config.test_path} if config.test_path else {}),
    }
    rejected: list[dict[str, Any]] = []
    key: dict[str, Any] = {name: _digest(path) for name, path in paths.items()}
    key |= {"format": config.format, "on_bad_record": config.on_bad_record}
    key["share"] = None if config.validation_path else config.validation_share
    key["code"] = files.source_digest(
        sys.modules[__name__], entries, readers, formats, schema, checks
    )
    return build(
        "jsonl",
        files.digest(key),
        _splits(config, paths, rejected),
        data_dir,
        card=CARD,
        rejected=rejected,
    )


def _digest(path: str) -> str:
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; check data.path, validation_path and test_path")
    return files.digest_file(path)


def _splits(
    config: Options, paths: Mapping[str, str], rejected: list[dict[str, Any]]
) -> dict[str, Callable[[], Iterator[Entry]]]:
    """A callable a split; each file's bad records are noted once."""
    splits: dict[str, Callable[[], Iterator[Entry]]] = {
        split: partial(_read, config, path, rejected) for split, path in paths.items()
    }
    if not config.validation_path:
        bound = cache(partial(_bound, config))
        splits["train"] = partial(_side, config, bound, rejected, held_out=False)
        splits["validation"] = partial(_side, config, bound, [], held_out=True)
    return splits


def _side(
    config: Options, bound: Callable[[], float], rejected: list[dict[str, Any]], *, held_out: bool
) -> Iterator[Entry]:
    """What of the file is held out, or what is not."""
    highest = bound()
    for entry in _read(config, config.path, rejected):
        if (entry.content <= highest) == held_out:
            yield entry


def _read(config: Options, path: str, rejected: list[dict[str, Any]]) -> Iterator[Entry]:
    """Reads one file; a dialogue that stands in it more than once gets an id for each time."""
    known, times = Known(), dict[str, int]()
    for found in read_entries(path, config.format):
        if isinstance(found, Rejection):
            if config.on_bad_record == "raise":
                raise found.error(path)
            rejected.append(found.noted(path))
            continue
        name, text = found.id, files.short_digest(found.text)
        if known.get(files.short_digest(name)) not in (None, text):
            problem = f"two dialogues have the id {name!r}; make ids unique or omit them"
            if config.on_bad_record == "raise":
                raise RecordError(path, "id", problem)
            note = {
                "where": path,
                "field": "id",
                "problem": problem,
                "record": found.text[:EXCERPT],
            }
            rejected.append(note)
            continue
        entry = found
        while known.get(files.short_digest(entry.id)) is not None:
            times[name] = times.get(name, 1) + 1
            entry = found.called(f"{name}#{times[name]}")
        known.add(files.short_digest(entry.id), text)
        yield entry


def _bound(config: Options) -> float:
    """The highest hash that is held out.

    Where the share would leave one of the two splits empty, the dialogue of the lowest hash alone
    is held out, so that no file of two dialogues is too small.
    """
    share, lowest, highest = config.validation_share * HASH_RANGE, HASH_RANGE, 0
    for entry in _read(config, config.path, []):
        lowest, highest = min(lowest, entry.content), max(highest, entry.content)
        if lowest <= share < highest:
            return share
    return lowest
