"""Batches by random access: `batch(step)` is a pure function of (pieces, seed, step)."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from dlm.core.errors import UserError
from dlm.data.batch import TOKEN_FIELDS, Batch, empty_batch
from dlm.data.epochs import Drawn, Whole
from dlm.data.mixture import Draws, Shares
from dlm.data.store import Pieces
from dlm.dialogue.endings import ENDINGS, PREFERRED

KEPT = 16  # batches: as often, the pages of the encoded files that were read are given back
FILE_OPTIONS = ("path", "format", "validation_path", "test_path", "on_bad_record")


@dataclass(frozen=True)
class DataConfig:
    """The `data` section of a config.

    Attributes:
      name: corpus, a key of `dlm.corpora.registry.CORPORA`.
      options: the corpus's own options.
      length: T, positions of a row, in tokens.
      rows: B, rows of a batch.
      pack: several dialogues a row; False = the same dialogues in each step, one a row (with all
        its endings, where they are compared).
      overflow: what happens in training to a dialogue longer than `length`: "drop" its oldest
        whole turns, "split" it, or "raise".
      on_bad_record: "raise" at a bad record, or "skip" and report it.
      path: the file of the `jsonl` corpus; short for `options.path`, as are the next three.
      format: "dlm", "openai", "sharegpt" or "prompt_response".
      validation_path: file of the validation split; "" = a share of `path`.
      test_path: file of the test split; "" = none.
      cache_dir: where builds and encoded tokens are kept; "" = ~/.cache/dlm.
    """

    name: str = "jsonl"
    options: Mapping[str, Any] = field(default_factory=dict)
    length: int = 256
    rows: int = 16
    pack: bool = True
    overflow: str = "drop"
    on_bad_record: str = "raise"
    path: str = ""
    format: str = "dlm"
    validation_path: str = ""
    test_path: str = ""
    cache_dir: str = ""

    def __post_init__(self) -> None:
        for name in ("length", "rows"):
            if getattr(self, name) < 1:
                raise UserError(f"data.{name}={getattr(self, name)} must be at least 1")

    def corpus_options(self) -> dict[str, Any]:
        """The options handed to the corpus: `options`, and the fields on files that are set.

        A corpus without such an option refuses it.
        """
        default = DataConfig.__dataclass_fields__
        fields = {name: getattr(self, name) for name in FILE_OPTIONS}
        given = {name: value for name, value in fields.items() if value != default[name].default}
        return {**given, **self.options}


class Batches:
    """Batches of encoded pieces by step, the same on any number of threads or processes.

    Shuffled, epochs follow one another without end, each with a plan of its own: every piece once,
    or drawn by the shares of a mixture. Otherwise the pieces come once, in the order in which they
    are stored (that of the first piece of each row). The last batch of an epoch is filled up with
    rows of padding: nothing is dropped, and an epoch ends where the data end.

    Args:
      pieces: the encoded split.
      rows: B, rows of a packed batch.
      length: T, positions of a row.
      seed: of the order.
      pack: False unfolds each packed row into one row a piece; step n then holds the same pieces,
        in a batch of as many rows as the fullest step could need, a multiple of B.
      shuffle: False for evaluation.
      shares: of a mixture: tokens of each task -> its share of an epoch's tokens; None = every
        piece once.
      reference: [N] float32, `reference_log_probs` of each piece; None = the batches have none.

    Raises:
      UserError: there is no piece, or `shares` refuses the tasks.
    """

    def __init__(
        self,
        pieces: Pieces,
        rows: int,
        length: int,
        *,
        seed: int = 0,
        pack: bool = True,
        shuffle: bool = True,
        shares: Shares | None = None,
        reference: np.ndarray | None = None,
    ):
        if not len(pieces):
            raise UserError(
                f"{pieces.name}: no dialogue to read ({pieces.counts.summary()}); "
                "check the data, data.length and policy"
            )
        self.pieces = pieces
        self.length = length
        self._pack = pack
        self._shuffle = shuffle
        self._reference = reference
        self._rows = rows
        self._epochs: Whole | Drawn
        if shuffle and shares:
            self._epochs = Drawn(pieces, rows, length, seed, shares)
        else:
            self._epochs = Whole(pieces, rows, length, seed if shuffle else None)
        most, largest = self._epochs.most(rows), int(np.diff(pieces.unit_starts).max())
        self.rows = rows if pack else -(-most // rows) * rows  # so that what divides B divides it
        self.segments = largest * (self._epochs.most(1) if pack else 1)
        self._own: Sequence[int] = range(self.rows)

    def only(self, rows: Sequence[int]) -> Batches:
        """The same batches, of which `batch` and `iterate` make these rows alone.

        Each process makes its own; plans, counts and `rows` are those of the whole.
        """
        batches = copy(self)
        batches._own = rows
        return batches

    def with_reference(self, reference: np.ndarray) -> Batches:
        """The same batches with other `reference_log_probs`: [N] float32, one a piece."""
        batches = copy(self)
        batches._reference = np.asarray(reference, np.float32)
        return batches

    def num_steps(self, epoch: int = 0) -> int:
        """Batches in an epoch; the same number in each, but where they are drawn by shares."""
        if epoch and not self._shuffle:
            raise IndexError(f"{self.pieces.name}: epoch {epoch} of batches that come once")
        return self._epochs.num_steps(epoch)

    def steps_of(self, epochs: float) -> int:
        """Batches in so many epochs from the first on, rounded up."""
        return self._epochs.steps_of(epochs)

    @property
    def draws(self) -> Draws | None:
        """What each epoch of a mixture by shares holds; None where every piece comes once."""
        return self._epochs.draws if isinstance(self._epochs, Drawn) else None

    @property
    def efficiency(self) -> float:
        """Share of the positions of the first epoch's packed rows that hold a token."""
        plan = self._epochs.plan(0)
        tokens = self.pieces.unit_lengths[plan.pieces].sum()
        return float(tokens / (plan.num_rows * self.length))

    def row_pieces(self, step: int) -> list[list[int]]:
        """The piece indices of each row of batch(step), in the order of their segments."""
        epoch, number = self._epochs.locate(step)
        if epoch < 0 or (epoch and not self._shuffle):
            raise IndexError(f"{self.pieces.name}: no step {step}")
        plan = self._epochs.plan(epoch)
        first = number * self._rows
        last = min(first + self._rows, plan.num_rows)
        rows = [plan.row(row).tolist() for row in range(first, last)]
        if not self._pack:
            rows = [[unit] for row in rows for unit in row]
        starts = self.pieces.unit_starts
        units = [[range(starts[unit], starts[unit + 1]) for unit in row] for row in rows]
        rows = [list(chain.from_iterable(row)) for row in units]
        return rows + [[] for _ in range(self.rows - len(rows))]

    def dialogues(self, step: int) -> list[int]:
        """The dialogues of batch(step) as indices into the split, row after row."""
        members = [piece for row in self.row_pieces(step) for piece in row]
        return self.pieces.dialogue_index[members].tolist()

    def batch(self, step: int) -> Batch:
        """Batch number `step` of the run, as numpy arrays."""
        if step % KEPT == 0:
            self.pieces.let_go()
        rows = self.row_pieces(step)
        batch = empty_batch(
            len(self._own),
            self.length,
            self.segments,
            pairs=self.pieces.grouped,
            reference=self._reference is not None,
        )
        for row, number in enumerate(self._own):
            start = 0
            for segment, piece in enumerate(rows[number]):
                start = self._put(batch, row, segment, start, piece)
        return batch

    def iterate(
        self, start: int, stop: int | None = None, *, threads: int = 1, buffer: int = 4
    ) -> Iterator[Batch]:
        """batch(start), ..., batch(stop - 1), made ahead by Grain; the threads change no result.

        Args:
          start: the first step; a run resumes by it.
          stop: None = the end of the epoch where there is no shuffle, and never otherwise.
          threads: that make batches.
          buffer: batches made ahead.
        """
        import grain

        if stop is None:
            stop = sys.maxsize if self._shuffle else self.num_steps()
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer)
        steps = grain.MapDataset.range(start, stop)
        return iter(steps.map(self.batch).to_iter_dataset(options))

    def _put(self, batch: Batch, row: int, segment: int, start: int, piece: int) -> int:
        """Writes a piece into its place; returns where it ends."""
        pieces = self.pieces
        source = pieces.span(piece)
        stop = start + source.stop - source.start
        for name in TOKEN_FIELDS:
            if name in pieces.arrays:
                getattr(batch, name)[row, start:stop] = pieces.arrays[name][source]
        batch.segment_ids[row, start:stop] = segment + 1
        batch.positions[row, start:stop] = np.arange(stop - start)
        batch.dialogue_ids[row, segment] = pieces.dialogue_index[piece]
        batch.task_ids[row, segment] = pieces.task_id[piece]
        if pieces.grouped:
            begins = piece == 0 or np.diff(pieces.dialogue_index[piece - 1 : piece + 1])[0] != 0
            before = batch.pair_ids[row, segment - 1] if segment else -1
            batch.pair_ids[row, segment] = before + begins
            batch.chosen[row, segment] = ENDINGS[pieces.ending[piece]] in PREFERRED
        if self._reference is not None:
            batch.reference_log_probs[row, segment] = self._reference[piece]
        return stop
