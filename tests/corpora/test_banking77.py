"""BANKING77: a small release by hand, and the real one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.corpora import banking77, registry
from dlm.dialogue.schema import Dialogue, Message

TRAIN = (
    'text,category\r\nIs it here?,card_arrival\r\n"two\nlines, ""so""",Refund_not_showing_up\r\n'
)
TEST = "text,category\r\nWhy?,card_arrival\r\n"


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    write(tmp_path, "train", TRAIN)
    write(tmp_path, "test", TEST)
    monkeypatch.setattr(banking77, "COUNTS", {"train": 2, "test": 1})
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    (folder / "banking_data").mkdir(exist_ok=True)
    (folder / f"banking_data/{name}.csv").write_bytes(text.encode())


def build(folder: Path, **options) -> registry.Prepared:
    return registry.prepare("banking77", {"path": str(folder), **options}, folder / "built")


def test_messages_by_hand(small):
    """A quoted text keeps its line break; a category its capitals."""
    found = list(banking77.read_messages(small / "banking_data/train.csv", "train"))
    assert found == [
        Dialogue(id, (Message("user", text), Message("assistant", intent, "intent")))
        for id, text, intent in (
            ("train-0", "Is it here?", "card_arrival"),
            ("train-1", 'two\nlines, "so"', "Refund_not_showing_up"),
        )
    ]


def test_shots_by_hand(tmp_path, monkeypatch):
    """Two of each intent, or all there are; the draw is of the texts, not of their order."""
    monkeypatch.setattr(banking77, "COUNTS", {"train": 40, "test": 1})
    rows = [f"message {n},{'rare' if n == 0 else 'often'}" for n in range(40)]
    found = []
    for order in (rows, rows[::-1]):
        write(tmp_path, "train", "\r\n".join(["text,category", *order, ""]))
        write(tmp_path, "test", TEST)
        built = build(tmp_path, shots=2, validation_share=0.2)
        drawn = [(d.messages[0].content, d.messages[1].content) for d in built.splits["train"]]
        held_out = {d.messages[0].content for d in built.splits["validation"]}
        assert not held_out & {text for text, _ in drawn}
        found.append((sorted(drawn), held_out))
    assert found[0] == found[1]
    assert sorted(intent for _, intent in found[0][0]) == ["often", "often", "rare"]
    everything = build(tmp_path, validation_share=0.2)
    assert len(everything.splits["train"]) == 40 - len(found[0][1])


def test_mistakes_are_told(small):
    with pytest.raises(UserError, match="shots=-1 is no number of messages; 0 = all"):
        build(small, shots=-1)
    with pytest.raises(UserError, match="validation_share=1"):
        build(small, validation_share=1.0)
    for text, message in (
        ("text,label\r\na,b\r\n", "train.csv:1: no column 'category'; it has text, label"),
        ("text,category\r\na\r\n", "train.csv:2: more or fewer fields than the 2 columns"),
        (TRAIN + "a,b\r\n", "3 dialogues with 3 responses, the release has 2 with 2"),
    ):
        write(small, "train", text)
        with pytest.raises(UserError, match=message):
            build(small, validation_share=0.5)
    (small / "banking_data/test.csv").unlink()
    with pytest.raises(UserError, match=r"no file banking_data/test\.csv; take the folder"):
        build(small)


def test_the_real_corpus(corpus_dir, tmp_path):
    """A tenth is held out, the same whatever the order; 77 intents on each side of it."""
    options = {"path": str(corpus_dir("banking77"))}
    built = registry.prepare("banking77", options, tmp_path)
    sizes = {split: counts["dialogues"] for split, counts in built.counts.items()}
    assert sizes == banking77.CARD.counts == {"train": 9014, "validation": 989, "test": 3080}
    assert all("also_in_train" not in counts for counts in built.counts.values())
    found = {split: list(source) for split, source in built.splits.items()}
    for dialogues in found.values():
        assert len({d.messages[1].content for d in dialogues}) == 77
    ids = {int(d.id.split("-")[1]) for d in found["train"] + found["validation"]}
    assert ids == set(range(10003))
    assert sum("\n" in d.messages[0].content for d in found["train"] + found["validation"]) == 10
    assert sum("\n" in d.messages[0].content for d in found["test"]) == 3
    few = registry.prepare("banking77", {**options, "shots": 10}, tmp_path).splits
    drawn = Counter(d.messages[1].content for d in few["train"])
    assert set(drawn.values()) == {10}
    assert len(drawn) == 77
    assert {d.id for d in few["train"]} < {d.id for d in found["train"]}
    assert [d.id for d in few["validation"]] == [d.id for d in found["validation"]]
