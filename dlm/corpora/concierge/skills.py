"""The skills: what the user of one dialogue is after."""

from __future__ import annotations

import random
from collections.abc import Callable

from dlm.corpora.concierge import phrases
from dlm.corpora.concierge.city import KINDS
from dlm.corpora.concierge.scene import Scene
from dlm.corpora.concierge.script import Booking, Hop, Script
from dlm.corpora.concierge.world import CityWorld

_OWNER = Hop("ask", "owner")


def write_dialogue(skill: str, world: CityWorld, rng: random.Random) -> Script:
    """Writes one dialogue of a skill (a key of SKILLS); its bookings stay in the world."""
    scene = Scene(Script(world), rng)
    if scene.chance(0.03):
        scene.script.user(phrases.greeting(rng))
        scene.script.greet()
    SKILLS[skill](scene)
    if scene.chance(0.08):
        scene.script.user(phrases.thanks(rng))
        scene.script.close()
    return scene.script


def booking(scene: Scene) -> None:
    """Books something, in one go or slot by slot, and often changes or cancels it afterwards."""
    made = scene.book()
    if scene.chance(0.4):
        scene.change(made)
    elif scene.chance(0.1):
        scene.cancel(made)


def question(scene: Scene) -> None:
    """Asks about a place that was named, offered or just booked; at times books it then."""
    start = scene.rng.choice(("named", "named", "offered", "booked"))
    if start == "named":
        place = scene.unknown() if scene.chance(0.06) else scene.place()
        asked = scene.ask(place, named=True)
    elif start == "offered":
        place = scene.find()
        asked = scene.ask(place) if place else ""
    else:
        place = scene.book(whole=True).slots["place"]
        asked = scene.ask(place)
    if start != "booked" and scene.facts(place, "kind") and scene.chance(0.3):
        scene.ask(place, but=asked)
    elif start != "booked" and scene.facts(place, "kind") and scene.chance(0.25):
        scene.book(_item_of(scene, place), there=place, whole=True)


def out_of_scope(scene: Scene) -> None:
    """Asks for what cannot be done: before, within or after something that can."""
    when = scene.rng.choice(("before", "within", "after"))
    if when == "before":
        scene.digress()
    if when == "within":
        scene.book(interrupted=True)
    else:
        scene.ask(scene.place(), named=True)
    if when == "after":
        scene.digress()


def several(scene: Scene) -> None:
    """Books twice, carrying day or people over, and at times changes one of the two."""
    made = _two_bookings(scene)
    if scene.chance(0.4):
        scene.change(scene.rng.choice(made), named=True)


def multi_hop(scene: Scene) -> None:
    """Asks over two or three edges of the graph; then perhaps about what was found."""
    place = scene.rng.choice((_hops_to_a_fact, _hops_to_a_place))(scene)
    if place and scene.chance(0.4):
        scene.ask(place)
    if place and scene.chance(0.3):
        scene.book(_item_of(scene, place), there=place, whole=True)


def summary(scene: Scene) -> None:
    """Books once or twice, perhaps changes or cancels, and asks what was agreed."""
    if scene.chance(0.5):
        made = _two_bookings(scene)
        if scene.chance(0.3):
            scene.change(scene.rng.choice(made), named=True)
    else:
        made = [scene.book()]
        if scene.chance(0.5):
            scene.change(made[0])
        elif scene.chance(0.2):
            scene.cancel(made.pop())
    scene.script.user(phrases.summary(scene.rng))
    scene.script.summarise(made)


def _two_bookings(scene: Scene) -> list[Booking]:
    """Books two different things, the second with words that point back to the first."""
    items = scene.rng.sample(list(phrases.OBJECTS), 2)
    first = scene.book(items[0], whole=scene.chance(0.7))
    return [first, scene.book(items[1], earlier=first)]


def _item_of(scene: Scene, place: str) -> str:
    """What one books at a place."""
    (kind,) = scene.facts(place, "kind")
    return next(item for item, kinds in phrases.OBJECTS.items() if kind in kinds)


def _hops_to_a_fact(scene: Scene) -> str:
    """Asks for a relation of what is only described, as "the hotel near Velmor"."""
    rng, person = scene.rng, scene.rng.choice(scene.city.people)
    place, kind = scene.place(), rng.choice(KINDS)
    if scene.chance(0.2):
        scene.script.user(phrases.home(rng, place), place)
        return scene.script.follow(place, (_OWNER, Hop("ask", "home")))
    relation = rng.choice(("owner", "street", "price", "closed", "opened", "near"))
    asked = Hop("ask", relation)
    if scene.chance(0.4):
        kind = scene.facts(rng.choice(scene.facts(place, "near")), "kind")[0]
        text = phrases.question(rng, relation, f"the {kind} near {place}")
        scene.script.user(text, place)
        return scene.script.follow(place, (_near(kind), asked))
    owned = scene.script.world.graph.subjects("owner", person)
    kind = scene.facts(rng.choice(owned), "kind")[0] if owned else kind
    text = phrases.question(rng, relation, f"the {kind} of {person}")
    scene.script.user(text, person)
    return scene.script.follow(person, (_owned(kind), asked))


def _hops_to_a_place(scene: Scene) -> str:
    """Looks for a place by way of others, as "a cheap place near the hotel of the owner of ..."."""
    rng, place = scene.rng, scene.place()
    (owner,) = scene.facts(place, "owner")
    others = [p for p in scene.script.world.graph.subjects("owner", owner) if p != place]
    other = rng.choice(others) if others else place
    (kind,) = scene.facts(other, "kind")
    if scene.chance(0.4):
        scene.script.user(phrases.owned_too(rng, kind, place), place)
        return scene.script.follow(place, (_OWNER, _owned(kind)))
    (price,) = scene.facts(rng.choice(scene.facts(other, "near")), "price")
    wanted = phrases.described({"price": price})
    text = phrases.search(rng, f"{wanted} near the {kind} of the owner of {place}")
    scene.script.user(text, place)
    last = Hop("find", "near", (("price", price),))
    return scene.script.follow(place, (_OWNER, _owned(kind), last))


def _near(kind: str) -> Hop:
    return Hop("find", "near", (("kind", kind),))


def _owned(kind: str) -> Hop:
    return Hop("find", "owner", (("kind", kind),))


SKILLS: dict[str, Callable[[Scene], None]] = {
    "booking": booking,
    "question": question,
    "out_of_scope": out_of_scope,
    "several": several,
    "multi_hop": multi_hop,
    "summary": summary,
}
