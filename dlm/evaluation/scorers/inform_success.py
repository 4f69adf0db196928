"""Whether the right thing was offered and what was asked about it told: CamRest676, MultiWOZ."""

from __future__ import annotations

from collections.abc import Sequence

from dlm.corpora import camrest676_user, multiwoz_goal
from dlm.evaluation.scoring import Example, Scored, present, said, share

JUDGES = (camrest676_user.judge, multiwoz_goal.judge)


def inform_success(examples: Sequence[Example]) -> Scored:
    """`inform` and `success`: dialogues whose replies reach the goal so far.

    See `dlm.corpora.camrest676_user` and `dlm.corpora.multiwoz_goal`; each reply was written from
    the gold history. Dialogues without such a goal do not count.

    Source: Wen et al. 2017, EACL, arXiv:1604.04562 (entity matching rate, objective task success);
    Budzianowski et al. 2018, EMNLP, arXiv:1810.00278 (inform, success).
    """
    found = []
    for dialogue, predictions in examples:
        replies = [said(prediction.predicted, "reply") or "" for prediction in predictions]
        judged = (judge(dialogue, replies) for judge in JUDGES)
        found += [one for one in judged if one is not None][:1]
    figures = {
        "inform": share(one.inform for one in found),
        "success": share(one.success for one in found),
    }
    return Scored(present(figures), "names and values in the replies, not delexicalised")
