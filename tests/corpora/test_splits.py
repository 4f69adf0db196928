"""Splits by hash: the same text on the same side, eight to one to one."""

from __future__ import annotations

from collections import Counter

from dlm.corpora.splits import share_of, split_of


def test_a_text_falls_on_one_side():
    assert [split_of(f"question {n}") for n in range(9)] == [
        split_of(f"question {n}") for n in range(9)
    ]
    assert share_of("a") != share_of("b") != share_of("b", seed=1)


def test_sides_are_eight_to_one_to_one():
    """Of 20,000 texts, each share within four standard deviations (0.0028 and 0.0021)."""
    counts = Counter(split_of(f"question {n}", seed=3) for n in range(20_000))
    assert abs(counts["train"] / 20_000 - 0.8) < 4 * 0.0028
    for split in ("validation", "test"):
        assert abs(counts[split] / 20_000 - 0.1) < 4 * 0.0021


def test_another_seed_is_another_split():
    moved = sum(split_of(f"{n}", 0) != split_of(f"{n}", 1) for n in range(1000))
    assert moved > 200
