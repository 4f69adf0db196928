"""Restaurants-8k: records by hand, the ladder's options, and the real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.corpora import registry, restaurants8k
from dlm.corpora.restaurants8k import parse_message
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.slots import parse_state

RECORD = {
    "userInput": {"text": "6 people, I am Kim"},
    "context": {"requestedSlots": ["people", "time"]},
    "labels": [
        {"slot": "people", "valueSpan": {"endIndex": 8}},
        {"slot": "last_name", "valueSpan": {"startIndex": 15, "endIndex": 18}},
    ],
}
BARE = {"userInput": {"text": "hello"}}


def test_a_message_by_hand():
    """A span without `startIndex` begins the message; slots are sorted; spans are kept."""
    assert parse_message(RECORD, "x") == Dialogue(
        "x",
        (
            Message("context", "requested: people, time"),
            Message("user", "6 people, I am Kim"),
            Message("assistant", "last_name=Kim; people=6 people", "state"),
        ),
        meta={"spans": {"people": [0, 8], "last_name": [15, 18]}},
    )
    said = (Message("user", "hello"), Message("assistant", "", "state"))
    assert parse_message(BARE, "y") == Dialogue("y", said, meta={"spans": {}})


def test_mistakes_are_told(tmp_path, monkeypatch):
    def build(**options) -> registry.Prepared:
        options = {"path": str(tmp_path), "train": 8, **options}
        return registry.prepare("restaurants8k", options, tmp_path / "built")

    def write(name: str, records: object) -> None:
        path = tmp_path / "span_extraction/restaurant8k" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(records))

    with pytest.raises(UserError, match="subset='x' is none of: restaurant8k, dstc8/Buses_1"):
        build(subset="x")
    with pytest.raises(UserError, match="train=6 is no file of dstc8/Homes_1; use 0 to 5"):
        build(subset="dstc8/Homes_1", train=6)
    with pytest.raises(UserError, match=r"no file .*/train_8\.json; take the folder span_extracti"):
        build()
    write("test.json", [])
    wrong = {**BARE, "labels": [{"slot": "people", "valueSpan": {"startIndex": 1}}]}
    write("train_8.json", [BARE, wrong])
    with pytest.raises(UserError, match=r"train_8\.json: record 1: .* no field 'endIndex'"):
        build()
    write("train_8.json", [BARE, {"userInput": {"text": {}}}])
    with pytest.raises(UserError, match=r"train_8\.json: record 1: .* userInput\.text is an obj"):
        build()
    write("train_8.json", [BARE])
    with pytest.raises(UserError, match="1 dialogues with 1 responses, the release has 32 with 32"):
        build()
    write("train_8.json", {})
    with pytest.raises(UserError, match=r"train_8\.json: no list of records"):
        build()


@pytest.mark.parametrize(("subset", "sizes"), restaurants8k.COUNTS.items())
def test_the_real_files(corpus_dir, subset, sizes):
    """Every file has its size; what the state says stands in the message where meta says it."""
    root: Path = corpus_dir("restaurants8k") / "span_extraction" / subset
    names = [*(f"train_{k}.json" for k in range(len(sizes[0]))), "test.json"]
    for name, size in zip(names, (*sizes[0], sizes[1]), strict=True):
        found = list(restaurants8k.read_messages(root / name, "x", size))
        assert len(found) == size
        for dialogue in found:
            *_, user, state = dialogue.messages
            spans = dialogue.meta["spans"]
            cut = {slot: user.content[start:end].strip() for slot, (start, end) in spans.items()}
            assert parse_state(state.content) == cut


def test_the_real_corpus(corpus_dir, tmp_path):
    options = {"path": str(corpus_dir("restaurants8k"))}
    built = registry.prepare("restaurants8k", options, tmp_path)
    sizes = {split: counts["dialogues"] for split, counts in built.counts.items()}
    assert sizes == restaurants8k.CARD.counts == {"train": 7404, "validation": 794, "test": 3731}
    labelled = sum(bool(d.meta["spans"]) for s in ("train", "validation") for d in built.splits[s])
    assert labelled == 5223
