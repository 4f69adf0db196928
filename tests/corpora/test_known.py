"""The map of millions of numbers: one that holds more than its dict is still a map."""

from __future__ import annotations

import random

import pytest

from dlm.corpora import known


@pytest.mark.parametrize("count", [3, 4, 5, 40])
def test_it_is_a_map(monkeypatch, count):
    """Every number is found, in the dict and in the arrays, and no other is."""
    monkeypatch.setattr(known, "RECENT", 4)
    rng = random.Random(count)
    numbers = [rng.getrandbits(64) for _ in range(2 * count)]
    numbers[0], numbers[count] = 0, 2**64 - 1
    held = known.Known()
    for value, key in enumerate(numbers[:count]):
        assert held.get(key) is None
        held.add(key, 2**64 - 1 - value)
    found = [held.get(key) for key in numbers]
    assert found == [2**64 - 1 - value for value in range(count)] + [None] * count
