"""Small knowledge graphs: Kinship, UMLS, Nations and Countries; links that are asked for.

A triple `cuba timesinceally india` of a graph is asked for twice: `cuba timesinceally ?` is
answered `india`, and `? timesinceally india` is answered `cuba`. In validation and test
`candidates` are the names of the graph without the other right answers of any split, and `answer`
is the right one among them: the filtered ranking of the literature; `meta.answers` are all that are
right. `triples` is the graph that is known: the training triples.

Countries asks in which of five regions each of 24 countries lies, and knows less from S1 to S3.
As published, the answers of some validation countries (13, 13 and 6) stand in the training file:
they are kept out of it, and listed in the build's `rejected.jsonl`.

Source: Kok, Domingos: Statistical Predicate Invention, ICML 2007 (Kinship, UMLS, Nations); Bouchard
et al.: On Approximate Reasoning Capabilities of Low-Rank Vector Spaces, 2015 (Countries); splits of
Minervini et al.: Learning Reasoning Strategies in End-to-End Differentiable Proving, ICML 2020.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dlm.core.config import parse
from dlm.core.errors import UserError
from dlm.corpora.published import find_files, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tables import check_counts, reader_digest, text_lines
from dlm.corpora.tfds_store import build
from dlm.dialogue.checks import check_choice
from dlm.dialogue.schema import Dialogue, Message
from dlm.reasoning.graph import Triple

UNKNOWN = "?"
LOCATED = "locatedIn"
FILES = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
# Measured on the release: lines of each file; of Countries, of each training file.
COUNTS = {
    "kinship": {"train": 8544, "validation": 1068, "test": 1074},
    "nations": {"train": 1592, "validation": 199, "test": 201},
    "umls": {"train": 5216, "validation": 652, "test": 661},
}
COUNTRIES = {"countries_S1": 1111, "countries_S2": 1063, "countries_S3": 979}
LEAKED = {"countries_S1": 13, "countries_S2": 13, "countries_S3": 6}
ASKED = 24  # countries in each of validation and test

CARD = Card(
    task="link questions",
    description="Kinship, UMLS, Nations and Countries: links of small knowledge graphs.",
    citation=(
        "Stanley Kok, Pedro Domingos: Statistical Predicate Invention, ICML 2007; Guillaume "
        "Bouchard, Sameer Singh, Theo Trouillon: On Approximate Reasoning Capabilities of Low-Rank "
        "Vector Spaces, AAAI Spring Symposium 2015; Pasquale Minervini et al.: Learning Reasoning "
        "Strategies in End-to-End Differentiable Proving, ICML 2020"
    ),
    licence="MIT",
    counts={split: 2 * count for split, count in COUNTS["nations"].items()},
    folder="kg-small",
    files=tuple(f"nations/{name}" for name in FILES.values()),
    remedy=(
        "take the folders kinship, nations, umls and countries of the folder data of the GitHub "
        "repository uclnlp/ctp, and name the folder that holds them in data.options.path, or put "
        "it at $DLM_DATA_DIR/kg-small"
    ),
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      graph: kinship, nations, umls, countries_S1, countries_S2 or countries_S3.
      path: folder of the published files; empty: `$DLM_DATA_DIR/kg-small`.
    """

    graph: str = "nations"
    path: str = ""


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens one graph.

    Raises:
      UserError: no such graph, a file that is absent or damaged, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    check_choice(config.graph, (*COUNTS, *COUNTRIES), "", "data.options.graph")
    root = root_of(CARD, config.path)
    paths = find_files(CARD, root, _names(config.graph))
    rejected: list[dict[str, str]] = []
    return build(
        "kg_small",
        reader_digest(config, root, paths, sys.modules[__name__]),
        _splits(config.graph, paths, rejected),
        data_dir,
        card=CARD,
        rejected=rejected,
    )


def triples(config: Options) -> list[Triple]:
    """The graph that is known, in the order of its file.

    Raises:
      UserError: a file is absent, a line is no triple, or there are others than published.
    """
    paths = find_files(CARD, root_of(CARD, config.path), _names(config.graph))
    if config.graph in COUNTRIES:
        return _known(config.graph, paths, [])
    return read_triples(paths[0], COUNTS[config.graph]["train"])


def read_triples(path: Path, count: int) -> list[Triple]:
    """The triples of a file, held against their number.

    Raises:
      UserError: a line is no triple, or there are more or fewer.
    """
    found: list[Triple] = []
    for where, line in text_lines(path):
        fields = line.split("\t")
        if len(fields) != 3:
            raise UserError(f"{where}: {len(fields)} fields, not subject, predicate and object")
        found.append((fields[0], fields[1], fields[2]))
    check_counts(path, {"triples": len(found)}, {"triples": count}, CARD)
    return found


