"""The skills: what the user of one dialogue is after."""

from __future__ import annotations

import random
from collections.abc import Callable

from dlm.corpora.concierge import phrases
from dlm.corpora.concierge.city import KINDS, PRICES
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
    elif start == "offered":
        place = scene.find()
    else:
        place = scene.book(whole=True).slots["place"]
    if place:
        scene.ask(place, named=start == "named")
    if start != "booked" and scene.facts(place, "kind") and scene.chance(0.3):
        scene.ask(place, again=True)
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
    """Books two or three things, carrying day or people over, and at times changes one of them."""
    _change_one(scene, _bookings(scene, 3 if scene.chance(0.2) else 2))


def multi_hop(scene: Scene) -> None:
    """Asks over two or three edges of the graph; then perhaps about what was found."""
    place = scene.rng.choice(_CHAINS)(scene)
    if place and scene.chance(0.4):
        scene.ask(place)
    if place and scene.chance(0.3):
        scene.book(_item_of(scene, place), there=place, whole=True)


def summary(scene: Scene) -> None:
    """Books once or twice, perhaps changes or cancels, and asks what was agreed."""
    made = _bookings(scene, 2 if scene.chance(0.5) else 1)
    _change_one(scene, made)
    scene.script.user(phrases.summary(scene.rng))
    scene.script.summarise(made)


def _bookings(scene: Scene, count: int) -> list[Booking]:
    """Books different things, each with words that point back to the one before."""
    made: list[Booking] = []
    for item in scene.rng.sample(list(phrases.OBJECTS), count):
        earlier = made[-1] if made else None
        whole = count > 2 or scene.chance(0.4)
        made.append(scene.book(item, earlier=earlier, whole=whole))
    return made


def _change_one(scene: Scene, made: list[Booking]) -> None:
    """Often changes one of the bookings, at times cancels one and takes it off the list."""
    booking, named = scene.rng.choice(made), len(made) > 1
    if scene.chance(0.4):
        scene.change(booking, named=named)
    elif scene.chance(0.15):
        scene.cancel(booking, named=named)
        made.remove(booking)


def _item_of(scene: Scene, place: str) -> str:
    """What one books at a place."""
    (kind,) = scene.facts(place, "kind")
    return next(item for item, kinds in phrases.OBJECTS.items() if kind in kinds)


def _home_of_owner(scene: Scene) -> str:
    """Asks where the owner of a place lives."""
    place = scene.place()
    scene.script.user(phrases.home(scene.rng, place), place)
    return scene.script.follow(place, (_OWNER, Hop("ask", "home")))


def _fact_of_neighbour(scene: Scene) -> str:
    """Asks about "the hotel near Velmor"."""
    place = scene.place()
    (kind,) = scene.facts(scene.rng.choice(scene.facts(place, "near")), "kind")
    relation = scene.rng.choice(("owner", "street", "price", "closed", "opened"))
    text = phrases.question(scene.rng, relation, f"the {kind} near {place}")
    scene.script.user(text, place)
    return scene.script.follow(place, (_near(kind), Hop("ask", relation)))


def _fact_of_property(scene: Scene) -> str:
    """Asks about "the hotel of Tabrin", a person, who may have none."""
    person = scene.rng.choice(scene.city.people)
    kind = _kind_of_one(scene, _properties(scene, person)) or scene.rng.choice(KINDS)
    relation = scene.rng.choice(("street", "price", "closed", "opened", "near"))
    text = phrases.question(scene.rng, relation, f"the {kind} of {person}")
    scene.script.user(text, person)
    return scene.script.follow(person, (_owned(kind), Hop("ask", relation)))


def _other_of_owner(scene: Scene) -> str:
    """Asks for "the hotel of Velmor's owner"."""
    place, said, kind = _start(scene)
    scene.script.user(phrases.owned_too(scene.rng, kind, said), *([place] if said == place else []))
    return scene.script.follow(place, (_OWNER, _owned(kind)))


def _near_other_of_owner(scene: Scene) -> str:
    """Asks for "a cheap place near the hotel of the museum's owner"."""
    place, said, kind = _start(scene)
    way = scene.script.world.find(kind=kind, owner=scene.facts(place, "owner")[0])
    around = [scene.facts(near, "price")[0] for near in scene.facts(way, "near")]
    price = scene.rng.choice(around if around and scene.chance(0.9) else PRICES)
    wanted = phrases.described({"price": price})
    text = phrases.search(scene.rng, f"{wanted} near {phrases.of_owner(scene.rng, kind, said)}")
    scene.script.user(text, *([place] if said == place else []))
    last = Hop("find", "near", (("price", price),))
    return scene.script.follow(place, (_OWNER, _owned(kind), last))


def _start(scene: Scene) -> tuple[str, str, str]:
    """Where a chain over an owner begins.

    Returns:
      A place, perhaps one just offered; what the user calls it; another kind of place, mostly one
      that its owner has.
    """
    offered = scene.find() if scene.chance(0.25) else ""
    place = offered or scene.place()
    (own,), (owner,) = scene.facts(place, "kind"), scene.facts(place, "owner")
    others = [p for p in _properties(scene, owner) if p != place]
    kind = _kind_of_one(scene, others) or scene.rng.choice([k for k in KINDS if k != own])
    return place, f"the {own}" if offered else place, kind


def _properties(scene: Scene, person: str) -> list[str]:
    """The places that a person owns."""
    return scene.script.world.graph.subjects("owner", person)


def _kind_of_one(scene: Scene, places: list[str]) -> str:
    """The kind of one of the places; empty if there is none."""
    return scene.facts(scene.rng.choice(places), "kind")[0] if places else ""


def _near(kind: str) -> Hop:
    return Hop("find", "near", (("kind", kind),))


def _owned(kind: str) -> Hop:
    return Hop("find", "owner", (("kind", kind),))


_CHAINS = (
    *(_home_of_owner, _fact_of_neighbour, _fact_of_property),
    *(_other_of_owner, _near_other_of_owner, _near_other_of_owner),
)
SKILLS: dict[str, Callable[[Scene], None]] = {
    "booking": booking,
    "question": question,
    "out_of_scope": out_of_scope,
    "several": several,
    "multi_hop": multi_hop,
    "summary": summary,
}
