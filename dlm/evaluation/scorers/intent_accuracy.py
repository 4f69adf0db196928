"""Intents, with what lies out of scope apart."""

from __future__ import annotations

from collections.abc import Sequence

from dlm.evaluation.scoring import Example, Scored, pairs, present, share

OUT_OF_SCOPE = "oos"


def intent_accuracy(examples: Sequence[Example]) -> Scored:
    """`intent_accuracy` over queries in scope, and `oos_recall` over those out of it.

    A response without an intent is wrong. `oos_precision` = of the queries called out of scope,
    those that are.

    Source: Larson et al. 2019, EMNLP, section 4 (in-scope accuracy and out-of-scope recall).
    """
    found = [(gold, written) for _, gold, written in pairs(examples, "intent")]
    outside = [(gold, written) for gold, written in found if gold == OUT_OF_SCOPE]
    figures = {
        "intent_accuracy": share(g == w for g, w in found if g != OUT_OF_SCOPE),
        "oos_recall": share(g == w for g, w in outside),
    }
    if outside:
        figures["oos_precision"] = share(g == w for g, w in found if w == OUT_OF_SCOPE)
    return Scored(present(figures), f"exact label; {OUT_OF_SCOPE!r} is out of scope, counted apart")
