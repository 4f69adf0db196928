"""Small graphs: files in the published format by hand, and the real graphs if present."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.corpora import kg_small, registry
from dlm.corpora.kg_small import Options, triples
from dlm.dialogue.schema import Dialogue, Message
from dlm.reasoning.graph import Graph


def asked(name: str, text: str, *answers: str, candidates=(), answer=None) -> Dialogue:
    messages = (Message("user", text), Message("assistant", answers[0], "reply"))
    meta = {"answers": list(answers)}
    return Dialogue(name, messages, candidates=candidates, answer=answer, meta=meta)


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """Nations of four triples, and Countries whose training file tells one answer."""
    files = {
        "nations/train.tsv": "cuba\tally\tindia\nuk\tally\tindia\n",
        "nations/dev.tsv": "cuba\tally\tusa\n",
        "nations/test.tsv": "uk\thost\tcuba\n",
        "countries/countries_S1.tsv": "chad\tlocatedIn\tafrica\nchad\tneighborOf\tniger\n"
        "chad\tlocatedIn\tmiddle_africa\nniger\tlocatedIn\tafrica\n",
        "countries/dev.txt": "chad\n",
        "countries/test.txt": "peru\n",
        "countries/regions.txt": "africa\namericas\n",
        "countries/countries.nl": "locatedIn(chad,africa).\nlocatedIn(peru,americas).\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    counts = {"nations": {"train": 2, "validation": 1, "test": 1}}
    monkeypatch.setattr(kg_small, "COUNTS", counts)
    monkeypatch.setattr(kg_small, "COUNTRIES", {"countries_S1": 4})
    monkeypatch.setattr(kg_small, "LEAKED", {"countries_S1": 1})
    monkeypatch.setattr(kg_small, "ASKED", 1)
    return tmp_path


def build(root: Path, graph: str) -> registry.Prepared:
    options = {"path": str(root), "graph": graph}
    return registry.prepare("kg_small", options, root / "built")


def test_a_triple_is_two_questions_by_hand(small):
    """What is right elsewhere, india, is no candidate: the ranking is filtered."""
    corpus = build(small, "nations")
    assert list(corpus.splits["train"])[:2] == [
        asked("train-0-object", "cuba ally ?", "india"),
        asked("train-0-subject", "? ally india", "cuba"),
    ]
    assert list(corpus.splits["validation"]) == [
        asked(
            *("validation-0-object", "cuba ally ?", "usa", "india"),
            candidates=("cuba", "uk", "usa"),
            answer=2,
        ),
        asked(
            *("validation-0-subject", "? ally usa", "cuba"),
            candidates=("cuba", "india", "uk", "usa"),
            answer=0,
        ),
    ]
    known = Graph(triples(Options("nations", str(small))))
    assert known.triples() == [("cuba", "ally", "india"), ("uk", "ally", "india")]


def test_countries_ask_for_regions_and_training_does_not_tell(small):
    corpus = build(small, "countries_S1")
    regions = ("africa", "americas")
    assert list(corpus.splits["validation"]) == [
        asked("validation-0-object", "chad locatedIn ?", "africa", candidates=regions, answer=0)
    ]
    assert [d.messages[1].content for d in corpus.splits["test"]] == ["americas"]
    known = triples(Options("countries_S1", str(small)))
    assert ("chad", "locatedIn", "africa") not in known
    assert ("chad", "locatedIn", "middle_africa") in known
    assert corpus.counts["train"] == {
        "dialogues": 6,
        "messages": 12,
        "responses": 6,
        "rejected": 1,
    }
    assert '"id": "chad locatedIn africa"' in corpus.rejected.read_text()


def test_mistakes_are_told(small):
    with pytest.raises(UserError, match=r"data\.options\.graph: unknown value 'nation'; did you"):
        build(small, "nation")
    (small / "countries/countries.nl").write_text("locatedIn(chad,africa).\n")
    with pytest.raises(UserError, match=r"test\.txt:1: 'peru' lies in 0 regions of .*, not 1"):
        build(small, "countries_S1")
    (small / "nations/dev.tsv").write_text("cuba ally usa\n")
    with pytest.raises(UserError, match=r"dev\.tsv:1: 1 fields, not subject, predicate and object"):
        build(small, "nations")
    (small / "nations/dev.tsv").write_text("a\tb\tc\nd\te\tf\n")
    with pytest.raises(UserError, match=r"dev\.tsv: 2 triples; the release has 1 triples"):
        build(small, "nations")
    (small / "nations/dev.tsv").unlink()
    with pytest.raises(UserError, match=r"no file nations/dev\.tsv; take the folders"):
        build(small, "nations")


@pytest.mark.parametrize(
    ("graph", "counts", "names"),
    [
        ("nations", (1592, 199, 201), 14),
        pytest.param("kinship", (8544, 1068, 1074), 104, marks=pytest.mark.slow),
        pytest.param("umls", (5216, 652, 661), 135, marks=pytest.mark.slow),
    ],
)
def test_the_real_graphs(corpus_dir, tmp_path, graph, counts, names):
    """Counts; a question's candidates hold its answer and no other right one."""
    options = Options(graph, str(corpus_dir("kg-small")))
    assert len(triples(options)) == counts[0]
    corpus = registry.prepare("kg_small", vars(options), tmp_path)
    found = {split: corpus.counts[split]["dialogues"] for split in corpus.splits}
    assert tuple(found.values()) == tuple(2 * count for count in counts)
    for dialogue in corpus.splits["test"]:
        right = dialogue.meta["answers"]
        assert dialogue.candidates[dialogue.answer] == right[0] == dialogue.messages[1].content
        assert len(dialogue.candidates) == names - len(right) + 1


@pytest.mark.parametrize(
    ("graph", "known"),
    [("countries_S1", 1111 - 13), ("countries_S2", 1063 - 13), ("countries_S3", 979 - 6)],
)
def test_the_real_countries(corpus_dir, tmp_path, graph, known):
    """What is asked for is not known."""
    options = Options(graph, str(corpus_dir("kg-small")))
    assert len(triples(options)) == known
    corpus = registry.prepare("kg_small", vars(options), tmp_path)
    told = {" ".join(triple) for triple in triples(options)}
    for split in ("validation", "test"):
        assert corpus.counts[split]["dialogues"] == 24
        for dialogue in corpus.splits[split]:
            question, answer = (str(message.content) for message in dialogue.messages)
            assert question.replace("?", answer) not in told