def ask(
    asked: Triple,
    answer: str,
    name: str,
    others: Sequence[str] = (),
    candidates: Sequence[str] = (),
) -> Dialogue:
    """A triple with `UNKNOWN` in one place as a question, and what belongs there as its answer.

    Args:
      asked: the triple.
      answer: the reply.
      name: the id.
      others: what else would be right.
      candidates: what to choose from; none: there is no choice.
    """
    messages = (Message("user", " ".join(asked)), Message("assistant", answer, "reply"))
    right = candidates.index(answer) if candidates else None
    meta = {"answers": [answer, *others]}
    return Dialogue(name, messages, candidates=tuple(candidates), answer=right, meta=meta)


def ask_all(
    triples: Sequence[Triple], split: str, known: Sequence[Triple] = ()
) -> Iterator[Dialogue]:
    """Both questions of each triple: for its object, and for its subject.

    Args:
      triples: what is asked for.
      split: begins the ids: `test-17-object`.
      known: all triples that are true; with them the questions have candidates.
    """
    names = sorted({name for triple in known for name in (triple[0], triple[2])})
    right: dict[Triple, set[str]] = {}
    for triple in known:
        for _, asked, answer in _both(triple):
            right.setdefault(asked, set()).add(answer)
    for number, triple in enumerate(triples):
        for kind, asked, answer in _both(triple):
            others = sorted(right.get(asked, set()) - {answer})
            candidates = [name for name in names if name not in others]
            yield ask(asked, answer, f"{split}-{number}-{kind}", others, candidates)


def _both(triple: Triple) -> tuple[tuple[str, Triple, str], ...]:
    subject, predicate, obj = triple
    return (
        ("object", (subject, predicate, UNKNOWN), obj),
        ("subject", (UNKNOWN, predicate, obj), subject),
    )


def _names(graph: str) -> list[str]:
    """The files that a graph is made of."""
    if graph in COUNTRIES:
        names = (f"{graph}.tsv", "dev.txt", "test.txt", "regions.txt", "countries.nl")
        return [f"countries/{name}" for name in names]
    return [f"{graph}/{name}" for name in FILES.values()]


def _splits(
    graph: str, paths: Sequence[Path], rejected: list[dict[str, str]]
) -> dict[str, Callable[[], Iterator[Dialogue]]]:
    if graph in COUNTRIES:
        return {
            "train": partial(_taught, graph, paths, rejected),
            "validation": partial(_countries, paths[1], paths[3], paths[4], "validation"),
            "test": partial(_countries, paths[2], paths[3], paths[4], "test"),
        }
    found = {
        split: read_triples(path, COUNTS[graph][split])
        for split, path in zip(FILES, paths, strict=True)
    }
    known = [triple for triples in found.values() for triple in triples]
    return {
        split: partial(ask_all, triples, split, () if split == "train" else known)
        for split, triples in found.items()
    }


def _taught(
    graph: str, paths: Sequence[Path], rejected: list[dict[str, str]]
) -> Iterator[Dialogue]:
    yield from ask_all(_known(graph, paths, rejected), "train")


def _known(graph: str, paths: Sequence[Path], rejected: list[dict[str, str]]) -> list[Triple]:
    """The triples of a Countries file without those that validation or test ask for."""
    training, *asked, regions, _ = paths
    countries = {name for path in asked for _, name in text_lines(path)}
    places = {name for _, name in text_lines(regions)}
    kept: list[Triple] = []
    leaked: list[Triple] = []
    for triple in read_triples(training, COUNTRIES[graph]):
        subject, predicate, obj = triple
        told = predicate == LOCATED and subject in countries and obj in places
        (leaked if told else kept).append(triple)
    check_counts(training, {"answers": len(leaked)}, {"answers": LEAKED[graph]}, CARD)
    rejected += [
        {"id": " ".join(triple), "where": str(training), "reason": "the answer of a question"}
        for triple in leaked
    ]
    return kept


def _countries(countries: Path, regions: Path, facts: Path, split: str) -> Iterator[Dialogue]:
    """In which region each country of a file lies; the answers are among all facts."""
    true = {line.strip() for _, line in text_lines(facts)}
    places = [name for _, name in text_lines(regions)]
    asked = list(text_lines(countries))
    check_counts(countries, {"countries": len(asked)}, {"countries": ASKED}, CARD)
    for number, (where, country) in enumerate(asked):
        found = [place for place in places if f"{LOCATED}({country},{place})." in true]
        if len(found) != 1:
            raise UserError(
                f"{where}: {country!r:.60} lies in {len(found)} regions of {facts}, not 1"
            )
        yield ask((country, LOCATED, UNKNOWN), found[0], f"{split}-{number}-object", (), places)
