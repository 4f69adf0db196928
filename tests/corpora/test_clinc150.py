"""CLINC150: a small release by hand, and the real one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.corpora import clinc150, registry
from dlm.dialogue.schema import Dialogue, Message

RELEASE = {
    "train": [["is it cold", "weather"], ["wire 5 to ann", "transfer"]],
    "oos_train": [["who are they", "oos"]],
    "val": [["is it hot", "weather"]],
    "oos_val": [["sing", "oos"]],
    "test": [["rain today", "weather"]],
    "oos_test": [["dance", "oos"]],
}


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    write(tmp_path / "data/data_small.json", RELEASE)
    counts = {"train": 3, "validation": 2, "test": 2}
    monkeypatch.setitem(clinc150.COUNTS, "small", counts)
    return tmp_path


def write(path: Path, record: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


def build(folder: Path, variant: str = "small") -> registry.Prepared:
    options = {"variant": variant, "path": str(folder)}
    return registry.prepare("clinc150", options, folder / "built")


def query(id: str, text: str, intent: str, task: str) -> Dialogue:
    messages = (Message("user", text), Message("assistant", intent, "intent"))
    return Dialogue(id, messages, task=task)


def test_queries_by_hand(small):
    """Those out of scope stand behind the others, under a task and ids of their own."""
    assert list(build(small).splits["train"]) == [
        query("train-0", "is it cold", "weather", "in_scope"),
        query("train-1", "wire 5 to ann", "transfer", "in_scope"),
        query("train-oos-0", "who are they", "oos", "out_of_scope"),
    ]


def test_mistakes_are_told(small):
    with pytest.raises(UserError, match="variant='big' is none of: full, small, imbalanced, oos_p"):
        build(small, "big")
    with pytest.raises(
        UserError, match=r"no file data/data_full\.json; take the GitHub repository"
    ):
        build(small, "full")
    for change, message in (
        ({"val": [["a"]]}, "data_small.json: val: no record of this corpus: not enough values"),
        ({"test": []}, "1 dialogues with 1 responses, the release has 2 with 2"),
    ):
        write(small / "data/data_small.json", RELEASE | change)
        with pytest.raises(UserError, match=message):
            build(small)
    record = {name: part for name, part in RELEASE.items() if name != "oos_val"}
    write(small / "data/data_small.json", record)
    with pytest.raises(UserError, match="oos_val: no record of this corpus: no field 'oos_val'"):
        build(small)


def test_the_real_corpus(corpus_dir, tmp_path):
    """150 intents and `oos`; sizes of each variant; two test queries stand in train (INDEX)."""
    root = corpus_dir("clinc150")
    for variant, counts in clinc150.COUNTS.items():
        path = root / f"data/data_{variant}.json"
        read = {s: list(clinc150.read_queries(path, s)) for s in clinc150.SPLITS}
        assert {split: len(found) for split, found in read.items()} == counts
        intents = {d.messages[1].content for d in read["test"] if d.task == "in_scope"}
        assert len(intents) == 150
        assert "oos" not in intents
        assert {d.messages[1].content for d in read["test"] if d.task == "out_of_scope"} == {"oos"}
    options = {"variant": "full", "path": str(root)}
    built = registry.prepare("clinc150", options, tmp_path)
    assert {split: c["responses"] for split, c in built.counts.items()} == clinc150.COUNTS["full"]
    texts = {s: {d.messages[0].content for d in built.splits[s]} for s in ("train", "test")}
    assert len(texts["train"] & texts["test"]) == 2
