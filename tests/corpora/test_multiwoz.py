"""MultiWOZ: 2.1, 2.2 and text by hand, and the real files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dlm.core.errors import UserError
from dlm.corpora import multiwoz, registry
from dlm.dialogue.schema import Dialogue, Message

UNSET = {"semi": {"area": "", "stars": "not mentioned"}, "book": {"booked": [], "day": ""}}
HOTEL = {
    "semi": {"area": "dontcare", "stars": "none", "name": "a|b"},
    "book": {"booked": [{"name": "a"}], "day": "monday"},
}
LOG = [
    {
        "text": "A hotel , any area .",
        "metadata": {},
        "dialog_act": {"Hotel-Inform": [["Area", "dontcare"]], "Hotel-Request": [["Ref", "?"]]},
    },
    {
        "text": "Which price ?",
        "metadata": {"hotel": HOTEL, "taxi": UNSET},
        "dialog_act": {
            "Hotel-Request": [["Price", "?"]],
            "Hotel-Inform": [["Parking", "none"], ["Name", "a (b)"]],
            "general-reqmore": [["none", "none"]],
        },
    },
    {"text": "thanks", "metadata": {}, "dialog_act": {}},
    {"text": "bye", "metadata": {"hotel": UNSET}, "dialog_act": {}},
]
RECORD_22 = {
    "dialogue_id": "PMUL0.json",
    "services": ["hotel"],
    "turns": [
        {
            "turn_id": "0",
            "speaker": "USER",
            "utterance": "a cheap hotel, its phone?",
            "frames": [
                {
                    "service": "hotel",
                    "slots": [],
                    "state": {
                        "active_intent": "find_hotel",
                        "requested_slots": ["hotel-phone"],
                        "slot_values": {"hotel-pricerange": ["cheap", "inexpensive"]},
                    },
                },
                {
                    "service": "taxi",
                    "slots": [],
                    "state": {"active_intent": "NONE", "requested_slots": [], "slot_values": {}},
                },
            ],
        },
        {"turn_id": "1", "speaker": "SYSTEM", "utterance": "a, 123", "frames": []},
        {"turn_id": "2", "speaker": "USER", "utterance": "bye", "frames": []},
        {"turn_id": "3", "speaker": "SYSTEM", "utterance": "bye", "frames": []},
    ],
}
ACTS_22 = {"PMUL0.json": {"1": {"dialog_act": {"Hotel-Inform": [["phone", "123"]]}}}}


def said(channel: str, text: str, **more: Any) -> Message:
    return Message("assistant", text, channel, **more)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def build(folder: Path, **options: Any) -> registry.Prepared:
    return registry.prepare("multiwoz", {"path": str(folder), **options}, folder / "built")


def test_version_21_by_hand(tmp_path):
    """Unset slots are not in the state, "none" and "dontcare" stay; the first of several values."""
    write(tmp_path / "val.json", json.dumps({"PMUL1": {"goal": {"hotel": {}}, "log": LOG}}))
    values = {"values": {"hotel-name": ["a", "b"]}}
    state = "hotel-area=dontcare; hotel-book day=monday; hotel-name=a; hotel-stars=none"
    acts = r"hotel-request(price); hotel-inform(parking=none, name=a \(b\)); general-reqmore"
    assert list(multiwoz.read_21(tmp_path / "val.json")) == [
        Dialogue(
            "PMUL1",
            (
                Message("user", "A hotel , any area ."),
                said("intent", "hotel-inform; hotel-request(ref)"),
                said("state", state, meta=values),
                said("act", acts),
                said("reply", "Which price ?"),
                Message("user", "thanks"),
                said("intent", ""),
                said("state", ""),
                said("reply", "bye"),
            ),
            meta={"goal": {"hotel": {}}},
        )
    ]


def test_version_22_by_hand(tmp_path, monkeypatch):
    """Frames as SGD's, but names say their domain and NONE is none; acts stand beside them."""
    root = tmp_path / multiwoz.V22
    for split in ("train", "dev", "test"):
        write(root / split / "dialogues_001.json", json.dumps([RECORD_22]))
    files = {
        split: [f"{multiwoz.V22}/{name}/dialogues_001.json"]
        for split, name in multiwoz.NAMES.items()
    }
    monkeypatch.setitem(multiwoz.FILES, "2.2", files)
    monkeypatch.setitem(multiwoz.COUNTS, "2.2", dict.fromkeys(files, (1, 2)))
    with pytest.raises(UserError, match=r"no file .*2/dialog_acts\.json; 2\.1: val\.json"):
        build(tmp_path, version="2.2")
    write(root / "dialog_acts.json", json.dumps(ACTS_22))
    built = build(tmp_path, version="2.2")
    values = {"values": {"hotel-pricerange": ["cheap", "inexpensive"]}}
    assert list(built.splits["train"]) == [
        Dialogue(
            "PMUL0.json",
            (
                Message("user", "a cheap hotel, its phone?"),
                said("intent", "find_hotel; request(hotel-phone)"),
                said("state", "hotel-pricerange=cheap", meta=values),
                said("act", "hotel-inform(phone=123)"),
                said("reply", "a, 123"),
                Message("user", "bye"),
                said("reply", "bye"),
            ),
            meta={"services": ["hotel"]},
        )
    ]


