"""Goals of MultiWOZ 2.1: whether the replies of a dialogue reach what its user wants.

A goal has parts, one a domain: constraints, slots to ask for, a booking. Of the domains that have a
database (attraction, hotel, restaurant, train) it is reached in two steps:

    inform    in each, what was named last (of trains: by their number) has all values constrained
    success   and its address, phone, postcode and number, where asked for, were said in some reply,
              and as many references (eight capitals or digits) as bookings were wanted

Names and values are looked for by their letters and digits alone. As in the published scripts, a
place that the user knows by name need not be named, nor the number of a train that nobody asks for,
and other slots that are asked for, such as a price, are not looked for. Unlike there, replies are
read as they are, not delexicalised with the state's matches in place, so figures do not compare.

Source: Budzianowski et al.: MultiWOZ, EMNLP 2018, arXiv:1810.00278, section 5 (inform and success);
db/*.json of the release.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from dlm.core.files import read_json
from dlm.corpora.camrest676_user import Reached, last_named, letters
from dlm.corpora.multiwoz import CARD, DB
from dlm.corpora.published import root_of
from dlm.dialogue.schema import Dialogue

DOMAINS = ("attraction", "hotel", "restaurant", "train")
ASKED = ("address", "phone", "postcode", "trainID")
_ANY = ("dontcare", "do n't care", "don't care")
_TRAIN = re.compile(r"\bTR ?(\d{4})\b", re.IGNORECASE)
_REFERENCE = re.compile(r"\b[A-Z0-9]{8}\b")

Record = Mapping[str, Any]
Database = Mapping[str, Sequence[Record]]  # domain -> its records, as published


class Goal(NamedTuple):
    """What is wanted of a domain: slot -> value, the slots asked for, whether to book."""

    constraints: Mapping[str, str]
    requests: tuple[str, ...]
    booking: bool

    def fits(self, record: Record) -> bool:
        """Whether a record has all the values constrained; times are latest or earliest ones."""
        return all(_fits(slot, value, record) for slot, value in self.constraints.items())


def goals_of(dialogue: Dialogue) -> dict[str, Goal]:
    """The goal of a dialogue of the release, by domain; {} of others' dialogues."""
    stated = dialogue.meta.get("goal")
    parts = stated if isinstance(stated, Mapping) else {}
    goals = {}
    for domain in DOMAINS:
        part = parts.get(domain)
        if isinstance(part, Mapping) and part.get("info"):
            constraints = {s: v for s, v in part["info"].items() if v not in _ANY}
            requests = tuple(slot for slot in part.get("reqt", ()) if slot in ASKED)
            goals[domain] = Goal(constraints, requests, bool(part.get("book")))
    return goals


def reached(goals: Mapping[str, Goal], replies: Sequence[str], database: Database) -> Reached:
    """How far the replies of one dialogue, in their order, came."""
    text = " ".join(replies)
    heard = letters(text)
    informed = True
    told = len(set(_REFERENCE.findall(text))) >= sum(goal.booking for goal in goals.values())
    for domain, goal in goals.items():
        offered = _offered(goal, domain, replies, database[domain])
        record = next(filter(goal.fits, offered), None)
        if record is None:
            informed = False
        else:  # a value that the database does not know is "?" or absent: always heard
            known = [letters(str(record.get(slot, ""))) for slot in goal.requests]
            told = told and all(value in heard for value in known)
    return Reached(inform=informed, success=informed and told)


def judge(dialogue: Dialogue, replies: Sequence[str]) -> Reached | None:
    """How far replies to a dialogue came; None without a goal, or without the database."""
    goals = goals_of(dialogue)
    paths = [root_of(CARD) / DB / f"{domain}_db.json" for domain in DOMAINS]
    if not goals or not all(path.is_file() for path in paths):
        return None
    return reached(goals, replies, _database(*paths))


@cache
def _database(*paths: Path) -> Database:
    return {domain: read_json(path) for domain, path in zip(DOMAINS, paths, strict=True)}


def _offered(
    goal: Goal, domain: str, replies: Sequence[str], records: Sequence[Record]
) -> Sequence[Record]:
    """What was named last: a place, or the trains of a number; what fits where none need be."""
    if domain == "train":
        numbers = _TRAIN.findall(" ".join(replies))
        if not numbers and "trainID" not in goal.requests:
            return records
        return [record for record in records if numbers and record["trainID"] == f"TR{numbers[-1]}"]
    if "name" in goal.constraints:
        return records
    named = last_named(replies, records)
    return [named] if named else []


def _fits(slot: str, value: str, record: Record) -> bool:
    there = str(record.get(slot, ""))
    if slot == "arriveBy":
        return there <= value
    if slot == "leaveAt":
        return there >= value
    return letters(there) == letters(value)
