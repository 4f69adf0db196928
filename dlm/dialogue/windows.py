"""Which turns of a long dialogue are seen together; cuts fall between turns, never elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from dlm.dialogue.policy import KEPT, PolicyConfig
from dlm.dialogue.template import RenderedMessage


class Line(NamedTuple):
    """A rendered message with all that its positions share; fields as in `Encoded`."""

    message: RenderedMessage
    weight: float
    channel: int
    turn: int
    unit: int

    @property
    def size(self) -> int:
        """Its number of tokens."""
        said = self.message
        return len(said.header) + len(said.output) + len(said.trailer)

    @property
    def name(self) -> str:
        """Its channel, or else its role."""
        return self.message.channel or self.message.role

    @property
    def parts(self) -> tuple[Sequence[int], ...]:
        """Its ids: header, output and trailer."""
        return self.message.header, self.message.output, self.message.trailer


class Windows:
    """The stretches of turns of one dialogue that fit into a number of tokens.

    A stretch is read from its last turn: of the turns before, it holds what the policy lets see.
    """

    def __init__(self, lines: Sequence[Line], tokens: int, policy: PolicyConfig) -> None:
        self._lines = lines
        self._tokens = tokens
        self._policy = policy
        self.last = max((line.turn for line in lines), default=-1)
        self._sizes = [0] * (self.last + 1)  # of each turn without what is kept anyway
        self._past = [0] * (self.last + 1)  # the same as later turns see it
        kept = [0] * (self.last + 2)  # by turn, from -1
        for line in lines:
            if line.name in KEPT:
                kept[line.turn + 1] += line.size
            else:
                self._sizes[line.turn] += line.size
                self._past[line.turn] += 0 if line.name in policy.hide else line.size
        self._kept = list(accumulate(kept))  # before and in each turn, from -1
        self.learned = {line.turn for line in lines if line.weight > 0}

    def size(self, first: int, last: int) -> int:
        """Tokens of turns `first` to `last`, with all that is kept up to them."""
        return self._kept[last + 1] + sum(self._past[first:last]) + self._sizes[last]

    def fits(self, first: int, last: int) -> bool:
        """Whether turns `first` to `last` fit."""
        return self.size(first, last) <= self._tokens

    def longest(self) -> int:
        """Tokens of the longest turn that is learned, with all the history it is to see."""
        return max(self.size(self._wanted(turn), turn) for turn in self.learned)

    def earliest(self, last: int) -> int | None:
        """The first turn of the longest stretch that ends with `last` and fits, or None."""
        first, size = last, self.size(last, last)
        if size > self._tokens:
            return None
        while first > self._wanted(last) and size + self._past[first - 1] <= self._tokens:
            first -= 1
            size += self._past[first]
        return first

    def lines(self, first: int, last: int, scored: int = 0) -> list[Line]:
        """The messages of a stretch; turns before `scored` are only read."""
        return [
            line if line.turn >= scored else line._replace(weight=0.0)
            for line in self._lines
            if line.turn <= last
            and (line.turn >= first or line.name in KEPT)
            and self._policy.sees(line.name, line.turn, last)
        ]

    def _wanted(self, last: int) -> int:
        """The first turn that `last` is to see."""
        history = self._policy.history
        return 0 if history is None else max(0, last - history)


def newest(windows: Windows) -> list[tuple[int, int, int]]:
    """The longest stretch that ends with the last turn that fits by itself."""
    for last in range(windows.last, -1, -1):
        first = windows.earliest(last)
        if first is not None:
            return [(first, last, first)]
    return []


def disjoint(windows: Windows) -> list[tuple[int, int, int]]:
    """Stretches one after another, each as long as fits."""
    stretches: list[tuple[int, int, int]] = []
    first = 0
    for last in range(windows.last + 1):
        if not windows.fits(last, last):
            first = last + 1
        elif first < last and windows.fits(first, last):
            stretches[-1] = (first, last, first)
        else:
            first = last
            stretches.append((first, last, first))
    return stretches


def each_once(windows: Windows) -> list[tuple[int, int, int]]:
    """For each turn that is learned the longest history that fits; equal ones are shared."""
    stretches: list[tuple[int, int, int]] = []
    for turn in sorted(windows.learned):
        first = windows.earliest(turn)
        if first is None:
            continue
        if stretches and stretches[-1][0] == first:
            stretches[-1] = (first, turn, stretches[-1][2])
        else:
            stretches.append((first, turn, stretches[-1][1] + 1 if stretches else 0))
    return stretches


def each_alone(windows: Windows) -> list[tuple[int, int, int]]:
    """For each turn that is learned a stretch of its own, with the longest history that fits."""
    firsts = ((windows.earliest(turn), turn) for turn in sorted(windows.learned))
    return [(first, turn, turn) for first, turn in firsts if first is not None]
