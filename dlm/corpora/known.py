"""A map that holds millions of numbers, for ids that must differ in a file of any size."""

from __future__ import annotations

import numpy as np

RECENT = 1 << 16  # numbers that are kept in a dict before they go to the arrays


class Known:
    """64-bit numbers by 64-bit number, in 16 bytes each where a dict takes over 100.

    New ones stand in a dict; a full one is merged into sorted arrays.
    """

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._keys = np.empty(0, np.uint64)
        self._values = np.empty(0, np.uint64)

    def get(self, key: int) -> int | None:
        """The number that `key` was given, None where it has none."""
        if key in self._recent or not len(self._keys):
            return self._recent.get(key)
        place = int(np.searchsorted(self._keys, np.uint64(key)))
        found = place < len(self._keys) and self._keys[place] == key
        return int(self._values[place]) if found else None

    def add(self, key: int, value: int) -> None:
        """Gives a number to a key that has none."""
        self._recent[key] = value
        if len(self._recent) == RECENT:
            keys = np.fromiter(self._recent, np.uint64, RECENT)
            values = np.fromiter(self._recent.values(), np.uint64, RECENT)
            order = np.argsort(keys)
            places = np.searchsorted(self._keys, keys[order])
            self._keys = np.insert(self._keys, places, keys[order])
            self._values = np.insert(self._values, places, values[order])
            self._recent.clear()
