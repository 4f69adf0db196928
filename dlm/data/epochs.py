"""The epochs of a run: how many steps each has, and which units lie in its rows.

Two kinds with the same methods: `Whole` epochs hold every unit once, `Drawn` ones by the shares of
a mixture. A unit is a piece, or a group of pieces that share a row; a step is a batch of B packed
rows, of which the last of an epoch may have fewer.
"""

from __future__ import annotations

import math
from functools import lru_cache

from dlm.data.mixture import Draws, Shares
from dlm.data.packing import Packing, Plan
from dlm.data.store import Pieces


class Whole:
    """Every unit once an epoch: all epochs have the same rows, as lengths alone decide them.

    Args:
      pieces: the encoded split.
      rows: B, rows of a step.
      length: T, positions of a row.
      seed: of the order; None = one epoch, in the order in which the pieces are stored.
    """

    def __init__(self, pieces: Pieces, rows: int, length: int, seed: int | None):
        self._digest, self._seed, self._rows = pieces.data_digest, seed, rows
        self._packing = Packing(pieces.unit_lengths, length)
        self.plan = lru_cache(maxsize=2)(self._make_plan)

    def num_steps(self, epoch: int) -> int:
        """Steps of an epoch."""
        del epoch  # all are alike
        return -(-self._packing.num_rows // self._rows)

    def steps_of(self, epochs: float) -> int:
        """Steps of so many epochs from the first on, rounded up."""
        return math.ceil(epochs * self.num_steps(0))

    def locate(self, step: int) -> tuple[int, int]:
        """The epoch of a step, and its number there."""
        return divmod(step, self.num_steps(0))

    def most(self, rows: int) -> int:
        """A bound on the units of so many rows of an epoch."""
        return int(self._packing.segments[:rows].sum())

    def _make_plan(self, epoch: int) -> Plan:
        """The rows of an epoch."""
        if self._seed is None:
            return self._packing.stored()
        return self._packing.plan(digest=self._digest, seed=self._seed, epoch=epoch)


class Drawn:
    """Units by the shares of a mixture: epochs differ by a few rows.

    The place of a step is found by packing every epoch before it, once.

    Args:
      pieces: the encoded training split.
      rows: B, rows of a step.
      length: T, positions of a row.
      seed: of the order.
      shares: tokens of each task -> its share of an epoch's tokens; see `dlm/data/mixture.py`.

    Raises:
      UserError: `shares` refuses the tasks.
    """

    def __init__(self, pieces: Pieces, rows: int, length: int, seed: int, shares: Shares):
        self._digest, self._seed, self._rows, self._length = pieces.data_digest, seed, rows, length
        self.draws = Draws(pieces, shares, seed)
        self._packing = lru_cache(maxsize=2)(self._make_packing)
        self.plan = lru_cache(maxsize=2)(self._make_plan)
        self.num_steps = lru_cache(maxsize=None)(self._count_steps)
        self._known = (0, 0)  # an epoch and its first step, from which others are found

    def steps_of(self, epochs: float) -> int:
        """Steps of so many epochs from the first on, rounded up."""
        part, whole = math.modf(epochs)
        steps = sum(self.num_steps(epoch) for epoch in range(int(whole)))
        return steps + (math.ceil(part * self.num_steps(int(whole))) if part else 0)

    def locate(self, step: int) -> tuple[int, int]:
        """The epoch of a step, and its number there."""
        if step < 0:
            return -1, step
        epoch, first = self._known if step >= self._known[1] else (0, 0)
        while step - first >= self.num_steps(epoch):
            epoch, first = epoch + 1, first + self.num_steps(epoch)
        self._known = epoch, first
        return epoch, step - first

    def most(self, rows: int) -> int:
        """A bound on the units of so many rows of an epoch."""
        return self.draws.most(rows * self._length)

    def _count_steps(self, epoch: int) -> int:
        """Steps of an epoch."""
        return -(-self._packing(epoch).num_rows // self._rows)

    def _make_packing(self, epoch: int) -> Packing:
        return Packing(self.draws.lengths[self.draws.units(epoch)], self._length)

    def _make_plan(self, epoch: int) -> Plan:
        """The rows of an epoch."""
        plan = self._packing(epoch).plan(digest=self._digest, seed=self._seed, epoch=epoch)
        return Plan(self.draws.units(epoch)[plan.pieces], plan.starts)