def test_text_by_hand(tmp_path):
    """Two empty lines between dialogues; brackets round names are taken off."""
    write(tmp_path / "1.txt", "Is [the Ely] far?\nNo.\nok [a [b]]\nBye\n\n\nhi\nhello\n")
    write(tmp_path / "2.txt", "x\ny\n")
    paths = [tmp_path / "1.txt", tmp_path / "2.txt"]
    found = list(multiwoz.read_text(paths, "dev"))
    assert [d.id for d in found] == ["dev-0", "dev-1", "dev-2"]
    texts = [[m.content for m in d.messages] for d in found]
    assert texts == [["Is the Ely far?", "No.", "ok a b", "Bye"], ["hi", "hello"], ["x", "y"]]
    assert [m.role for m in found[0].messages] == ["user", "assistant"] * 2


def test_mistakes_are_told(tmp_path):
    with pytest.raises(UserError, match=r"version='2.0' is none of: 2\.1, 2\.2, text"):
        build(tmp_path, version="2.0")
    with pytest.raises(UserError, match=r"no file multiwoz/val\.json; 2\.1: val\.json and test"):
        build(tmp_path, version="2.1")
    path = tmp_path / "multiwoz/val.json"
    write(tmp_path / "multiwoz/test.json", "{}")
    for record, message in (
        ({"A": {"goal": {}, "log": LOG[:3]}}, r"val\.json: dialogue A: .*zip\(\)"),
        ({"A": {"goal": {}}}, r"val\.json: dialogue A: .* no field 'log'"),
        ({}, "0 dialogues with 0 responses, the release has 999 with 7365"),
    ):
        write(path, json.dumps(record))
        with pytest.raises(UserError, match=message):
            build(tmp_path, version="2.1")
    write(path, "[]")
    with pytest.raises(UserError, match=r"val\.json: no record of this corpus: 'list' object has"):
        build(tmp_path, version="2.1")
    write(tmp_path / "odd.txt", "a\nb\nc\n")
    with pytest.raises(UserError, match=r"odd\.txt: dialogue 0: .*zip\(\)"):
        list(multiwoz.read_text([tmp_path / "odd.txt"], "dev"))


@pytest.mark.slow
def test_the_real_corpus(corpus_dir, tmp_path):
    """Published counts of what is there; the text of 2.1 is that of the text files (INDEX)."""
    options = {"path": str(corpus_dir("multiwoz"))}
    for version in ("2.1", "text"):
        built = registry.prepare("multiwoz", options | {"version": version}, tmp_path)
        counts = {s: (c["dialogues"], c["responses"]) for s, c in built.counts.items()}
        assert counts == multiwoz.COUNTS[version]

    def letters(dialogue: Dialogue) -> str:
        texts = [m.content for m in dialogue.messages if m.channel in (None, "reply")]
        return "".join(filter(str.isalnum, "".join(texts).lower()))

    annotated = registry.prepare("multiwoz", options | {"version": "2.1"}, tmp_path)
    known = {letters(dialogue) for dialogue in built.splits["test"]}
    assert sum(letters(dialogue) in known for dialogue in annotated.splits["test"]) == 996
