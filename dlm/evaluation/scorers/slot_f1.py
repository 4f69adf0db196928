"""Slots one by one, as spans and labels are scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dlm.evaluation.scoring import Example, Scored
from dlm.evaluation.states import NORMALISED, states


def slot_f1(examples: Sequence[Example]) -> Scored:
    """F1 of the slots of states, 2 tp / (2 tp + fp + fn), a slot right where its value is.

        slot_f1        mean over the slots that the gold has anywhere, each slot's own F1
        slot_f1_micro  all slots together

    Source: Coope et al. 2020, Span-ConveRT, ACL (mean over slots, exact spans).
    """
    gold, written, right = Counter[str](), Counter[str](), Counter[str]()
    for pair in states(examples):
        gold.update(pair.gold.keys())
        written.update(pair.written.keys())
        right.update(filter(pair.is_right, pair.gold))
    if not gold:
        return Scored({}, "")
    figures = {
        "slot_f1": sum(2 * right[s] / (gold[s] + written[s]) for s in gold) / len(gold),
        "slot_f1_micro": 2 * right.total() / (gold.total() + written.total()),
    }
    return Scored(figures, f"slots of states, {NORMALISED}")
