"""ROUGE of replies, as summaries are scored."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata

from dlm.evaluation.scorers.bleu import replies
from dlm.evaluation.scoring import Example, Scored

KINDS = ("rouge1", "rouge2", "rougeL")


def rouge(examples: Sequence[Example]) -> Scored:
    """`rouge1`, `rouge2`, `rougeL`: mean F1 over replies of shared words, pairs, and subsequence.

        F1 = 2 P R / (P + R)      P and R: the overlap over the length of reply and reference

    By the rouge-score package: its own tokeniser (lower case, letters and digits), Porter stems.
    Of several references the one of the best F1 counts, for each kind apart.

    Source: Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries.
    """
    from rouge_score.rouge_scorer import RougeScorer

    written, wanted = replies(examples)
    if not written:
        return Scored({}, "")
    scorer = RougeScorer(KINDS, use_stemmer=True)
    totals = dict.fromkeys(KINDS, 0.0)
    for text, references in zip(written, wanted, strict=True):
        for kind, best in scorer.score_multi(references, text).items():
            totals[kind] += best.fmeasure
    signature = f"replies, mean F1, rouge-score {metadata.version('rouge-score')}, stemmed"
    figures = {kind: total / len(written) for kind, total in totals.items()}
    return Scored(figures, f"{signature}, best of the references")
