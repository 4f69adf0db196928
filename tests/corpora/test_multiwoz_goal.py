"""Goals of MultiWOZ: offers and answers by hand, and the gold of the real files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dlm.corpora import multiwoz, multiwoz_goal
from dlm.corpora.multiwoz_goal import Goal, goals_of, judge, reached
from dlm.dialogue.schema import Dialogue
from dlm.evaluation.scorers.inform_success import inform_success
from tests.evaluation.scorers.cases import replies

STATED = {
    "hotel": {
        "info": {"area": "east", "type": "guest house", "stars": "dontcare"},
        "reqt": ["phone", "pricerange"],
        "book": {"people": "3"},
    },
    "train": {"info": {"day": "friday", "arriveBy": "19:45", "leaveAt": "17:00"}, "book": {}},
    "taxi": {"info": {"leaveAt": "17:00"}, "reqt": ["phone"]},
    "attraction": {},
    "message": ["You are looking for a hotel"],
}
GOALS = {
    "hotel": Goal({"area": "east", "type": "guest house"}, ("phone",), True),
    "train": Goal({"day": "friday", "arriveBy": "19:45", "leaveAt": "17:00"}, (), False),
}
HOTELS = (
    {"name": "acorn house", "area": "east", "type": "guesthouse", "phone": "01223 1", "stars": "4"},
    {"name": "avalon", "area": "west", "type": "guesthouse", "phone": "01223 2", "stars": "4"},
)
TRAINS = tuple(
    {"trainID": number, "day": "friday", "leaveAt": leaves, "arriveBy": arrives}
    for number, leaves, arrives in (
        ("TR0001", "17:00", "19:45"),
        ("TR0002", "16:59", "19:00"),
        ("TR0003", "18:00", "19:46"),
    )
)
DATABASE = {"hotel": HOTELS, "train": TRAINS}
SERVED = ("The Acorn House, 01223-1?", "Booked, reference A1B2C3D4.", "TR0001 leaves at 17:00.")


def test_a_goal_has_the_domains_of_the_databases():
    """Not the taxi, which has none; "dontcare" constrains nothing; a price is not looked for."""
    assert goals_of(Dialogue("1", (), meta={"goal": STATED})) == GOALS
    assert goals_of(Dialogue("1", (), meta={"goal": {"constraints": []}})) == {}
    assert goals_of(Dialogue("1", ())) == {}


@pytest.mark.parametrize(
    ("changed", "inform", "success"),
    [
        ((), True, True),
        (("Acorn House", "Avalon"), False, False),  # another area
        (("TR0001", "tr 0001"), True, True),
        (("TR0001", "TR0002"), False, False),  # leaves too early
        (("TR0001", "TR0003"), False, False),  # arrives too late
        (("TR0001", "TR9999"), False, False),
        (("TR0001", "It"), True, True),  # nobody asks for its number
        (("01223-1", "01223-2"), True, False),
        (("A1B2C3D4", "a1b2c3d4"), True, False),
        (("A1B2C3D4", "A1B2C3D45"), True, False),
    ],
)
def test_how_far_the_replies_came(changed, inform, success):
    said = [reply.replace(*changed) for reply in SERVED] if changed else SERVED
    assert reached(GOALS, said, DATABASE) == (inform, success)


def test_what_need_not_be_named():
    """A place that the user names; not the number of a train that is asked for."""
    named = {"hotel": Goal({"name": "the Acorn House"}, ("phone",), False)}
    hotel = {"hotel": ({**HOTELS[0], "name": "the acorn house"},)}
    assert reached(named, ["01223-1"], hotel) == (True, True)
    assert reached(named, ["01223-2"], hotel) == (True, False)
    asked = {"train": GOALS["train"]._replace(requests=("trainID",))}
    assert reached(asked, SERVED, DATABASE) == (True, True)
    assert reached(asked, SERVED[:2], DATABASE) == (False, False)


def test_the_last_offer_counts():
    said = ["Avalon or TR0003?", *SERVED]
    assert reached(GOALS, said, DATABASE) == (True, True)
    assert reached(GOALS, said[::-1], DATABASE) == (False, False)


def test_a_reference_for_each_booking():
    both = {**GOALS, "train": GOALS["train"]._replace(booking=True)}
    assert reached(both, SERVED, DATABASE) == (True, False)
    assert reached(both, [*SERVED, "Reference A1B2C3D4, again."], DATABASE) == (True, False)
    assert reached(both, [*SERVED, "Reference ZZZZZZZZ."], DATABASE) == (True, True)


def test_what_the_database_does_not_know_cannot_be_asked():
    unknown = {**DATABASE, "hotel": ({**HOTELS[0], "phone": "?"},)}
    assert reached(GOALS, [SERVED[0].replace("01223-1", ""), *SERVED[1:]], unknown).success


def test_the_scorer_needs_the_database(tmp_path, monkeypatch):
    """Without one there is no figure; with it, of one of two dialogues all is reached."""
    monkeypatch.setenv("DLM_DATA_DIR", str(tmp_path))
    served = replies(*(("gold", reply) for reply in SERVED), goal=STATED)
    examples = [served, replies(("gold", "TR0002"), goal=STATED)]
    assert judge(served.dialogue, SERVED) is None
    assert inform_success(examples).figures == {}
    folder = tmp_path / multiwoz.CARD.folder / multiwoz.DB
    folder.mkdir(parents=True)
    for domain in multiwoz_goal.DOMAINS:
        records = DATABASE.get(domain, ())
        (folder / f"{domain}_db.json").write_text(json.dumps(records))
    assert inform_success(examples).figures == {"inform": 0.5, "success": 0.5}


def test_the_gold_of_the_real_files(corpus_dir):
    """The upper bound, measured; silence reaches goals that name all."""
    path = corpus_dir("multiwoz") / "multiwoz/val.json"
    gold, silence = np.zeros(2, int), np.zeros(2, int)
    number = 0
    for dialogue in multiwoz.read_21(path):
        said = [str(m.content) for m in dialogue.messages if m.channel == "reply"]
        found, unsaid = judge(dialogue, said), judge(dialogue, [])
        if found is not None and unsaid is not None:
            number += 1
            gold += found
            silence += unsaid
    assert number == 942
    assert (gold.tolist(), silence.tolist()) == ([913, 880], [171, 20])
