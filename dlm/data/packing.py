"""Packs pieces of dialogues into rows: a pure function of (lengths, digest, seed, epoch).

Best fit of the lengths in falling order: each piece goes into the row whose free space it leaves
smallest. Which *lengths* share a row then depends on the lengths alone, so every epoch has the
same number of rows of the same shapes; which *pieces* they are and where the row stands in the
epoch comes from a seeded shuffle.

Source: best-fit decreasing, Johnson 1974, doi:10.1137/0203025; as a packing of training
sequences, Ding et al. 2024, arXiv:2404.10830.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Plan(NamedTuple):
    """The rows of one epoch: row i holds `pieces[starts[i] : starts[i + 1]]`.

    Attributes:
      pieces: [N] int64, each piece index once, row after row.
      starts: [rows + 1] int64.
    """

    pieces: np.ndarray
    starts: np.ndarray

    @property
    def num_rows(self) -> int:
        """Rows of the epoch."""
        return len(self.starts) - 1

    @property
    def segments(self) -> np.ndarray:
        """[rows] int64: pieces in each row."""
        return np.diff(self.starts)

    def row(self, index: int) -> np.ndarray:
        """[segments of the row] int64 piece indices."""
        return self.pieces[self.starts[index] : self.starts[index + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.row(index) for index in range(self.num_rows))


class Packing:
    """The rows that lengths pack into, before any shuffle: made once, then shuffled each epoch.

    Args:
      lengths: [N] tokens of each piece, each in 1..length.
      length: T, tokens a row holds.

    Raises:
      ValueError: a piece that fits no row, or none at all in it.
    """

    def __init__(self, lengths: np.ndarray, length: int):
        lengths = np.asarray(lengths, np.int64)
        bad = np.flatnonzero((lengths < 1) | (lengths > length))
        if len(bad):
            raise ValueError(f"piece {bad[0]}: {lengths[bad[0]]} tokens, a row holds 1..{length}")
        self.lengths = lengths
        ranked = np.sort(lengths)[::-1].tolist()
        rows = np.asarray(_best_fit(ranked, length), np.int64)
        self._ranks = np.argsort(rows, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(rows))]).astype(np.int64)
        self.num_rows = len(self._starts) - 1
        self.segments = np.sort(np.diff(self._starts))[::-1]

    def plan(self, *, digest: str, seed: int, epoch: int) -> Plan:
        """The rows of one epoch in a shuffled order, the same for the same arguments."""
        order = shuffled(len(self.lengths), digest, seed, epoch, "pieces")
        rows = shuffled(self.num_rows, digest, seed, epoch, "rows")
        return self._place(order, rows)

    def stored(self) -> Plan:
        """The rows without a shuffle: in the order of their first piece, pieces rising in each."""
        plan = self._place(np.arange(len(self.lengths)), np.arange(self.num_rows))
        rows = np.repeat(np.arange(self.num_rows), plan.segments)
        pieces = plan.pieces[np.lexsort((plan.pieces, rows))]
        plan = Plan(pieces, plan.starts)
        return _take_rows(plan, np.argsort(pieces[plan.starts[:-1]]))

    def _place(self, order: np.ndarray, rows: np.ndarray) -> Plan:
        """Gives the ranks to pieces: the longest first, those of one length in `order`."""
        by_length = order[np.argsort(-self.lengths[order], kind="stable")]
        return _take_rows(Plan(by_length[self._ranks], self._starts), rows)


def lower_bound(lengths: np.ndarray, length: int) -> int:
    """A number of rows that no packing goes below.

    For each k in 0..T/2, pieces above T - k stand alone; those above T/2 each take a row, whose
    free space the pieces in k..T/2 may fill, and the rest of these needs rows of its own:

        bound = max_k |above T-k| + |T/2..T-k| + max(0, ceil((sum_k..T/2 - free space) / T))

    Source: L2 of Martello and Toth 1990, doi:10.1016/0166-218X(90)90094-S.
    """
    counts = np.bincount(np.asarray(lengths, np.int64), minlength=length + 1)
    numbers = np.concatenate([[0], np.cumsum(counts)])
    totals = np.concatenate([[0], np.cumsum(counts * np.arange(length + 1))])
    half = length // 2
    k = np.arange(half + 1)
    alone = numbers[-1] - numbers[length - k + 1]
    large = numbers[length - k + 1] - numbers[half + 1]
    free = large * length - (totals[length - k + 1] - totals[half + 1])
    small = totals[half + 1] - totals[k]
    return int((alone + large + np.maximum(0, -(-(small - free) // length))).max())


def efficiency(lengths: np.ndarray, length: int, rows: int) -> float:
    """Share of `rows` x `length` positions that hold a token; 0 where there are no rows."""
    return float(np.sum(lengths) / (rows * length)) if rows else 0.0


def _best_fit(ranked: list[int], length: int) -> list[int]:
    """The row of each piece, for lengths that fall.

    Bit f of `free` is set where some row has exactly f free positions, so the best fit for n
    tokens is the lowest set bit at or above n.
    """
    rows_by_space: list[list[int]] = [[] for _ in range(length + 1)]
    placed: list[int] = []
    free = rows = 0
    for tokens in ranked:
        fitting = free >> tokens
        if fitting:
            space = tokens + (fitting & -fitting).bit_length() - 1
            row = rows_by_space[space].pop()
            if not rows_by_space[space]:
                free ^= 1 << space
        else:
            space, row, rows = length, rows, rows + 1
        placed.append(row)
        left = space - tokens
        if left:
            rows_by_space[left].append(row)
            free |= 1 << left
    return placed


def shuffled(n: int, digest: str, seed: int, epoch: int, what: str) -> np.ndarray:
    """A permutation of 0..n-1: the stable sort of n draws of Philox keyed by all the rest.

    The raw stream of a bit generator is fixed for good, that of numpy's own shuffles is not.
    """
    key = hashlib.sha256(f"{digest}/{seed}/{epoch}/{what}".encode()).digest()[:16]
    draws = np.random.Philox(key=int.from_bytes(key, "little")).random_raw(n)
    return np.argsort(draws, kind="stable")


def _take_rows(plan: Plan, rows: np.ndarray) -> Plan:
    """The plan with its rows in the order of `rows`."""
    sizes = plan.segments[rows]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    shift = np.repeat(plan.starts[rows] - starts[:-1], sizes)
    return Plan(plan.pieces[np.arange(len(plan.pieces)) + shift], starts)
