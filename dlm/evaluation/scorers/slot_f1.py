"""Slots one by one, as spans and labels are scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

from dlm.evaluation.scoring import Example, Scored
from dlm.evaluation.states import NORMALISED, states


def slot_f1(examples: Sequence[Example]) -> Scored:
    """F1 of the slots of states, 2 tp / (2 tp + fp + fn), a slot right where its value is.

        slot_f1            mean over the slots that the gold has anywhere, each slot's own F1
        slot_f1_micro      all slots together
        value_f1_weighted  mean over the slot=value pairs of the gold, each pair's own F1, weighted
                           by how often the gold has it: of one label a message, the weighted F1 of
                           classification

    Source: Coope et al. 2020, Span-ConveRT, ACL (mean over slots, exact spans); Poria et al. 2019,
    MELD, ACL (weighted).
    """
    gold: Counter[str] = Counter()
    written: Counter[str] = Counter()
    right: Counter[str] = Counter()
    gold_pairs: Counter[Hashable] = Counter()
    written_pairs: Counter[Hashable] = Counter()
    right_pairs: Counter[Hashable] = Counter()
    for pair in states(examples):
        gold.update(pair.gold.keys())
        written.update(pair.written.keys())
        hits = [slot for slot in pair.gold if pair.is_right(slot)]
        right.update(hits)
        gold_pairs.update((slot, values[0]) for slot, values in pair.gold.items())
        right_pairs.update((slot, pair.gold[slot][0]) for slot in hits)
        # A right value counts as the gold's first spelling, so that its pair finds it.
        written_pairs.update(
            (slot, pair.gold[slot][0] if slot in hits else value)
            for slot, value in pair.written.items()
        )
    if not gold:
        return Scored({}, "")
    figures = {
        "slot_f1": _mean(((s, 1) for s in gold), gold, written, right),
        "slot_f1_micro": 2 * right.total() / (gold.total() + written.total()),
        "value_f1_weighted": _mean(gold_pairs.items(), gold_pairs, written_pairs, right_pairs),
    }
    return Scored(figures, f"slots of states, {NORMALISED}")


def _mean(
    weights: Iterable[tuple[Hashable, int]], gold: Counter, written: Counter, right: Counter
) -> float:
    """The weighted mean of F1 = 2 tp / (gold + written) over labels."""
    parts = [(weight, 2 * right[x] / (gold[x] + written[x])) for x, weight in weights]
    return sum(weight * f1 for weight, f1 in parts) / sum(weight for weight, _ in parts)
