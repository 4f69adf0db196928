"""Cities: drawn names of two kinds that share no stem, and facts that fit together."""

from __future__ import annotations

import pytest

from dlm.core.errors import UserError
from dlm.corpora.concierge.builder import Options
from dlm.corpora.concierge.city import KINDS, RELATIONS, build_city
from dlm.corpora.concierge.names import HELD_OUT, REFERENCE_LETTERS, SEEN, make_names
from dlm.reasoning.graph import Graph


def test_training_cities_have_20000_names_without_any_held_out_stem():
    """Unseen names are new in their parts: no training name has one, at whatever place."""
    cities = [build_city(f"train-{i}") for i in range(Options().cities)]
    names = {name for city in cities for name in city.names}
    assert len(cities) >= 200
    assert len(names) == sum(len(city.names) for city in cities) >= 20_000
    assert all(name[0] not in REFERENCE_LETTERS for name in names)
    text = " ".join(names).lower()
    assert not [stem for stem in HELD_OUT if stem in text]


def test_unseen_names_begin_with_held_out_stems():
    names = {n for i in range(Options().unseen_cities) for n in build_city(f"unseen-{i}").names}
    assert len(names) > 2000
    assert {name[:4].lower() for name in names} <= set(HELD_OUT)


def test_both_kinds_of_names_use_the_same_letters_pairs_and_syllables():
    def parts(stems: list[str], length: int) -> set[str]:
        return {stem[i : i + length] for stem in stems for i in range(5 - length)}

    assert parts(HELD_OUT, 2) <= parts(SEEN, 2)
    assert {stem[:3] for stem in HELD_OUT} <= {stem[:3] for stem in SEEN}


@pytest.mark.parametrize("unseen", [True, False])
def test_names_are_six_different_letters(unseen: bool):
    names, stems = make_names(unseen=unseen), HELD_OUT if unseen else SEEN
    assert len(set(names)) == len(names) > 10_000
    assert all(len(set(name.lower())) == len(name) == 6 for name in names)
    assert {name[:4].lower() for name in names[: len(stems)]} == set(stems)


def test_a_city_behind_the_last_name_begins_again():
    last = len(make_names(unseen=True)) // len(build_city("unseen-0").names)
    assert len(set(build_city(f"unseen-{last}").names)) == len(build_city("unseen-0").names)
    assert set(build_city(f"unseen-{last}").names) & set(build_city("unseen-0").names)


def test_a_city_is_a_function_of_its_id():
    assert build_city("train-7") == build_city.__wrapped__("train-7")
    assert not set(build_city("train-7").names) & set(build_city("train-8").names)


def test_facts_of_a_city_fit_together():
    city = build_city("train-1")
    graph = Graph(city.triples)
    assert len(set(city.names)) == len(city.names) > 100
    assert {relation for _, relation, _ in city.triples} == set(RELATIONS)
    assert tuple(city.places) == KINDS
    for kind, places in city.places.items():
        assert sorted(places) == graph.subjects("kind", kind)
        owners = [graph.objects(place, "owner") for place in places]
        assert len({owner for (owner,) in owners}) == len(places), "one owner has two of a kind"
        for place in places:
            for relation in ("street", "price", "closed", "opened"):
                assert len(graph.objects(place, relation)) == 1
            assert len(graph.objects(place, "cuisine")) == (kind in ("restaurant", "cafe"))
            near = graph.objects(place, "near")
            assert len(near) == 2
            assert all(place in graph.objects(other, "near") for other in near)
    for person in city.people:
        assert len(graph.objects(person, "home")) == 1


@pytest.mark.parametrize("city_id", ["", "train", "train-", "train-01", "test-1", "unseen-1 "])
def test_an_id_that_is_none_is_refused(city_id: str):
    with pytest.raises(UserError, match=f"no city '{city_id}'; a city is called train-NUMBER"):
        build_city(city_id)
