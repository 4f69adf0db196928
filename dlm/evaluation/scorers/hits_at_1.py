"""Answers to questions, and whether the reasoning that led to them is the recorded one."""

from __future__ import annotations

from collections.abc import Sequence

from dlm.evaluation.scoring import Example, Scored, present, said, share


def hits_at_1(examples: Sequence[Example]) -> Scored:
    """`hits_at_1`: questions whose reply is one of the right answers.

    Of dialogues with `meta.answers`: the texts that are right, the gold reply among them; compared
    without regard to case and white space. Where the gold reasons, `hits_at_1_right_reason` counts
    those whose `reason` is the recorded one as well, and `hits_at_1_wrong_reason` those whose
    answer is right by another.

    Source: Zhou, Huang, Zhu 2018, COLING, section 5 (accuracy of the answer and of the path).
    """
    right, reasoned = [], []
    for example in examples:
        answers = example.dialogue.meta.get("answers") or ()
        for prediction in example.predictions:
            wanted = said(prediction.gold, "reply")
            if wanted is None or not answers:
                continue
            accepted = {plain(str(answer)) for answer in [*answers, wanted]}
            hit = plain(said(prediction.predicted, "reply") or "") in accepted
            right.append(hit)
            reason = said(prediction.gold, "reason")
            if reason is not None:
                reasoned.append((hit, said(prediction.predicted, "reason") == reason))
    figures = {
        "hits_at_1": share(right),
        "hits_at_1_right_reason": share(hit and same for hit, same in reasoned),
        "hits_at_1_wrong_reason": share(hit and not same for hit, same in reasoned),
    }
    return Scored(present(figures), "reply among the right answers, case and white space ignored")


def plain(text: str) -> str:
    """Lower case, single spaces."""
    return " ".join(text.lower().split())
