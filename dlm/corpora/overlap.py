"""The leak check: dialogues of one split that stand word for word in another.

A dialogue's content is what `schema.content_hash` counts. Among n held-out and m training
dialogues, n m / 2^64 are expected to agree by chance alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

Contents = Mapping[str, np.ndarray]  # split -> [dialogues] uint64 hashes

KNOWN = ("train", "validation")  # a later split should repeat none of an earlier one


class Overlap(NamedTuple):
    """`known` of the `dialogues` of a split stand in another one too; each is a (part, split)."""

    split: tuple[str, str]
    other: tuple[str, str]
    known: int
    dialogues: int


def overlaps(parts: Mapping[str, Contents]) -> list[Overlap]:
    """Compares every split but train with train, and every test with validation.

    Args:
      parts: of each part of a mixture, the contents of its splits; each is compared with each.

    Returns:
      The pairs that share a dialogue.
    """
    homes = {
        (part, split): hashes for part, splits in parts.items() for split, hashes in splits.items()
    }
    found = []
    for home, hashes in homes.items():
        earlier = KNOWN[: _place(home[1])]
        for other in (one for one in homes if one[1] in earlier):
            if known := int(np.isin(hashes, homes[other]).sum()):
                found.append(Overlap(home, other, known, len(hashes)))
    return found


def also_in(contents: Contents) -> dict[str, dict[str, int]]:
    """By split, its dialogues `also_in_train` and `also_in_validation`, where there are any."""
    counts: dict[str, dict[str, int]] = {split: {} for split in contents}
    for (_, split), (_, other), known, _ in overlaps({"": contents}):
        counts[split][f"also_in_{other}"] = known
    return counts


def _place(split: str) -> int:
    """How many splits come before it."""
    return KNOWN.index(split) if split in KNOWN else len(KNOWN)
