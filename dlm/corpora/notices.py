"""What a user should know of a corpus before a model learns from it."""

from __future__ import annotations

from dlm.corpora.overlap import overlaps
from dlm.corpora.registry import Prepared


def notices(corpus: Prepared) -> list[str]:
    """Licences and citations, what of them is non-commercial, absent splits, and leaks; by line."""
    parts = corpus.corpora
    lines = [
        f"licence of {name}: {part.card.licence or 'not stated'}"
        + (f"; cite: {part.card.citation}" if part.card.citation else "")
        for name, part in parts.items()
    ]
    restricted = [name for name, part in parts.items() if part.card.non_commercial]
    if restricted:
        lines.append(
            f"warning: not for commercial use: {', '.join(restricted)}; mind the licence in what "
            "you do with a model that learned from it"
        )
    for name in corpus.splits:
        if absent := [one for one, part in parts.items() if name not in part.splits]:
            lines.append(f"{name} holds nothing of {', '.join(absent)}")
    for split, other, known, dialogues in overlaps({n: part.contents for n, part in parts.items()}):
        lines.append(
            f"{known:,} of {dialogues:,} dialogues of {'/'.join(split)} are also in "
            f"{'/'.join(other)}, word for word"
        )
    return lines
