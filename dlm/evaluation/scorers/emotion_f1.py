"""Emotions of utterances, by F1 over the emotions there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dlm.evaluation.scoring import Example, Scored
from dlm.evaluation.states import NORMALISED, states

SLOT = "emotion"


def emotion_f1(examples: Sequence[Example]) -> Scored:
    """`emotion_weighted_f1` and `emotion_accuracy`, over states whose gold has an `emotion`.

    With n_c utterances of emotion c, p_c written so, t_c of them right:

        F1_c = 2 t_c / (n_c + p_c)      emotion_weighted_f1 = sum_c n_c F1_c / sum_c n_c

    An emotion that is not written, or that the gold never has, is wrong.

    Source: Poria et al. 2019, ACL, section 5 (weighted average F1).
    """
    gold, written, right = Counter[str](), Counter[str](), Counter[str]()
    for pair in states(examples):
        if SLOT in pair.gold:
            [wanted], found = pair.gold[SLOT], pair.written.get(SLOT, "")
            gold[wanted] += 1
            written[found] += 1
            right[wanted] += found == wanted
    if not gold:
        return Scored({}, "")
    weighted = sum(gold[c] * 2 * right[c] / (gold[c] + written[c]) for c in gold)
    figures = {
        "emotion_weighted_f1": weighted / gold.total(),
        "emotion_accuracy": right.total() / gold.total(),
    }
    return Scored(figures, f"F1 weighted by gold counts, {NORMALISED}")
