"""Goals of CamRest676, and a user who pursues one, against assistants written by hand."""

from __future__ import annotations

import random

import pytest

from dlm.corpora.camrest676 import Database
from dlm.corpora.camrest676_user import (
    PATIENCE,
    CamRestUser,
    Goal,
    goal_of,
    last_named,
    reached,
)
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.slots import parse_state
from dlm.evaluation.scorers.inform_success import inform_success

ONE = {"name": "nandos", "food": "thai", "area": "east", "pricerange": "cheap", "phone": "01223 56"}
TWO = {**ONE, "name": "nandos city centre", "area": "centre", "phone": "01223 99"}
RESTAURANTS = (ONE, TWO)
GOAL = Goal({"food": "thai", "area": "east"}, ("phone", "pricerange"))


def test_the_goal_is_what_the_release_says():
    given = {
        "constraints": [["food", "thai"], ["area", "east"], ["pricerange", "dontcare"]],
        "request-slots": ["phone", "pricerange"],
    }
    assert goal_of(Dialogue("1", (), meta={"goal": given})) == GOAL
    assert goal_of(Dialogue("1", (), meta={"goal": {"hotel": {}}})) is None
    assert goal_of(Dialogue("1", ())) is None


def test_the_last_name_counts_and_of_names_in_names_the_longer():
    assert last_named(["Nandos City Centre is nice", "yes"], RESTAURANTS) is TWO
    assert last_named(["Nandos City Centre?", "Or nandos."], RESTAURANTS) is ONE
    assert last_named(["Nandos City Centre, or Nandos"], RESTAURANTS) is ONE
    assert last_named(["which area?"], RESTAURANTS) is None


@pytest.mark.parametrize(
    ("replies", "inform", "success"),
    [
        (["Nandos is cheap.", "It is 01223-56."], True, True),
        (["Nandos.", "It is 01223-56."], True, False),  # the price was asked for, too
        (["Nandos is cheap: 01223 99"], True, False),
        (["Nandos City Centre is cheap: 01223 56"], False, False),
        (["Nothing there is cheap: 01223 56"], False, False),
        ([], False, False),
    ],
)
def test_how_far_a_conversation_came(replies, inform, success):
    """A right offer without an answer is half the way; a wrong one is none of it."""
    assert reached(GOAL, replies, RESTAURANTS) == (inform, success)


def reply(text: str, act: str = "") -> tuple[Message, ...]:
    said = Message("assistant", text, "reply")
    return (Message("assistant", act, "act"), said) if act else (said,)


def simulated(goal: Goal = GOAL, seed: int = 0) -> CamRestUser:
    return CamRestUser(goal, Database(RESTAURANTS), random.Random(seed))


@pytest.mark.parametrize("seed", range(6))
def test_a_good_assistant_serves_the_user(seed):
    """It asks for what it does not know, offers what it finds, and answers what is asked."""
    database, user, heard = Database(RESTAURANTS), simulated(seed=seed), ()
    known: dict[str, str] = {}
    told: list[Message] = []
    said: list[str] = []
    while (text := user.say(heard)) is not None:
        said.append(text.lower())
        known |= {slot: ONE[slot] for slot in GOAL.constraints if ONE[slot] in said[-1]}
        missing = [slot for slot in GOAL.constraints if slot not in known]
        if missing:
            heard = reply(f"Which {missing[0]}?", f"request({missing[0]})")
        elif "phone" in said[-1]:
            heard = reply("It is 01223 56.")
        elif "price range" in said[-1]:
            heard = reply("It is cheap.")
        else:
            found = parse_state(database.find(**known).splitlines()[1])
            heard = reply(f"How about {found['name']}?")
        told += heard
    assert user.is_served(Dialogue("x", tuple(told)), database)
    assert len(said) == 5  # two constraints, two questions, goodbye


def test_what_has_no_constraint_is_answered_with_any():
    user = simulated()
    user.say(())
    text = user.say(reply("How much?", "request(pricerange)"))
    assert text in ("I do not care.", "Any is fine.", "It does not matter.")


def test_a_wrong_offer_is_not_accepted_and_patience_ends():
    user, said = simulated(), []
    heard: tuple[Message, ...] = ()
    while (text := user.say(heard)) is not None:
        said.append(text)
        heard = reply("Nandos City Centre is what I have.", "not an act (")
    assert len(said) == PATIENCE
    assert not any("phone" in text for text in said)


def test_the_scorer_reads_no_other_goals():
    from tests.evaluation.scorers.cases import replies

    assert inform_success([replies(("Nandos", "Nandos"), goal={"hotel": {}})]).figures == {}
