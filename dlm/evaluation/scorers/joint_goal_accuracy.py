"""Dialogue states as wholes."""

from __future__ import annotations

from collections.abc import Sequence

from dlm.evaluation.scoring import Example, Scored, present, share
from dlm.evaluation.states import NORMALISED, States, states

NONE = ("none", "not mentioned", "")
DONTCARE = ("dontcare", "dont care", "don't care", "do not care", "do n't care")


def joint_goal_accuracy(examples: Sequence[Example]) -> Scored:
    """Turns whose state is right in every slot, under both conventions of the literature.

        joint_goal_accuracy                  "dontcare" is a value; "none" is an absent slot
        joint_goal_accuracy_dontcare_none    "dontcare" is an absent slot, too
        average_goal_accuracy                gold slots that are right, averaged over the turns that
                                             have some; "dontcare" is a value

    A state that cannot be read is empty. Slots that the gold has not are wrong in the first two and
    do not enter the third.

    Source: Wu et al. 2019, TRADE, ACL; Hosseini-Asl et al. 2020, SimpleTOD, NeurIPS (which merges
    the two values); Rastogi et al. 2020, AAAI, section 5 (average goal accuracy).
    """
    found = list(states(examples))
    plain, merged = (
        [_without(pair, absent) for pair in found] for absent in (NONE, NONE + DONTCARE)
    )
    figures = {
        "joint_goal_accuracy": share(map(_is_whole, plain)),
        "joint_goal_accuracy_dontcare_none": share(map(_is_whole, merged)),
    }
    shares = [share(map(pair.is_right, pair.gold)) for pair in plain]
    known = [value for value in shares if value is not None]
    figures["average_goal_accuracy"] = sum(known) / len(known) if known else None
    return Scored(present(figures), f"from the gold history, no fuzzy match, {NORMALISED}")


def _is_whole(pair: States) -> bool:
    return pair.gold.keys() == pair.written.keys() and all(map(pair.is_right, pair.gold))


def _without(pair: States, absent: tuple[str, ...]) -> States:
    """The states without slots of absent values."""
    return States(
        {slot: values for slot, values in pair.gold.items() if values[0] not in absent},
        {slot: value for slot, value in pair.written.items() if value not in absent},
    )
