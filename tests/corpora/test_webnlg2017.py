"""WebNLG 2017: small files in the published format by hand, and the real corpus if present."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.corpora import registry, webnlg2017
from dlm.dialogue.schema import Dialogue, Message

ENTRY = """<entry category="{}" eid="Id1" size="2">
  <originaltripleset><otriple>No | no | no</otriple></originaltripleset>
  <modifiedtripleset><mtriple>Åby | city | "A, B"</mtriple><mtriple>A | in | C</mtriple>
  </modifiedtripleset>
  <lex comment="good" lid="Id1">One
    text.</lex><lex comment="toFix" lid="Id2">Another.</lex></entry>"""
FACTS = 'Åby | city | "A, B"\nA | in | C'


def write(root: Path, name: str, *categories: str) -> None:
    path = root / "webnlg_challenge_2017" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = "".join(ENTRY.format(category) for category in categories)
    path.write_text(f"<benchmark><entries>{entries}</entries></benchmark>", encoding="utf-8")


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    write(tmp_path, "train/2triples/a.xml", "Food")
    write(tmp_path, "dev/1triples/a.xml", "Food")
    write(tmp_path, "test/testdata_with_lex.xml", "Artist", "Food")
    counts = {"entries": 1, "texts": 2}
    monkeypatch.setattr(webnlg2017, "COUNTS", dict.fromkeys(webnlg2017.COUNTS, counts))
    return tmp_path


def build(root: Path) -> registry.Prepared:
    return registry.prepare("webnlg2017", {"path": str(root)}, root / "built")


def test_texts_are_dialogues_in_training_and_references_elsewhere_by_hand(small):
    """Modified triples, not the original; every text of training; unseen categories apart."""
    corpus = build(small)
    asked, first, second = (
        Message("user", FACTS),
        Message("assistant", "One text.", "reply"),
        Message("assistant", "Another.", "reply"),
    )
    food = {"category": "Food"}
    assert list(corpus.splits["train"]) == [
        Dialogue("train-0-0", (asked, first), meta=food),
        Dialogue("train-0-1", (asked, second), meta=food),
    ]
    both = {"references": ["One text.", "Another."]}
    assert list(corpus.splits["test"]) == [Dialogue("test-0", (asked, first), meta=food | both)]
    [unseen] = corpus.splits["test_unseen"]
    assert unseen.meta == {"category": "Artist"} | both


def test_mistakes_are_told(small):
    path = small / "webnlg_challenge_2017/dev/1triples/a.xml"
    for text, message in (
        ("<benchmark>", r"a\.xml: no XML: no element found"),
        ('<?xml version="1.0" encoding="x"?><b/>', r"a\.xml: no XML: unknown encoding"),
        ("<b><entry><lex>x</lex></entry></b>", "entry 0: no modifiedtripleset of triples"),
        (
            "<b><entry><modifiedtripleset><mtriple>a|b|c</mtriple></modifiedtripleset></entry></b>",
            r"entry 0: 'a\|b\|c' is no 'subject \| predicate \| object'",
        ),
        ("<benchmark/>", "validation: 0 entries, 0 texts; the release has 1 entries, 2 texts"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            build(small)
    path.unlink()
    with pytest.raises(UserError, match=r"no file webnlg_challenge_2017/dev/\*triples.*; take the"):
        build(small)


@pytest.mark.slow
def test_the_real_corpus(corpus_dir, tmp_path):
    """Counts; categories of test are those of training, those of test_unseen others."""
    options = {"path": str(corpus_dir("webnlg2017"))}
    corpus = registry.prepare("webnlg2017", options, tmp_path)
    counts = {split: corpus.counts[split]["dialogues"] for split in corpus.splits}
    assert counts == webnlg2017.CARD.counts
    assert counts == {"train": 18102, "validation": 872, "test": 971, "test_unseen": 891}
    texts = {
        split: sum(len(d.meta["references"]) for d in corpus.splits[split])
        for split in ("validation", "test", "test_unseen")
    }
    assert texts == {"validation": 2268, "test": 2495, "test_unseen": 2433}
    categories = {s: {d.meta["category"] for d in source} for s, source in corpus.splits.items()}
    assert len(categories["train"]) == 10
    assert categories["test"] <= categories["train"]
    assert categories["test_unseen"].isdisjoint(categories["train"])
