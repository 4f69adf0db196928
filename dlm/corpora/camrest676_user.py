"""Goals of CamRest676: whether a conversation reached one, and a user who pursues it.

A goal has constraints, such as area=south, and slots to ask for. It is reached in two steps:

    inform    the restaurant that was named last has all the values constrained
    success   and its value of every slot asked for was said in some reply

Names and values are looked for in what was said by their letters and digits alone, so 01223 566188
is found in 01223-566188; of names that hold one another (Nandos, Nandos City Centre) the longer.

The user says one or two constraints, the others as it is asked for them ("any" where it has none),
asks what it wants to know once a restaurant is named that fits, says a constraint again where none
is, and says goodbye.

Source: Wen et al. 2017, EACL, arXiv:1604.04562, section 5 (entity matching rate and objective task
success); Schatzmann et al. 2007, NAACL (users with an agenda).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dlm.corpora import camrest676
from dlm.corpora.camrest676 import DONTCARE, Database
from dlm.dialogue.actions import World
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.slots import parse_acts

PATIENCE = 8  # messages before the user gives up
_SAY = {
    "food": ("I would like {} food.", "It should serve {} food.", "{} food please."),
    "area": ("It should be in the {} part of town.", "In the {} please."),
    "pricerange": ("I am looking for something {}.", "It should be {}ly priced."),
}
_ANY = ("I do not care.", "Any is fine.", "It does not matter.")
_ASK = {
    "address": ("What is the address?", "Where is it?"),
    "phone": ("What is the phone number?", "May I have their phone number?"),
    "postcode": ("What is the post code?", "And the postcode?"),
    "food": ("What kind of food do they serve?",),
    "area": ("What part of town is it in?",),
    "pricerange": ("What is the price range?",),
}
_BYE = ("Thank you, goodbye.", "Thanks, that is all.")


class Goal(NamedTuple):
    """What a user is to find and to ask: slot -> value, and the slots asked for."""

    constraints: Mapping[str, str]
    requests: tuple[str, ...]

    def fits(self, restaurant: Mapping[str, str]) -> bool:
        """Whether a restaurant has all the values constrained."""
        return all(restaurant.get(slot) == value for slot, value in self.constraints.items())


class Reached(NamedTuple):
    """How far a conversation came."""

    inform: bool
    success: bool


def goal_of(dialogue: Dialogue) -> Goal | None:
    """The goal that the release gives a dialogue; None for others' dialogues."""
    goal = dialogue.meta.get("goal")
    if not isinstance(goal, Mapping) or not {"constraints", "request-slots"} <= goal.keys():
        return None
    constraints = {slot: value for slot, value in goal["constraints"] if value != DONTCARE}
    return Goal(constraints, tuple(goal["request-slots"]))


def reached(
    goal: Goal, replies: Sequence[str], restaurants: Sequence[Mapping[str, str]]
) -> Reached:
    """How far the replies of one conversation, in their order, came."""
    offered = last_named(replies, restaurants)
    if offered is None or not goal.fits(offered):
        return Reached(inform=False, success=False)
    heard = letters(" ".join(replies))
    told = (slot in offered and letters(offered[slot]) in heard for slot in goal.requests)
    return Reached(inform=True, success=all(told))


def last_named(
    replies: Sequence[str], restaurants: Sequence[Mapping[str, str]]
) -> Mapping[str, str] | None:
    """The restaurant whose name ends last in the last reply that holds one, the longest such."""
    for reply in reversed(replies):
        heard = letters(reply)
        places = ((heard.rfind(letters(r["name"])), r) for r in restaurants)
        ends = [(at + len(letters(r["name"])), len(r["name"]), r) for at, r in places if at >= 0]
        if ends:
            return max(ends, key=lambda end: end[:2])[2]
    return None


def judge(dialogue: Dialogue, replies: Sequence[str]) -> Reached | None:
    """How far replies to a dialogue came; None without a goal of the release."""
    goal = goal_of(dialogue)
    if goal is None:
        return None
    return reached(goal, replies, camrest676.world(dialogue).restaurants)


def user(dialogue: Dialogue) -> CamRestUser | None:
    """A user with the goal of a dialogue of the release."""
    goal = goal_of(dialogue)
    if goal is None:
        return None
    return CamRestUser(goal, camrest676.world(dialogue), random.Random(dialogue.id))


class CamRestUser:
    """See the module.

    Args:
      goal: what it is to find and to ask.
      database: where it recognises the names of restaurants.
      rng: decides what is said first, and in which words.
    """

    def __init__(self, goal: Goal, database: Database, rng: random.Random) -> None:
        self._goal = goal
        self._restaurants = database.restaurants
        self._rng = rng
        self._unsaid = rng.sample(sorted(goal.constraints), len(goal.constraints))
        self._unasked = list(goal.requests)
        self._patience = PATIENCE
        self._replies: list[str] = []
        self._leaving = False

    def say(self, heard: Sequence[Message]) -> str | None:
        """The next message; None after goodbye, or out of patience."""
        self._replies += [str(m.content) for m in heard if m.channel == "reply"]
        self._patience -= 1
        if self._leaving or self._patience < 0:
            return None
        offered = last_named(self._replies, self._restaurants)
        if offered is None or not self._goal.fits(offered):
            return self._inform(_asked_for(heard))
        if self._unasked:
            return self._rng.choice(_ASK[self._unasked.pop(0)])
        self._leaving = True
        return self._rng.choice(_BYE)

    def is_served(self, conversation: Dialogue, world: World) -> bool:
        """Whether the goal was reached: `success`."""
        del world
        replies = [str(m.content) for m in conversation.messages if m.channel == "reply"]
        return reached(self._goal, replies, self._restaurants).success

    def _inform(self, asked: str) -> str:
        """Answers what was asked for, or says what was not said yet, or something again."""
        if asked in _SAY and asked not in self._goal.constraints:
            return self._rng.choice(_ANY)
        slot = asked if asked in self._goal.constraints else ""
        slot = slot or (self._unsaid[0] if self._unsaid else self._rng.choice(self._constrained))
        self._unsaid = [other for other in self._unsaid if other != slot]
        return self._rng.choice(_SAY[slot]).format(self._goal.constraints[slot])

    @property
    def _constrained(self) -> list[str]:
        return sorted(self._goal.constraints)


def _asked_for(heard: Sequence[Message]) -> str:
    """The slot that the assistant's acts request; "" where they do not say."""
    for message in heard:
        if message.channel == "act":
            try:
                acts = parse_acts(str(message.content))
            except ValueError:
                continue
            for act in acts:
                if act.name == "request" and act.slots:
                    return act.slots[0][0]
    return ""


def letters(text: Any) -> str:
    """The letters and digits of a text, in lower case."""
    return "".join(filter(str.isalnum, str(text).lower()))
