"""The one way from a reader to disk and back: TFDS builds of JSON dialogues in ArrayRecord files.

A corpus gives one callable a split, each yielding `Dialogue`s (or `Entry`s, of which dialogues and
ids were checked); it is called only where the build does not exist yet:

    def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
        config = parse(Options, options, "data.options")
        return build(
            "my_corpus",
            files.digest({"data": files.digest_file(path), "options": asdict(config),
                          "code": files.source_digest(sys.modules[__name__])}),
            {"train": lambda: read_split(path, "train"), "test": lambda: read_split(path, "test")},
            data_dir,
            card=CARD)

The build lies in `data_dir/my_corpus/<digest>/1.2.0`, so other data or options never meet an old
build. It is written aside and renamed when whole: a build that was cut off does not count, and of
two processes that build at once the first to finish is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from dlm.core.errors import UserError, quoted
from dlm.core.files import read_json, write_atomic, write_json
from dlm.core.progress import Progress
from dlm.corpora.entries import Entry, entry
from dlm.corpora.overlap import also_in
from dlm.corpora.registry import Card, Prepared
from dlm.dialogue.checks import RecordError
from dlm.dialogue.schema import Dialogue, restore, validate

Splits = Mapping[str, Callable[[], Iterable[Dialogue] | Iterable[Entry]]]

RAW = tfds.decode.DeserializeMethod.RAW_BYTES
VERSION = "1.2.0"
SUMMARY = "dialogues.json"
REJECTED = "rejected.jsonl"
SHARD = 100_000  # dialogues of a file
CONTENTS = "contents"  # folder of the splits' content hashes


def build(
    name: str,
    digest: str,
    splits: Splits,
    data_dir: str | Path,
    *,
    card: Card,
    rejected: Sequence[Mapping[str, Any]] = (),
) -> Prepared:
    """Builds the corpus if this digest was not built before, and opens it.

    Args:
      name: lower_case name of the corpus; the folder below `data_dir`.
      digest: hex digest of all that decides the dialogues: data, options, the reader's code.
      splits: split name -> callable giving its dialogues; ids are unique within a split.
      data_dir: where builds are kept.
      card: what is said of the corpus.
      rejected: JSON-able records that the reader refused; a list that the callables fill while
        they are read. It is stored beside the build.

    Raises:
      UserError: an empty split, an id that occurs twice, a dialogue that breaks the format, or
        what a callable raised.
    """
    data_dir = Path(data_dir)
    folder = data_dir / name / digest / VERSION
    if not folder.exists():
        _write(name, digest, splits, data_dir, card, rejected)
    summary = read_json(folder / SUMMARY)
    builder = tfds.builder_from_directory(folder)
    refused = folder / REJECTED
    return Prepared(
        name=name,
        splits={
            split: DialogueSource(
                builder.as_data_source(split, deserialize_method=RAW), f"{name}/{split}"
            )
            for split in summary["splits"]
        },
        digest=summary["digest"],
        card=card,
        counts=summary["counts"],
        contents={
            split: np.load(folder / CONTENTS / f"{split}.npy", mmap_mode="r").view(np.ndarray)
            for split in summary["splits"]
        },
        rejected=refused if refused.exists() else None,
    )


class DialogueSource(Sequence[Dialogue]):
    """One split as a random-access sequence of dialogues, in the order in which they were given.

    A slice is read at once, in a third of the time.

    Args:
      records: of TFDS, not decoded; the field `json` of each is one dialogue.
      name: what errors call it, e.g. `babi_dialog/test`.
    """

    def __init__(self, records: Any, name: str):
        self._records = records
        self.name = name

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Dialogue: ...

    @overload
    def __getitem__(self, index: slice) -> list[Dialogue]: ...

    def __getitem__(self, index: int | slice) -> Dialogue | list[Dialogue]:
        if isinstance(index, slice):
            return list(map(_dialogue, self._records.__getitems__(range(len(self))[index])))
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name}: dialogue {index} of {len(self)}")
        return _dialogue(self._records[index % len(self)])

    def __iter__(self) -> Iterator[Dialogue]:
        return (self[index] for index in range(len(self)))


def _dialogue(record: bytes) -> Dialogue:
    (text,) = tf_example_pb2.Example.FromString(record).features.feature["json"].bytes_list.value
    return restore(json.loads(text))


def checked_entries(
    name: str, dialogues: Callable[[], Iterable[Dialogue] | Iterable[Entry]], card: Card
) -> Iterator[Entry]:
    """What is stored of a split, `name`; checks what was not checked.

    Raises:
      UserError: a dialogue breaks the format, or has the id of another; names it, and says where
        the files come from.
    """
    seen: set[str] = set()
    for given in dialogues():
        if isinstance(given, Entry):
            yield given
            continue
        try:
            validate(given, f"{name}: dialogue {quoted(given.id, 60)}")
        except RecordError as error:
            raise UserError("; ".join(filter(None, (str(error), card.remedy)))) from None
        if given.id in seen:
            problem = f"two dialogues have the id {given.id!r:.60}; make the ids of a split unique"
            raise UserError(f"{name}: {problem}")
        seen.add(given.id)
        yield entry(given)


def _write(
    name: str,
    digest: str,
    splits: Splits,
    data_dir: Path,
    card: Card,
    rejected: Sequence[Mapping[str, Any]],
) -> None:
    """Builds into a temporary folder beside the final one, then renames."""
    (data_dir / name).mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".building-", dir=data_dir / name))
    built, tally = aside / VERSION, _Tally(name, rejected)
    built.mkdir()
    try:
        # TFDS's other writer gathers and sorts a whole split before it writes the first dialogue.
        writer = tfds.core.SequentialWriter(
            _info(name, digest, card, built), SHARD, file_format="array_record"
        )
        writer.initialize_splits(list(splits))
        for split, dialogues in splits.items():
            lines = tally.watch(split, checked_entries(f"{name}/{split}", dialogues, card))
            writer.add_examples({split: ({"json": line} for line in lines)})
        writer.close_all()
        if rejected:
            lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in rejected)
            write_atomic(built / REJECTED, "".join(lines))
        (built / CONTENTS).mkdir()
        for split, hashes in tally.contents.items():
            np.save(built / CONTENTS / f"{split}.npy", hashes)
        write_json(built / SUMMARY, tally.summary())
        folder = data_dir / name / digest / VERSION
        folder.parent.mkdir(exist_ok=True)  # it may hold a build of another version
        try:
            os.rename(built, folder)
        except OSError:  # another process finished first; its build holds the same dialogues
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _info(name: str, digest: str, card: Card, folder: Path) -> tfds.core.DatasetInfo:
    """What TFDS keeps of a corpus whose examples are dialogues as JSON text, in the order given."""
    return tfds.core.DatasetInfo(
        builder=tfds.core.DatasetIdentity(
            name=name,
            version=tfds.core.Version(VERSION),
            data_dir=str(folder),
            module_name=__name__,
            config_name=digest,
        ),
        features=tfds.features.FeaturesDict({"json": tfds.features.Text()}),
        disable_shuffling=True,
        description=card.description,
        citation=card.citation,
        license=card.licence,
    )


class _Tally:
    """Counts and hashes the dialogues of each split on their way to disk."""

    def __init__(self, name: str, rejected: Sequence[Any]):
        self.name = name
        self._rejected = rejected
        self.counts: dict[str, dict[str, int]] = {}
        self._hashes: dict[str, str] = {}
        self.contents: dict[str, np.ndarray] = {}

    def watch(self, split: str, entries: Iterable[Entry]) -> Iterator[str]:
        """Yields each dialogue as JSON text; refuses an empty split."""
        contents = array("Q")
        count = {"dialogues": 0, "messages": 0, "responses": 0}
        content, rejected = hashlib.sha256(), len(self._rejected)
        with Progress(None, f"preparing {self.name}/{split}", "dialogue") as progress:
            for one in entries:
                contents.append(one.content)
                content.update(one.text.encode() + b"\n")
                count["dialogues"] += 1
                count["messages"] += one.messages
                count["responses"] += one.responses
                progress.update(count["dialogues"])
                yield one.text
        if not contents:
            raise UserError(
                f"{self.name}: no dialogue for the split {split!r}; add some to its file"
            )
        if refused := len(self._rejected) - rejected:
            count["rejected"] = refused
        self.counts[split] = count
        self.contents[split] = np.array(contents, np.uint64)
        self._hashes[split] = content.hexdigest()

    def summary(self) -> dict[str, Any]:
        """What is stored beside the build."""
        for split, known in also_in(self.contents).items():
            self.counts[split] |= known
        whole = hashlib.sha256(json.dumps(self._hashes, sort_keys=True).encode())
        return {"splits": list(self.counts), "digest": whole.hexdigest(), "counts": self.counts}
