"""How the user says it: all the variety of the corpus is here, and only what is read varies."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}
OBJECTS = {
    "table": ("restaurant", "cafe"),
    "room": ("hotel",),
    "tickets": ("museum", "theatre"),
}

_OPENINGS = (
    ("I'd like", "."),
    ("I would like", "."),
    ("I want to book", "."),
    ("We need", "."),
    ("We would like", "."),
    ("Please book", "."),
    ("Please reserve", "."),
    ("Book", "."),
    ("Can you book", "?"),
    ("Could you reserve", "?"),
    ("Could we have", "?"),
    ("Can I get", "?"),
)
_NEXT_OPENINGS = (
    ("And", "."),
    ("Also", "."),
    ("We also need", "."),
    ("Then please book", "."),
    ("I'd also like", "."),
    ("Can you also book", "?"),
)
_ANSWERS = {
    "place": ("at {}", "{}, please", "{}", "I was thinking of {}", "let us go to {}"),
    "people": ("for {}", "{}", "{} people", "we will be {}", "there will be {} of us"),
    "day": ("on {}", "{}", "{}, please", "{} would be good", "we will come on {}"),
    "meal": ("for {}", "{}", "{}, please", "{} would be good", "we will come for {}"),
}
_CHANGES = {
    "place": (
        "make it {} instead.",
        "we would rather go to {}.",
        "can we go to {} instead?",
        "please change the place to {}.",
    ),
    "people": (
        "make it {} people.",
        "we will be {}.",
        "there will be {} of us.",
        "please change it to {} people.",
        "can you make that {} people?",
    ),
    "day": (
        "make it {}.",
        "please move it to {}.",
        "{} would be better.",
        "can we come on {} instead?",
        "could you change the day to {}?",
    ),
    "meal": (
        "make it {}.",
        "please change it to {}.",
        "{} would be better.",
        "can we come for {} instead?",
        "could you change the meal to {}?",
    ),
}
_HESITATIONS = ("", "", "", "actually, ", "sorry, ", "no, wait, ", "on second thought, ")
_CANCELLATIONS = (
    "please cancel {}.",
    "cancel {}, please.",
    "we cannot come, cancel {}.",
    "we do not need {} any more.",
    "forget about {}.",
)
_PREPOSITIONS = {"place": "at", "day": "on", "meal": "for"}
_QUESTIONS = {
    "owner": ("who owns {}?", "who runs {}?", "do you know who owns {}?"),
    "street": ("where is {}?", "which street is {} on?", "can you tell me where {} is?"),
    "price": ("how expensive is {}?", "is {} expensive?", "in which price range is {}?"),
    "closed": ("when is {} closed?", "on which day is {} closed?", "which day is {} closed?"),
    "opened": ("when did {} open?", "in which year did {} open?", "since when has {} been open?"),
    "near": ("what is near {}?", "which places are near {}?", "what is close to {}?"),
    "cuisine": (
        "what kind of food does {} serve?",
        "which cuisine does {} serve?",
        "what food can I get at {}?",
    ),
}
_SEARCHES = (
    "is there {}?",
    "do you know {}?",
    "can you find {}?",
    "I am looking for {}.",
    "find me {}.",
    "we want to go to {}.",
)
_PRICES = {"cheap": "cheap", "moderate": "moderately priced", "expensive": "expensive"}
_WHERE = {"near": "near {}", "street": "on {}", "owner": "owned by {}"}
_OUT_OF_SCOPE = (
    "what is the weather like on {day}?",
    "will it rain on {day}?",
    "play some music.",
    "tell me a joke.",
    "what time is it?",
    "call {person} for me.",
    "send {person} a message.",
    "what is the phone number of {person}?",
    "how old is {person}?",
    "buy {person} a present.",
    "is {person} married?",
    "how do I get to {place} by bus?",
    "order a taxi to {place}.",
    "can you drive me to {place}?",
    "write a poem about {place}.",
    "does {place} have a garden?",
    "can I bring my dog to {place}?",
    "who cooks at {place}?",
    "how many rooms does {place} have?",
    "what is the phone number of {place}?",
    "I left my umbrella at {place}.",
    "is there a bank near {place}?",
    "remind me on {day}.",
    "wake me up on {day}.",
    "order a pizza.",
    "who won the game on {day}?",
    "read me the news.",
    "sell me a car.",
    "what is seven times eight?",
    "translate this letter.",
    "book a flight for {day}.",
    "reserve a taxi for {person}.",
    "I want to buy {place}.",
    "I need a doctor.",
)
_GREETINGS = ("hello.", "hi.", "good morning.", "good evening.", "hello there.")
_THANKS = ("thanks.", "thank you.", "thanks, that is all.", "great, thank you.", "perfect, thanks.")
_SUMMARIES = (
    "what did we agree on?",
    "can you sum up what is booked?",
    "what have we booked by now?",
    "please repeat what we agreed.",
    "so what is booked?",
)
_SAME_DAY = ("on the same day", "the same day", "that same day")
_SAME_PEOPLE = ("for the same people", "for the same group", "for all of us")


def sentence(text: str) -> str:
    """Begins the text with a capital letter."""
    return text[0].upper() + text[1:]


def article(noun: str) -> str:
    """Puts `a` or `an` before a noun group."""
    return f"an {noun}" if noun[0] in "aeioAEIO" else f"a {noun}"


def spoken(rng: random.Random, slot: str, value: Any) -> str:
    """A value as a person says it: numbers of people mostly in words."""
    return NUMBERS[value] if slot == "people" and rng.random() < 0.6 else str(value)


def slot_phrase(rng: random.Random, slot: str, value: Any) -> str:
    """One slot inside a sentence: `at Velmor`, `for four people`, `on Friday`, `for lunch`."""
    if slot == "people":
        return f"for {spoken(rng, slot, value)}{rng.choice(('', ' people'))}"
    return f"{_PREPOSITIONS[slot]} {value}"


def request(
    rng: random.Random, item: str, phrases: Mapping[str, str], *, first: bool = True
) -> str:
    """Asks for a booking.

    Args:
      rng: decides the opening, and in which order the slots are said.
      item: a key of OBJECTS.
      phrases: slot -> its phrase, for the slots that are given.
      first: whether nothing was booked before.
    """
    opening, stop = rng.choice(_OPENINGS if first else _NEXT_OPENINGS)
    noun = item if item == "tickets" else f"a {item}"
    slots = sorted(rng.sample(list(phrases), len(phrases)), key=lambda s: phrases[s] != "there")
    parts = [phrases[slot] for slot in slots]
    if first and len(slots) > 1 and slots[0] == "place" and rng.random() < 0.5:
        return f"{opening} {noun} {parts[0]}{stop} {sentence(' '.join(parts[1:]))}."
    return f"{' '.join([opening, noun, *parts])}{stop}"


def answer(rng: random.Random, values: Mapping[str, Any]) -> str:
    """Answers what was asked for, in passing perhaps more than that."""
    if len(values) == 1:
        ((slot, value),) = values.items()
        return sentence(rng.choice(_ANSWERS[slot]).format(spoken(rng, slot, value))) + "."
    return sentence(" ".join(slot_phrase(rng, slot, v) for slot, v in values.items())) + "."


def change(rng: random.Random, values: Mapping[str, Any], *, opening: str = "") -> str:
    """Corrects one slot, or two; the opening may say of which booking."""
    opening = opening or rng.choice(_HESITATIONS)
    if len(values) == 1:
        ((slot, value),) = values.items()
        text = rng.choice(_CHANGES[slot]).format(spoken(rng, slot, value))
        return sentence(opening + text)
    (slot, value), *others = values.items()
    first = f"{spoken(rng, slot, value)} people" if slot == "people" else str(value)
    rest = (slot_phrase(rng, slot, value) for slot, value in others)
    verb = rng.choice(("make it", "change it to"))
    return sentence(f"{opening}{' '.join([verb, first, *rest])}.")


def question(rng: random.Random, relation: str, about: str, *, again: bool = False) -> str:
    """Asks for one relation of what a noun group means, or of `it`."""
    text = rng.choice(_QUESTIONS[relation]).format(about)
    return sentence(rng.choice(("and ", "and ", "")) + text if again else text)


def described(criteria: Mapping[str, str]) -> str:
    """A noun group for what is looked for: `a cheap Greek restaurant near Velmor`."""
    words = [_PRICES[criteria["price"]]] if "price" in criteria else []
    words += [criteria[key] for key in ("cuisine",) if key in criteria]
    words.append(criteria.get("kind", "place"))
    where = [text.format(criteria[key]) for key, text in _WHERE.items() if key in criteria]
    return " ".join([article(" ".join(words)), *where])


def search(rng: random.Random, wanted: str) -> str:
    """Asks for a place by its description."""
    return sentence(rng.choice(_SEARCHES).format(wanted))


def out_of_scope(rng: random.Random, place: str, person: str, day: str) -> tuple[str, list[str]]:
    """Asks for what the concierge cannot do; also returns the names that it says."""
    text = rng.choice(_OUT_OF_SCOPE)
    said = [name for key, name in (("{place}", place), ("{person}", person)) if key in text]
    return sentence(text.format(place=place, person=person, day=day)), said


def greeting(rng: random.Random) -> str:
    """Says hello."""
    return sentence(rng.choice(_GREETINGS))


def thanks(rng: random.Random) -> str:
    """Says thank you."""
    return sentence(rng.choice(_THANKS))


def cancellation(rng: random.Random, item: str = "") -> str:
    """Takes a booking back; the item, if any, says which one."""
    booking = f"the {item}" if item else rng.choice(("it", "the booking"))
    return sentence(rng.choice(_HESITATIONS) + rng.choice(_CANCELLATIONS).format(booking))


def summary(rng: random.Random) -> str:
    """Asks what was agreed."""
    return sentence(rng.choice(_SUMMARIES))


def same_as_before(rng: random.Random, slots: Iterable[str]) -> dict[str, str]:
    """Phrases that carry slots of the booking before over to the next."""
    phrases = {"day": _SAME_DAY, "people": _SAME_PEOPLE}
    return {slot: rng.choice(phrases[slot]) for slot in slots}


def home(rng: random.Random, place: str) -> str:
    """Asks where the owner of a place lives."""
    text = rng.choice(("where does the owner of {} live?", "what is the address of {}'s owner?"))
    return sentence(text.format(place))


def owned_too(rng: random.Random, kind: str, place: str) -> str:
    """Asks for another place of a place's owner."""
    text = rng.choice(("which {} does the owner of {} have?", "what {} does {}'s owner run?"))
    return sentence(text.format(kind, place))


def of_owner(rng: random.Random, kind: str, place: str) -> str:
    """A noun group for the place of that kind which a place's owner has."""
    return rng.choice(("the {} of the owner of {}", "the {} of {}'s owner")).format(kind, place)
