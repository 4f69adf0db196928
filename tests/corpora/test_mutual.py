"""MuTual: records in the published format by hand, and the real corpus if present."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.corpora import mutual, registry
from dlm.corpora.mutual import parse_record
from dlm.dialogue.schema import Dialogue, Message, validate

OPTIONS = ["f : no .", "f : yes .", "m : so ?", " f : i 'm off ."]


def record(article: str, answers: str = "B", options: list[str] | None = None) -> dict:
    return {"answers": answers, "options": options or OPTIONS, "article": article, "id": "train_1"}


def heard(text: str) -> Message:
    return Message("user", text)


def old(text: str) -> Message:
    return Message("assistant", text, "reply", weight=0.0)


def test_a_record_is_a_choice_in_a_conversation_by_hand():
    """Most options are f's, who is the assistant; marks go; only the right option is learned."""
    found = parse_record(record("f : hi : all . m : how much ? f : $ 5 . m : ok ."))
    assert found == Dialogue(
        "train_1",
        (
            heard(""),
            old("hi : all ."),
            heard("how much ?"),
            old("$ 5 ."),
            heard("ok ."),
            Message("assistant", "yes .", "reply"),
        ),
        candidates=("no .", "yes .", "so ?", "i 'm off ."),
        answer=1,
    )
    validate(found, "test")


def test_mutual_plus_is_cased_and_untokenised():
    options = ["F: A?", "F: B, I'm F: no.", "F: C", "F: D"]
    found = parse_record(record("M: Hi, Della. F: Only 4 days.", options=options))
    assert found.candidates == ("A?", "B, I'm F: no.", "C", "D")
    said = (heard("Hi, Della."), old("Only 4 days."), heard(""))
    assert found.messages[:-1] == said  # a reply to one's own turn, behind an empty message


@pytest.mark.parametrize("article", ["m ; f : a ? m ; f : b .", "M;F: a ? M;F: b ."])
def test_the_broken_marks_of_four_records_are_read(article):
    found = parse_record(record(article, options=["m : 1", "m : 2", "m : 3", "m : 4"]))
    assert found.messages[:-1] == (heard("a ?"), heard("b ."))


def test_a_withheld_answer_leaves_nothing_to_learn():
    found = parse_record(record("m : hi .", answers=" "))
    assert (found.messages, found.answer) == ((heard("hi ."),), None)
    assert len(found.candidates) == 4


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (record("hi ."), "expected turns and four options"),
        (record("m : hi .", options=OPTIONS[:3]), "expected turns and four options"),
        (record("m : hi .", options=["x"] * 4), "expected turns and four options"),
        (record("m : hi .", answers="E"), "answer 'E' is none of ABCD"),
        ({"article": "m : hi ."}, "options"),
    ],
)
def test_mistakes_are_told(tmp_path, bad, message):
    path = tmp_path / "train_1.txt"
    path.write_text(json.dumps(bad))
    with pytest.raises(UserError, match=rf"train_1\.txt: no record of this corpus: .*{message}"):
        list(mutual.read_files([path]))


def write_release(root: Path, monkeypatch) -> None:
    """A release of one record a split."""
    card = replace(mutual.CARD, counts=dict.fromkeys(mutual.FOLDERS, 1))
    monkeypatch.setattr(mutual, "CARD", card)
    for split, name in mutual.FOLDERS.items():
        folder = root / f"data/mutual/{name}"
        folder.mkdir(parents=True)
        found = record("m : hi .", answers=" " if split == "test" else "A")
        (folder / f"{name}_1.txt").write_text(json.dumps(found | {"id": f"{name}_1"}))


def test_a_release_is_built_and_what_is_absent_is_named(tmp_path, monkeypatch):
    write_release(tmp_path, monkeypatch)
    options = {"path": str(tmp_path)}
    corpus = registry.prepare("mutual", options, tmp_path / "built")
    assert [d.id for source in corpus.splits.values() for d in source] == [
        *("train_1", "dev_1", "test_1")
    ]
    with pytest.raises(
        UserError, match=r"no file data/mutual_plus/train/train_1\.txt; take the fo"
    ):
        registry.prepare("mutual", options | {"set": "mutual_plus"}, tmp_path / "built")
    with pytest.raises(UserError, match=r"data\.options\.set: unknown value 'mutal'; did you mean"):
        registry.prepare("mutual", options | {"set": "mutal"}, tmp_path / "built")


@pytest.mark.slow
@pytest.mark.parametrize("name", mutual.SETS)
def test_the_real_corpus(corpus_dir, tmp_path, name):
    """Counts and the answers' letters; every text is somebody's; test has no answer."""
    options = {"path": str(corpus_dir("mutual")), "set": name}
    corpus = registry.prepare("mutual", options, tmp_path)
    counts = {split: corpus.counts[split]["dialogues"] for split in corpus.splits}
    assert counts == {"train": 7088, "validation": 886, "test": 886}
    train = list(corpus.splits["train"])
    answers = [dialogue.answer for dialogue in train]
    letters = {"mutual": [1769, 1782, 1786, 1751], "mutual_plus": [1819, 1778, 1724, 1767]}
    assert [answers.count(index) for index in range(4)] == letters[name]
    assert all(d.answer is None for d in corpus.splits["test"])
    earlier = [message for d in train for message in d.messages[:-1] if message.channel == "reply"]
    assert {message.weight for message in earlier} == {0.0}
    for dialogue in train:
        assert dialogue.messages[-1].content == dialogue.candidates[dialogue.answer]
        assert dialogue.messages[-2].role == "user"
