"""E2E NLG: a small file in the published format by hand, and the real corpus if present."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.corpora import e2e_nlg, registry
from dlm.dialogue.schema import Dialogue, Message

ROWS = (
    'mr,ref\r\n"name[Ann], area[city]","Ann  is in\r\n town."\r\n'
    'name[Bob],Bob’s is £20.\r\n"name[Ann], area[city]",In town: Ann.\r\n'
)
ANN, BOB = "name[Ann], area[city]", "name[Bob]"


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A release whose three files are the rows above."""
    (tmp_path / "e2e-dataset").mkdir()
    for name in e2e_nlg.FILES.values():
        (tmp_path / name).write_bytes(ROWS.encode())
    counts = {"texts": 3, "inputs": 2}
    monkeypatch.setattr(e2e_nlg, "COUNTS", dict.fromkeys(e2e_nlg.FILES, counts))
    return tmp_path


def build(root: Path) -> registry.Prepared:
    return registry.prepare("e2e_nlg", {"path": str(root)}, root / "built")


def test_rows_are_dialogues_in_training_and_grouped_elsewhere_by_hand(small):
    corpus = build(small)

    def said(name: str, meaning: str, text: str, **meta) -> Dialogue:
        messages = (Message("user", meaning), Message("assistant", text, "reply"))
        return Dialogue(name, messages, meta=meta)

    assert list(corpus.splits["train"]) == [
        said("train-0", ANN, "Ann is in town."),
        said("train-1", BOB, "Bob’s is £20."),
        said("train-2", ANN, "In town: Ann."),
    ]
    assert list(corpus.splits["test"]) == [
        said("test-0", ANN, "Ann is in town.", references=["Ann is in town.", "In town: Ann."]),
        said("test-1", BOB, "Bob’s is £20.", references=["Bob’s is £20."]),
    ]


def test_mistakes_are_told(small):
    (small / "e2e-dataset/devset.csv").write_text("mr,ref\na,b\n")
    with pytest.raises(UserError, match="1 texts, 1 inputs; the release has 3 texts, 2 inputs"):
        build(small)
    (small / "e2e-dataset/devset.csv").write_text("MR\na\n")
    with pytest.raises(UserError, match=r"devset\.csv:1: no column 'mr'; it has MR"):
        build(small)
    (small / "e2e-dataset/devset.csv").unlink()
    with pytest.raises(
        UserError, match=r"no file e2e-dataset/devset\.csv; take the files of the G"
    ):
        build(small)


@pytest.mark.slow
def test_the_real_corpus(corpus_dir, tmp_path):
    """Counts; no input is in two splits; every reference is kept."""
    options = {"path": str(corpus_dir("e2e-nlg"))}
    corpus = registry.prepare("e2e_nlg", options, tmp_path)
    counts = {split: corpus.counts[split]["dialogues"] for split in corpus.splits}
    assert counts == e2e_nlg.CARD.counts == {"train": 42061, "validation": 547, "test": 630}
    assert sum(len(d.meta["references"]) for d in corpus.splits["test"]) == 4693
    asked = [{d.messages[0].content for d in source} for source in corpus.splits.values()]
    assert [len(inputs) for inputs in asked] == [4862, 547, 630]
    assert len(set.union(*asked)) == 4862 + 547 + 630
    assert not any("\n" in d.messages[1].content for d in corpus.splits["train"])
