"""The encoded cache: a split's pieces as flat arrays on disk, keyed by all that decides them.

A cache is a folder `encoded/KEY`: one `.npy` file a field, all pieces one after another, and
`meta.json`, written last. It is written aside and renamed, so it is whole or absent; of two
processes that write the same one, the second to end discards its own. A process that was killed
while it wrote leaves a folder that the next one to write removes.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dlm.core.errors import UserError
from dlm.core.files import read_json, write_json
from dlm.core.progress import Progress
from dlm.data.block import PIECE_ARRAYS, TOKEN_ARRAYS, Block, Counts
from dlm.data.recipe import Recipe, preparing_code
from dlm.data.workers import encode_blocks, num_workers
from dlm.data.writer import write
from dlm.dialogue.encoding import Encoded
from dlm.dialogue.endings import ENDINGS
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.schema import Dialogue
from dlm.dialogue.template import Template

META = "meta.json"
KEY = re.compile(r"[0-9a-f]{64}")
ASIDE = ".writing-"
DAMAGED = (UserError, OSError, ValueError, KeyError, TypeError)


class Pieces:
    """The pieces of a split: memory-mapped arrays, read at random.

    Attributes:
      name: of the split.
      grouped: the pieces of a dialogue are its endings, and share a row.
      folder: where the arrays lie.
      arrays: the fields of `Encoded`, each [sum of lengths], piece after piece.
      lengths: [N] int32 tokens of each piece.
      dialogue_index: [N] int32 index of the piece's dialogue in the split.
      task_id: [N] int32 index into `task_names`.
      ending: [N] int32 index into `endings.ENDINGS`.
      unit_starts: [M + 1] int64; unit i is the pieces from `unit_starts[i]` on, which share a row.
      task_names: sorted.
      data_digest: digest of the corpus.
      counts: what the split holds.
      rejected: of each rejected dialogue its `dialogue` (index), `id` and `reason`.
    """

    def __init__(self, folder: Path, meta: dict[str, Any], arrays: dict[str, np.ndarray]):
        self.folder = folder
        self.name: str = meta["recipe"]["split"]
        self.grouped: bool = meta["recipe"]["groups"]
        self.data_digest: str = meta["recipe"]["data"]
        self.task_names: list[str] = meta["task_names"]
        self.counts = Counts(**meta["counts"])
        self.rejected: list[dict[str, Any]] = meta["rejected"]
        self.arrays = {name: arrays[name] for name in TOKEN_ARRAYS}
        self.lengths, self.dialogue_index, self.task_id, self.ending = (
            arrays[name] for name in PIECE_ARRAYS
        )
        begins = np.diff(self.dialogue_index, prepend=-1) != 0 if self.grouped else self.lengths > 0
        self.unit_starts = np.append(np.flatnonzero(begins), len(self.lengths))
        self._starts = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)]).tolist()

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def unit_lengths(self) -> np.ndarray:
        """[M] int64 tokens of each unit."""
        return np.diff(np.asarray(self._starts)[self.unit_starts])

    def span(self, index: int) -> slice:
        """Where piece `index` lies in each of `arrays`."""
        return slice(self._starts[index], self._starts[index + 1])

    def let_go(self) -> None:
        """Gives back the memory of the pages read so far; a page read again is mapped again.

        Without it the process keeps every page of the files that it has touched until the system
        runs out of memory, and an epoch of a large corpus looks like as large a process.
        """
        for array in self.arrays.values():
            mapped = getattr(array.base, "base", None)  # of the view of a numpy.memmap
            if isinstance(mapped, mmap.mmap):
                mapped.madvise(mmap.MADV_DONTNEED)

    def piece(self, index: int) -> Encoded:
        """Piece `index` as it left the encoding."""
        span = self.span(index)
        ending = ENDINGS[self.ending[index]]
        return Encoded(**{name: array[span] for name, array in self.arrays.items()}, ending=ending)


def build_or_load(
    source: Sequence[Dialogue],
    template: Template,
    policy: PolicyConfig,
    length: int,
    *,
    name: str,
    data_digest: str,
    cache_dir: str | Path,
    overflow: str = "drop",
    evaluation: bool = False,
    groups: bool = False,
    workers: int | None = None,
) -> Pieces:
    """Encodes a split, or opens its cache where the same recipe was encoded before.

    Args:
      source: the dialogues.
      template: how they are written out.
      policy: what is learned.
      length: most tokens of a piece.
      name: of the split, e.g. `train`.
      data_digest: digest of the corpus that `source` belongs to.
      cache_dir: holds `encoded/`.
      overflow: "drop", "split" or "raise", for dialogues longer than `length` in training.
      evaluation: every message is scored once; `overflow` does not apply.
      groups: a piece for each ending of a dialogue; see `encoding.fit_many`.
      workers: processes that encode; they change no result. None: as the number of dialogues asks.

    Raises:
      UserError: a dialogue that does not fit under `overflow="raise"`.
    """
    recipe = Recipe(
        split=name,
        data=data_digest,
        tokenizer=template.tokenizer.digest,
        template=template.digest,
        policy=policy.scored() if evaluation else policy,
        length=length,
        overflow=overflow,
        evaluation=evaluation,
        groups=groups,
        code=preparing_code(),
    )
    folder = Path(cache_dir).expanduser() / "encoded" / recipe.key
    if folder.exists():
        try:
            return _load(folder, folder)
        except DAMAGED as error:
            print(f"{folder}: damaged ({error}); encoding {name} again", flush=True)
            _remove(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _aside(folder.parent) as aside:
        meta = write(aside, _encode(source, template, recipe, workers or num_workers(len(source))))
        write_json(aside / META, {"recipe": asdict(recipe), **meta})
        pieces = _load(aside, folder)  # stays readable whatever others do to the folder
        _install(aside, folder)
        return pieces


def size(cache_dir: str | Path) -> int:
    """Bytes of all encoded caches under `cache_dir`, unfinished ones included."""
    files = (path for folder in _folders(cache_dir) for path in folder.iterdir())
    return sum(path.stat().st_size for path in files)


def clean(cache_dir: str | Path) -> int:
    """Deletes all encoded caches under `cache_dir` and nothing else; returns the bytes freed."""
    freed = size(cache_dir)
    for folder in _folders(cache_dir):
        shutil.rmtree(folder)
    return freed


def _encode(
    source: Sequence[Dialogue], template: Template, recipe: Recipe, workers: int
) -> Iterator[Block]:
    """Yields the blocks of a split, and says how far it is."""
    done = 0
    with Progress(len(source), f"encoding {recipe.split}", "dialogue") as progress:
        for block in encode_blocks(source, template, recipe, workers):
            yield block
            done += block.counts.dialogues
            progress.update(done)


@contextmanager
def _aside(parent: Path) -> Iterator[Path]:
    """A new folder to write in, held while the block lasts and then removed, unless renamed.

    What processes left behind that were killed while they wrote, and so hold no longer, goes too.
    """
    with ExitStack() as held:
        with _held(parent):
            for left in parent.glob(f"{ASIDE}*"):
                with suppress(OSError), _held(left, wait=False):
                    shutil.rmtree(left)
            aside = Path(tempfile.mkdtemp(prefix=ASIDE, dir=parent))
            held.enter_context(_held(aside))
        try:
            yield aside
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _held(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Holds a folder until the block or the process ends.

    Raises:
      BlockingIOError: another holds it, and `wait` is False.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)


def _folders(cache_dir: str | Path) -> list[Path]:
    root = Path(cache_dir).expanduser() / "encoded"
    found = root.iterdir() if root.is_dir() else ()
    return [path for path in found if KEY.fullmatch(path.name) or path.name.startswith(ASIDE)]


def _load(folder: Path, home: Path) -> Pieces:
    """Opens a cache that is called `home`; raises one of DAMAGED where it is not whole."""
    meta = read_json(folder / META)
    arrays = {}
    for name in (*TOKEN_ARRAYS, *PIECE_ARRAYS):
        path = folder / f"{name}.npy"
        if path.stat().st_size != meta["bytes"][name]:
            raise ValueError(f"{path.name} has {path.stat().st_size} bytes, not those written")
        arrays[name] = np.load(path, mmap_mode="r").view(np.ndarray)
    return Pieces(home, meta, arrays)


def _install(aside: Path, folder: Path) -> None:
    """Gives a finished cache its name, unless another process was faster."""
    try:
        os.rename(aside, folder)
    except OSError:
        if not folder.is_dir():
            raise
    handle = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    """Deletes a cache; another process sees it whole or not at all."""
    with _aside(folder.parent) as aside:
        try:
            os.rename(folder, aside)
        except OSError:
            if folder.exists():
                raise
