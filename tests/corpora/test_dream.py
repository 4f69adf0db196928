"""DREAM: a small file in the published format by hand, and the real corpus if present."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.corpora import dream, registry
from dlm.dialogue.schema import Dialogue, Message

SAID = ["W: The movie is cancelled.", "Man: Why?"]
ASKED = [
    {"question": "What is?", "choice": ["A tie.", "The movie.", "He."], "answer": "The movie."},
    {"question": "Who asks?", "choice": ["The man.", "She.", "Ann."], "answer": "The man."},
]


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    (tmp_path / "data").mkdir()
    for name in dream.FILES.values():
        (tmp_path / name).write_text(json.dumps([[SAID, ASKED, "4-199"]]))
    counts = {"conversations": 1, "questions": 2}
    monkeypatch.setattr(dream, "COUNTS", dict.fromkeys(dream.FILES, counts))
    return tmp_path


def build(root: Path) -> registry.Prepared:
    return registry.prepare("dream", {"path": str(root)}, root / "built")


def test_a_question_is_a_choice_whose_reply_is_the_right_one_by_hand(small):
    heard = Message("context", "W: The movie is cancelled.\nMan: Why?")
    assert list(build(small).splits["test"]) == [
        Dialogue(
            f"test-4-199-{index}",
            (
                heard,
                Message("user", asked["question"]),
                Message("assistant", asked["answer"], "reply"),
            ),
            candidates=tuple(asked["choice"]),
            answer=answer,
        )
        for index, (asked, answer) in enumerate(zip(ASKED, (1, 0), strict=True))
    ]


def test_mistakes_are_told(small):
    path = small / "data/dev.json"
    wrong = {"question": "?", "choice": ["a", "b"], "answer": "c"}
    for records, message in (
        ([[SAID, ASKED]], r"dev\.json: record 0: no record of this corpus: not enough values"),
        ([[SAID, [wrong], "1"]], "record 0: .*not in list"),
        (
            [[SAID, [{"question": "?"}], "1"]],
            "record 0: no record of this corpus: no field 'choice'",
        ),
        ([[SAID, ASKED[:1], "1"]], "1 conversations, 1 questions; the release has 1 conversations"),
    ):
        path.write_text(json.dumps(records))
        with pytest.raises(UserError, match=message):
            build(small)
    path.write_text("{}")
    with pytest.raises(UserError, match=r"dev\.json: no list of records; take the folder data"):
        build(small)
    path.write_text("[")
    with pytest.raises(UserError, match=r"dev\.json:1:2: not valid JSON"):
        build(small)
    path.unlink()
    with pytest.raises(UserError, match=r"no file data/dev\.json; take the folder data"):
        build(small)


def test_the_real_corpus(corpus_dir, tmp_path):
    """Counts; three candidates each; the reply is the answer."""
    corpus = registry.prepare("dream", {"path": str(corpus_dir("dream"))}, tmp_path)
    counts = {split: corpus.counts[split]["dialogues"] for split in corpus.splits}
    assert counts == {"train": 6116, "validation": 2040, "test": 2041}
    for dialogue in corpus.splits["test"]:
        assert len(dialogue.candidates) == 3
        assert dialogue.messages[-1].content == dialogue.candidates[dialogue.answer]
