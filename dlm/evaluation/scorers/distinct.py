"""How varied replies are."""

from __future__ import annotations

from collections.abc import Sequence

from dlm.evaluation.scorers.bleu import replies
from dlm.evaluation.scoring import Example, Scored


def distinct(examples: Sequence[Example]) -> Scored:
    """`distinct_1` and `distinct_2`: different n-grams of all replies over all n-grams of them.

    Words are what stands between white space, in lower case. The figure falls with the number of
    replies: compare it over the same dialogues only.

    Source: Li et al. 2016, A Diversity-Promoting Objective Function, NAACL.
    """
    texts = [text.lower().split() for text in replies(examples)[0]]
    figures = {}
    for n in (1, 2):
        grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
        if grams:
            figures[f"distinct_{n}"] = len(set(grams)) / len(grams)
    return Scored(figures, "replies, words by white space, lower case, over all of them")
