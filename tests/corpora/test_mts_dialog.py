"""MTS-Dialog: a small file in the published format by hand, and the real corpus if present."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.corpora import mts_dialog, registry
from dlm.dialogue.schema import Dialogue, Message

ROWS = (
    "ID,section_header,section_text,dialogue\n"
    '0,GENHX,"She has pain,\nin the back. ","Doctor: Where? \r\nGest_family: Her back.\r\n\r\n"\n'
)


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A release whose four files are the row above."""
    (tmp_path / "Main-Dataset").mkdir()
    for name in mts_dialog.FILES.values():
        (tmp_path / name).write_bytes(ROWS.encode())
    card = replace(mts_dialog.CARD, counts=dict.fromkeys(mts_dialog.FILES, 1))
    monkeypatch.setattr(mts_dialog, "CARD", card)
    return tmp_path


def build(root: Path) -> registry.Prepared:
    return registry.prepare("mts_dialog", {"path": str(root)}, root / "built")


def test_a_row_is_a_conversation_a_section_and_its_text_by_hand(small):
    """Line ends are alike; speakers stand as published."""
    corpus = build(small)
    assert list(corpus.splits) == ["train", "validation", "test", "test_2"]
    assert list(corpus.splits["test_2"]) == [
        Dialogue(
            "test_2-0",
            (
                Message("user", "Doctor: Where?\nGest_family: Her back."),
                Message("assistant", "GENHX", "intent"),
                Message("assistant", "She has pain,\nin the back.", "reply"),
            ),
        )
    ]


def test_mistakes_are_told(small):
    path = small / mts_dialog.FILES["validation"]
    path.write_text(ROWS + ROWS.partition("\n")[2])
    with pytest.raises(UserError, match="2 rows; the release has 1 rows"):
        build(small)
    path.write_text("ID,dialogue\n1,a\n")
    with pytest.raises(
        UserError, match=r"ValidationSet\.csv:1: no column 'section_header'; it has"
    ):
        build(small)
    path.unlink()
    with pytest.raises(
        UserError, match=r"no file Main-Dataset/MTS-Dialog-ValidationSet\.csv; take"
    ):
        build(small)


def test_the_real_corpus(corpus_dir, tmp_path):
    """Counts; 20 sections; no carriage return is left of the training file's."""
    options = {"path": str(corpus_dir("mts-dialog"))}
    corpus = registry.prepare("mts_dialog", options, tmp_path)
    counts = {split: corpus.counts[split]["dialogues"] for split in corpus.splits}
    assert counts == {"train": 1201, "validation": 100, "test": 200, "test_2": 200}
    train = list(corpus.splits["train"])
    headers = [dialogue.messages[1].content for dialogue in train]
    assert len(set(headers)) == 20
    assert headers.count("FAM/SOCHX") == 351
    assert not any("\r" in str(message.content) for d in train for message in d.messages)
    lines = [line for d in train for line in d.messages[0].content.split("\n")]
    assert sum(line.startswith("Doctor:") for line in lines) == 5807
