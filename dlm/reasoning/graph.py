"""A knowledge graph of plain strings: triples (subject, predicate, object) in an Oxigraph store."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

import pyoxigraph as ox

Triple = tuple[str, str, str]

BASE = "urn:dlm:"

_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})|\\U([0-9a-fA-F]{8})")


class Graph:
    """Triples of names, in memory; a name is any string.

    Lists come back sorted, so what a graph answers depends on its triples alone.

    Example:
      >>> graph = Graph([("Velmor", "owner", "Tabrin"), ("Koldan", "owner", "Tabrin")])
      >>> graph.subjects("owner", "Tabrin")
      ['Koldan', 'Velmor']
    """

    def __init__(self, triples: Iterable[Triple] = ()) -> None:
        self._store = ox.Store()
        self._store.extend(_quad(*triple) for triple in triples)

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, triple: Triple) -> bool:
        return _quad(*triple) in self._store

    def add(self, subject: str, predicate: str, obj: str) -> None:
        """Adds a triple; one that is there already stays once."""
        self._store.add(_quad(subject, predicate, obj))

    def remove(self, subject: str, predicate: str, obj: str) -> None:
        """Removes a triple; one that is not there is no error."""
        self._store.remove(_quad(subject, predicate, obj))

    def objects(self, subject: str, predicate: str) -> list[str]:
        """All o of (subject, predicate, o), sorted."""
        found = self._store.quads_for_pattern(_node(subject), _node(predicate), None)
        return sorted(_name(quad.object) for quad in found)

    def subjects(self, predicate: str, obj: str) -> list[str]:
        """All s of (s, predicate, obj), sorted."""
        found = self._store.quads_for_pattern(None, _node(predicate), _node(obj))
        return sorted(_name(quad.subject) for quad in found)

    def triples(
        self, subject: str | None = None, predicate: str | None = None, obj: str | None = None
    ) -> list[Triple]:
        """All triples that agree with what is given, sorted; None agrees with everything."""
        pattern = (None if name is None else _node(name) for name in (subject, predicate, obj))
        return sorted(
            (_name(quad.subject), _name(quad.predicate), _name(quad.object))
            for quad in self._store.quads_for_pattern(*pattern)
        )

    def select(self, sparql: str, **substitutions: str) -> list[dict[str, str]]:
        """Runs a SPARQL SELECT query, property paths included; `:name` stands for a name.

        Example:
          >>> graph = Graph([("Velmor", "owner", "Tabrin"), ("Koldan", "owner", "Tabrin")])
          >>> graph.select("SELECT ?a ?b { ?a :owner/^:owner ?b } ORDER BY ?b", a="Velmor")
          [{'a': 'Velmor', 'b': 'Koldan'}, {'a': 'Velmor', 'b': 'Velmor'}]

        Args:
          sparql: the query. It runs in this process without a time limit: write it, do not take
            it from a user or a model.
          substitutions: variable -> name that it must equal.

        Returns:
          One dict a solution, variable -> name; variables without a value are left out.

        Raises:
          ValueError: no SELECT query, bad syntax, a substituted variable that is not selected, or
            the word SERVICE anywhere, escaped or not: it would ask another machine.
        """
        plain = _ESCAPE.sub(lambda m: chr(int(m[1] or m[2], 16) % 0x110000), sparql)
        if "service" in plain.lower():
            raise ValueError("SPARQL: SERVICE asks another machine; a name with that word in it "
                             "can be substituted")  # fmt: skip
        values: dict[ox.Variable, ox.NamedNode | ox.BlankNode | ox.Literal | ox.Triple]
        values = {ox.Variable(name): _node(value) for name, value in substitutions.items()}
        try:
            found = self._store.query(sparql, prefixes={"": BASE}, substitutions=values)
        except (SyntaxError, RuntimeError) as error:
            raise ValueError(f"SPARQL: {error} in {sparql!r}") from None
        if not isinstance(found, ox.QuerySolutions):
            raise ValueError(f"SPARQL: expected a SELECT query, got {sparql!r}")
        names = [variable.value for variable in found.variables]
        return [
            {name: _name(row[name]) for name in names if row[name] is not None} for row in found
        ]

    def digest(self) -> str:
        """SHA-256 of the triples, in hex; their order of insertion does not matter."""
        return hashlib.sha256(repr(self.triples()).encode()).hexdigest()


def _quad(subject: str, predicate: str, obj: str) -> ox.Quad:
    return ox.Quad(_node(subject), _node(predicate), _node(obj))


@lru_cache(maxsize=1 << 16)
def _node(name: str) -> ox.NamedNode:
    return ox.NamedNode(BASE + quote(name, safe="", errors="surrogatepass"))


@lru_cache(maxsize=1 << 16)
def _unquoted(iri: str) -> str:
    return unquote(iri.removeprefix(BASE), errors="surrogatepass")


def _name(term: Any) -> str:
    """The name of a node; a literal, which only a query can make (COUNT, STR), gives its text."""
    return _unquoted(term.value) if isinstance(term, ox.NamedNode) else term.value
