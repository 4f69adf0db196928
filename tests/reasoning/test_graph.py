"""The graph: triples of plain strings in and out, and queries that stay on this machine."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm.reasoning.graph import Graph

FAMILY = [
    ("Jasper", "parent", "Milkot"),
    ("Jasper", "parent", "Vortan"),
    ("Milkot", "parent", "Faskun"),
    ("Faskun", "lives on", "Tilbos Street"),
]
NAMES = st.text(max_size=6)


def test_lookups_are_sorted_and_exact():
    graph = Graph(reversed(FAMILY))
    assert graph.objects("Jasper", "parent") == ["Milkot", "Vortan"]
    assert graph.subjects("lives on", "Tilbos Street") == ["Faskun"]
    assert graph.objects("Jasper", "lives on") == []
    assert graph.triples(predicate="parent") == sorted(FAMILY)[1:]
    assert graph.triples("Jasper", None, "Vortan") == [FAMILY[1]]


def test_add_and_remove_are_idempotent():
    graph = Graph(FAMILY)
    graph.add(*FAMILY[0])
    assert len(graph) == 4
    graph.remove(*FAMILY[0])
    graph.remove(*FAMILY[0])
    assert len(graph) == 3
    assert FAMILY[0] not in graph
    assert FAMILY[1] in graph


@settings(max_examples=60)
@given(st.sets(st.tuples(NAMES, NAMES, NAMES), max_size=5))
def test_any_string_is_a_name(triples: set[tuple[str, str, str]]):
    """Spaces, marks, other scripts, control characters and the empty string come back as given."""
    assert Graph(triples).triples() == sorted(triples)


def test_a_lone_surrogate_is_a_name():
    """JSON can spell one, so a model's call can bring it here."""
    assert Graph([("\ud800", "p", "o")]).subjects("p", "o") == ["\ud800"]


def test_select_follows_paths_and_substitutes_names():
    graph = Graph(FAMILY)
    query = "SELECT ?a ?street { ?a :parent+/:lives%20on ?street }"
    assert graph.select(query, a="Jasper") == [{"a": "Jasper", "street": "Tilbos Street"}]
    assert graph.select(query, a="Vortan") == []
    assert graph.select("SELECT (COUNT(*) AS ?n) { ?a :parent ?b }") == [{"n": "3"}]


def test_a_variable_without_a_value_is_left_out():
    query = "SELECT ?a ?b { ?a :parent :Vortan OPTIONAL { ?a :owns ?b } }"
    assert Graph(FAMILY).select(query) == [{"a": "Jasper"}]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT ?a { ?a :parent ", "expected"),
        ("ASK { ?a :parent ?b }", "expected a SELECT query"),
        ("SELECT ?b { ?a :parent ?b }", r"variable \?a"),
        ("SELECT ?a { SERVICE <http://127.0.0.1:9/> { ?a :parent ?b } }", "SERVICE asks another"),
        ("SELECT ?a { sErViCe\n<http://127.0.0.1:9/> { ?a :parent ?b } }", "SERVICE asks another"),
        (r"SELECT ?a { S\u0045RVICE <http://127.0.0.1:9/> { ?a ?b ?c } }", "SERVICE asks another"),
        (r"SELECT ?a { S\U00000045RVICE ?s { ?a ?b ?c } }", "SERVICE asks another"),
    ],
)
def test_bad_and_remote_queries_are_refused(query: str, message: str):
    with pytest.raises(ValueError, match=message):
        Graph(FAMILY).select(query, a="Jasper")


def test_a_name_with_the_word_service_can_be_substituted():
    graph = Graph([("Milkot", "offers", "room service")])
    query = "SELECT ?a ?b { ?a :offers ?b }"
    assert graph.select(query, b="room service") == [{"a": "Milkot", "b": "room service"}]


def test_digest_depends_on_the_triples_alone():
    graph = Graph(FAMILY)
    assert graph.digest() == Graph(reversed(FAMILY)).digest()
    graph.add("Vortan", "parent", "Tilbos")
    assert graph.digest() != Graph(FAMILY).digest()
    graph.remove("Vortan", "parent", "Tilbos")
    assert graph.digest() == Graph(FAMILY).digest()
