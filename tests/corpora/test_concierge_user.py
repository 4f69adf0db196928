"""A simulated user of the concierge, against assistants written by hand."""

from __future__ import annotations

from dlm.corpora.concierge.builder import Options, draw
from dlm.corpora.concierge.script import Booking, Script
from dlm.corpora.concierge.user import PATIENCE, user
from dlm.corpora.concierge.world import world
from dlm.dialogue.schema import Dialogue, Message

DIALOGUES = draw(Options(("booking", "several"), dialogues=40, held_out=1))["train"]
BOOKED = [dialogue for dialogue in DIALOGUES if dialogue.meta["end_state"]]


def serve(dialogue: Dialogue) -> tuple[bool, list[str]]:
    """Plays the corpus's own assistant, who knows the goal's values by reading the user's words."""
    speaker, place = user(dialogue), world(dialogue)
    goals = list(dialogue.meta["end_state"])
    script = Script(place)
    said, heard = [], ()
    bookings = [
        Booking({"restaurant": "table", "cafe": "table", "hotel": "room"}.get(kind, "tickets"))
        for goal in goals
        for kind in place.graph.objects(goal["place"], "kind")
    ]
    spoken_of: set[str] = set()
    while (text := speaker.say(heard)) is not None:
        said.append(text)
        start = len(script.messages)
        if bookings:
            booking, goal = bookings[0], goals[0]
            spoken_of |= {slot for slot, value in goal.items() if _says(text, slot, value)}
            booking.slots = {slot: goal[slot] for slot in goal if slot in spoken_of}
            script.pursue(booking)
            if booking.reference:
                bookings.pop(0), goals.pop(0), spoken_of.clear()
        else:
            script.close()
        heard = tuple(m for m in script.messages[start:] if m.role == "assistant")
    return speaker.is_served(Dialogue("x", tuple(script.messages)), place), said


def _says(text: str, slot: str, value: object) -> bool:
    words = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}
    known = [str(value)] + ([words[value]] if slot == "people" else [])
    return any(word.lower() in text.lower() for word in known)


def test_a_good_assistant_serves_every_goal():
    """Each slot is said once it is asked for, each booking after the other, thanks at the end."""
    assert len(BOOKED) > 20
    for dialogue in BOOKED:
        served, said = serve(dialogue)
        assert served, (dialogue.meta["end_state"], said)


def test_without_a_booking_there_is_no_goal():
    cancelled = [dialogue for dialogue in DIALOGUES if not dialogue.meta["end_state"]]
    assert cancelled
    assert all(user(dialogue) is None for dialogue in cancelled)
    assert user(Dialogue("chat", (Message("user", "hi"),))) is None


def test_an_assistant_that_does_nothing_loses_its_user():
    """After the request the user answers so often, and goes unserved."""
    speaker = user(BOOKED[0])
    reply = (Message("assistant", "What?"),)
    said = [speaker.say(())]
    while (text := speaker.say(reply)) is not None:
        said.append(text)
    assert len(said) == 1 + PATIENCE
    assert not speaker.is_served(BOOKED[0], world(BOOKED[0]))


def test_a_user_says_the_same_twice_over():
    """What chance decides hangs on the dialogue alone."""
    assert serve(BOOKED[0]) == serve(BOOKED[0])
