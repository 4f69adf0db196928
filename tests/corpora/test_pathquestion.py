"""PathQuestion: files in the published forms by hand, and the real sets if present."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.corpora import pathquestion, registry
from dlm.corpora.pathquestion import SETS, Options, Set, dialogue, read_questions, triples
from dlm.dialogue.schema import Dialogue, Message
from dlm.reasoning.graph import Graph

PQ = "what is the nation of ann 's couple ?\tuk(uk/us/)\tann#spouse#bob#nation#uk#<end>#uk"
PQL = " who is Ann 's film ?\tPG_(USA)(PG_(USA)/)\tAnn#__film__rating#PG_(USA)"
BRANCHES = "Forward#plays#ANN#<end>#ANN*Tigres#club#ANN#<end>#ANN"
WC = f"who plays Forward at Tigres ?\tANN\t{BRANCHES}\tBOB/ANN/\tx#y#z///\tANN"


def write(root: Path, name: str, *lines: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def test_question_path_and_answer_by_hand(tmp_path):
    """PQ's and PQL's three columns, WorldCup2014's six; the gold answer comes first."""
    path = write(tmp_path, "a.txt", PQ, PQL, WC)
    read = read_questions(path, Set("a.txt", "", questions=3, several=2, triples=0))
    assert [dialogue(question, str(number)) for number, question in enumerate(read)] == [
        Dialogue(
            str(number),
            (
                Message("user", asked),
                Message("assistant", reason, "reason"),
                Message("assistant", answers[0], "reply"),
            ),
            meta={"answers": answers},
        )
        for number, (asked, reason, answers) in enumerate(
            (
                (
                    "what is the nation of ann 's couple ?",
                    "ann > spouse > bob > nation > uk",
                    ["uk", "us"],
                ),
                ("who is Ann 's film ?", "Ann > __film__rating > PG_(USA)", ["PG_(USA)"]),
                (
                    "who plays Forward at Tigres ?",
                    "Forward > plays > ANN\nTigres > club > ANN",
                    ["ANN", "BOB"],
                ),
            )
        )
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a question", r"a\.txt:1: 1 fields, not question, answers and path"),
        ("q\tuk(us/)\tann#nation#uk", r"a\.txt:1: the path ends with 'uk', which is no answer"),
        ("q\tuk(uk/)\tann#nation", r"a\.txt:1: 'ann#nation' is no path 'subject#relation#object"),
        (PQ, "1 questions, 1 of several answers; the release has 2 questions, 1 of several"),
    ],
)
def test_a_bad_line_is_told(tmp_path, line, message):
    path = write(tmp_path, "a.txt", line)
    with pytest.raises(UserError, match=message):
        read_questions(path, Set("a.txt", "", questions=2, several=1, triples=0))


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A set of 60 questions, each twice with different paths, on a graph of two triples."""
    lines = [f"q{n // 2} ?\tuk(uk/)\tann#r{n % 2}#uk" for n in range(120)]
    write(tmp_path, "q.txt", *lines)
    write(tmp_path, "kb.txt", "ann\tr0\tuk", "ann\tr1\tuk")
    monkeypatch.setitem(SETS, "PQ-2H", Set("q.txt", "kb.txt", 120, 0, 2))
    return tmp_path


def build(root: Path, **options) -> registry.Prepared:
    return registry.prepare("pathquestion", {"path": str(root), **options}, root / "built")


def sides(corpus: registry.Prepared) -> dict[str, set[str]]:
    found = defaultdict(set)
    for split, source in corpus.splits.items():
        for entry in source:
            found[entry.messages[0].content].add(split)
    return found


def test_a_repeated_question_is_on_one_side_whatever_the_seed(small):
    corpus = build(small)
    assert sum(counts["dialogues"] for counts in corpus.counts.values()) == 120
    assert {len(splits) for splits in sides(corpus).values()} == {1}
    assert sides(build(small, seed=1)) != sides(corpus)


def test_the_graph_of_a_set(small):
    found = triples(Options(path=str(small)))
    assert found == [("ann", "r0", "uk"), ("ann", "r1", "uk")]
    write(small, "kb.txt", "ann\tr0")
    with pytest.raises(UserError, match=r"kb\.txt:1: 2 fields, not subject, relation and object"):
        triples(Options(path=str(small)))
    write(small, "kb.txt", "ann\tr0\tuk")
    with pytest.raises(UserError, match=r"kb\.txt: 1 triples; the release has 2 triples"):
        triples(Options(path=str(small)))


def test_mistakes_are_told(small):
    with pytest.raises(
        UserError, match=r"data\.options\.set: unknown value 'PQ2H'; did you mean 'P"
    ):
        build(small, set="PQ2H")
    with pytest.raises(UserError, match=r"no file PathQuestion/PQ-3H\.txt; take the folders"):
        build(small, set="PQ-3H")


@pytest.mark.parametrize("name", SETS)
def test_the_real_sets(corpus_dir, name):
    """Counts; every step of every gold path is in the set's graph."""
    root = corpus_dir("pathquestion")
    known = Graph(triples(Options(name, path=str(root))))
    questions = read_questions(root / SETS[name].file, SETS[name])
    for question in questions:
        for path in question.paths:
            steps = [tuple(path[i : i + 3]) for i in range(0, len(path) - 2, 2)]
            assert all(step in known for step in steps)


@pytest.mark.parametrize("name", ["PQ-2H", "PQL-2H"])
def test_the_real_split(corpus_dir, tmp_path, name):
    """No question is on two sides, although 426 of PQL-2H are repeated."""
    options = {"path": str(corpus_dir("pathquestion")), "set": name}
    corpus = registry.prepare("pathquestion", options, tmp_path)
    counts = {split: corpus.counts[split]["dialogues"] for split in corpus.splits}
    assert (
        counts
        == {
            "PQ-2H": pathquestion.CARD.counts,
            "PQL-2H": {"train": 1263, "validation": 168, "test": 163},
        }[name]
    )
    found = sides(corpus)
    assert {len(splits) for splits in found.values()} == {1}
    assert len(found) == {"PQ-2H": 1908, "PQL-2H": 1168}[name]
