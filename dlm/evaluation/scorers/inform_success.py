"""Whether the right restaurant was offered and what was asked about it told: CamRest676."""

from __future__ import annotations

from collections.abc import Sequence

from dlm.corpora.camrest676 import world
from dlm.corpora.camrest676_user import goal_of, reached
from dlm.evaluation.scoring import Example, Scored, present, said, share


def inform_success(examples: Sequence[Example]) -> Scored:
    """`inform` and `success`: dialogues whose replies reach the goal so far.

    See `dlm.corpora.camrest676_user`; each reply was written from the gold history. Dialogues
    without such a goal do not count.

    Source: Wen et al. 2017, EACL, arXiv:1604.04562 (entity matching rate, objective task success).
    """
    found = []
    for dialogue, predictions in examples:
        goal = goal_of(dialogue)
        if goal is not None:
            replies = [said(prediction.predicted, "reply") or "" for prediction in predictions]
            found.append(reached(goal, replies, world(dialogue).restaurants))
    figures = {
        "inform": share(one.inform for one in found),
        "success": share(one.success for one in found),
    }
    return Scored(present(figures), "names and values in the replies, not delexicalised")
