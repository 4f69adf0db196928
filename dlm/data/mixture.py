"""Which units an epoch of a mixture holds: a pure function of (pieces, shares, seed, epoch).

An epoch holds about as many tokens as the parts that have a share, each once: n of them, s_i n of
part i. Of part i, whose units (pieces, or groups that share a row) have l_i tokens in the mean,
that is a quota of

    q_i = s_i n / l_i units,    floor(q_i (e + 1)) - floor(q_i e) of them in epoch e

so that rounding never adds up. They are drawn without replacement: the part's units are walked
through in a seeded order, and when all have come, in another one. A small part comes again and
again while a large one is still new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from dlm.data.packing import shuffled
from dlm.data.store import Pieces

Shares = Callable[[Mapping[str, int]], dict[str, float]]

ONE = 2**20  # quotas are whole numbers of 1 / ONE units: an epoch hangs on no rounding error


class Draws:
    """The units of each epoch of a mixture, whose parts are the tasks of the pieces.

    Args:
      pieces: the encoded training split.
      shares: tokens of each part that has pieces -> its share of an epoch's tokens.
      seed: of the order in which the units of a part come.

    Raises:
      UserError: `shares` refuses the parts.
    """

    def __init__(self, pieces: Pieces, shares: Shares, seed: int):
        self._digest, self._seed = pieces.data_digest, seed
        self.lengths, task = pieces.unit_lengths, pieces.task_id[pieces.unit_starts[:-1]]
        members = {name: np.flatnonzero(task == i) for i, name in enumerate(pieces.task_names)}
        sizes = {name: int(self.lengths[held].sum()) for name, held in members.items()}
        self.shares = {name: share for name, share in shares(sizes).items() if share}
        tokens = sum(sizes[name] for name in self.shares)
        self._members = {name: members[name] for name in self.shares}
        self._quotas = {
            name: round(ONE * share * tokens * len(members[name]) / sizes[name])
            for name, share in self.shares.items()
        }

    def units(self, epoch: int) -> np.ndarray:
        """[n] int64, the units of an epoch, part after part; one that comes twice is there twice.

        n differs from epoch to epoch by less than the number of parts.
        """
        parts = []
        for name, members in self._members.items():
            start, stop = (self._quotas[name] * e // ONE for e in (epoch, epoch + 1))
            parts.append(members[self._walk(name, len(members), start, stop)])
        return np.concatenate(parts)

    def describe(self) -> str:
        """One line: the shares, and how often an epoch goes through the units of each part."""
        passes = {n: q / ONE / len(self._members[n]) for n, q in self._quotas.items()}
        parts = [f"{n} {s:.1%} ({passes[n]:.3g} times all of it)" for n, s in self.shares.items()]
        return f"of the tokens of an epoch: {', '.join(parts)}"

    def most(self, tokens: int) -> int:
        """A bound on the units of an epoch that together have no more than so many tokens."""
        lengths = []
        for name, members in self._members.items():
            drawn = -(-self._quotas[name] // ONE)
            times = (drawn - 2) // len(members) + 2  # a unit comes once in each pass begun
            lengths.append(np.repeat(self.lengths[members], times))
        total = np.cumsum(np.sort(np.concatenate(lengths)), dtype=np.int64)
        return int(np.searchsorted(total, tokens, side="right"))

    def _walk(self, name: str, n: int, start: int, stop: int) -> np.ndarray:
        """Steps start..stop-1 of an endless walk through 0..n-1, each pass in its own order."""
        first, end = start // n, -(-stop // n)
        orders = [
            shuffled(n, self._digest, self._seed, number, f"part {name}")
            for number in range(first, end)
        ]
        walk = np.concatenate([np.empty(0, np.int64), *orders])
        return walk[start - first * n : stop - first * n]
