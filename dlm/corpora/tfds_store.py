"""The one way from a reader to disk and back: TFDS builds of JSON dialogues in ArrayRecord files.

A corpus gives one callable a split, each yielding `Dialogue`s; it is called only where the build
does not exist yet:

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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from dlm.core.errors import UserError
from dlm.core.files import read_json, write_atomic, write_json
from dlm.corpora.overlap import also_in, content_hash
from dlm.corpora.registry import Card, DialogueSource, Prepared
from dlm.dialogue.schema import Dialogue, response_units, to_json, validate

Splits = Mapping[str, Callable[[], Iterable[Dialogue]]]

VERSION = "1.2.0"
SUMMARY = "dialogues.json"
REJECTED = "rejected.jsonl"
CONTENTS = "contents"  # folder of the splits' content hashes


def build(
    name: str,
    digest: str,
    splits: Splits,
    data_dir: str | Path,
    *,
    card: Card,
    rejected: Sequence[Mapping[str, Any]] = (),
    checked: bool = False,
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
      checked: the dialogues come from a reader that checked them; they are not checked again.

    Raises:
      UserError: an empty split, an id that occurs twice, a dialogue that breaks the format, or
        what a callable raised.
    """
    data_dir = Path(data_dir)
    folder = data_dir / name / digest / VERSION
    if not folder.exists():
        info = {
            "description": card.description,
            "citation": card.citation,
            "license": card.licence,
        }
        if not checked:
            splits = {
                split: partial(_checked, f"{name}/{split}", dialogues)
                for split, dialogues in splits.items()
            }
        _write(name, digest, splits, data_dir, info, rejected)
    summary = read_json(folder / SUMMARY)
    builder = tfds.builder_from_directory(folder)
    refused = folder / REJECTED
    return Prepared(
        name=name,
        splits={
            split: DialogueSource(builder.as_data_source(split=split), f"{name}/{split}")
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


def _checked(name: str, dialogues: Callable[[], Iterable[Dialogue]]) -> Iterator[Dialogue]:
    for dialogue in dialogues():
        validate(dialogue, f"{name}: dialogue {dialogue.id}")
        yield dialogue


def _write(
    name: str,
    digest: str,
    splits: Splits,
    data_dir: Path,
    info: Mapping[str, str],
    rejected: Sequence[Mapping[str, Any]],
) -> None:
    """Builds into a temporary folder beside the final one, then renames."""
    (data_dir / name).mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".building-", dir=data_dir / name))
    try:
        builder = _builder_class(name, digest)(splits, info, rejected, data_dir=aside)
        builder.download_and_prepare()
        if rejected:
            lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in rejected)
            write_atomic(builder.data_path / REJECTED, "".join(lines))
        (builder.data_path / CONTENTS).mkdir()
        for split, hashes in builder.tally.contents.items():
            np.save(builder.data_path / CONTENTS / f"{split}.npy", hashes)
        write_json(builder.data_path / SUMMARY, builder.tally.summary())
        folder = data_dir / name / digest / VERSION
        folder.parent.mkdir(exist_ok=True)  # it may hold a build of another version
        try:
            os.rename(builder.data_path, folder)
        except OSError:  # another process finished first; its build holds the same dialogues
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


class _Tally:
    """Counts and hashes the dialogues of each split on their way to disk."""

    def __init__(self, name: str, rejected: Sequence[Any]):
        self.name = name
        self._rejected = rejected
        self.counts: dict[str, dict[str, int]] = {}
        self._hashes: dict[str, str] = {}
        self.contents: dict[str, np.ndarray] = {}

    def watch(self, split: str, dialogues: Iterable[Dialogue]) -> Iterator[str]:
        """Yields each dialogue as JSON text; refuses ids seen before, and an empty split."""
        seen: set[str] = set()
        contents = array("Q")
        count = {"dialogues": 0, "messages": 0, "responses": 0}
        content, rejected = hashlib.sha256(), len(self._rejected)
        for dialogue in dialogues:
            if dialogue.id in seen:
                raise UserError(
                    f"{self.name}/{split}: two dialogues have the id {dialogue.id!r}; "
                    "make the ids of a split unique"
                )
            seen.add(dialogue.id)
            record = to_json(dialogue)
            text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
            contents.append(content_hash(record))
            content.update(text.encode() + b"\n")
            count["dialogues"] += 1
            count["messages"] += len(dialogue.messages)
            count["responses"] += len(response_units(dialogue))
            yield text
        if not seen:
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


class _Dialogues(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A TFDS builder whose examples are dialogues as JSON text, in the order given."""

    VERSION = tfds.core.Version(VERSION)

    def __init__(
        self,
        splits: Splits,
        info: Mapping[str, str],
        rejected: Sequence[Any],
        *,
        data_dir: Path,
    ):
        self._splits = splits
        self._texts = info
        self.tally = _Tally(self.name, rejected)
        tfds.disable_progress_bar()
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _log_download_bytes(self) -> None:
        """Says nothing: nothing is downloaded."""

    def _log_download_done(self) -> None:
        """Says nothing: the build still has to be renamed."""

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"json": tfds.features.Text()}),
            disable_shuffling=True,
            **self._texts,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, str]]]]:
        del dl_manager  # nothing is downloaded: the readers open local files
        return {
            split: self._generate_examples(split, dialogues)
            for split, dialogues in self._splits.items()
        }

    def _generate_examples(
        self, split: str, dialogues: Callable[[], Iterable[Dialogue]]
    ) -> Iterator[tuple[int, dict[str, str]]]:
        for index, text in enumerate(self.tally.watch(split, dialogues())):
            yield index, {"json": text}


def _builder_class(name: str, digest: str) -> type[_Dialogues]:
    """The builder of one corpus and digest; TFDS takes name and config from the class."""
    config = tfds.core.BuilderConfig(name=digest, version=VERSION)
    fields = {"name": name, "BUILDER_CONFIGS": [config]}
    return type(name, (_Dialogues,), fields, skip_registration=True)
