"""Dialogue acts of the assistant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dlm.dialogue.slots import parse_acts
from dlm.evaluation.scoring import Example, Scored, pairs


def act_f1(examples: Sequence[Example]) -> Scored:
    """`act_f1`: F1 of (act, slot, value) triples over all responses, 2 tp / (gold + written).

    An act without slots is one triple. `act_accuracy`: responses whose triples are all right. Acts
    that cannot be read are none.
    """
    gold_count = written_count = right = whole = responses = 0
    for _, gold, written in pairs(examples, "act"):
        wanted, found = _triples(gold), _triples(written or "")
        gold_count += wanted.total()
        written_count += found.total()
        right += (wanted & found).total()
        whole += wanted == found
        responses += 1
    if not responses:
        return Scored({}, "")
    both = gold_count + written_count
    figures = {"act_f1": 2 * right / both if both else 1.0, "act_accuracy": whole / responses}
    return Scored(figures, "triples of act, slot and value, exact")


def _triples(text: str) -> Counter[tuple[str, str, str | None]]:
    try:
        acts = parse_acts(text)
    except ValueError:
        return Counter()
    return Counter((a.name, slot, value) for a in acts for slot, value in a.slots or (("", None),))
