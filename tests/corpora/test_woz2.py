"""WOZ 2.0: a dialogue by hand, and the real files in three languages."""

from __future__ import annotations

import json

import pytest

from dlm.core.errors import UserError
from dlm.corpora import registry, woz2
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.slots import parse_acts, parse_state

TURNS = [
    {
        "system_transcript": "",
        "system_acts": [],
        "transcript": "Cheap food?",
        "turn_label": [["price range", "cheap"]],
        "belief_state": [{"act": "inform", "slots": [["price range", "cheap"]]}],
    },
    {
        "system_transcript": "Is the centre fine? Which food? ",
        "system_acts": ["food", ["area", "centre"]],
        "transcript": "Any. The phone and address?",
        "turn_label": [["request", "phone"], ["food", "dontcare"], ["request", "address"]],
        "belief_state": [
            {"act": "request", "slots": [["slot", "phone"]]},
            {"act": "request", "slots": [["slot", "address"]]},
            {"act": "inform", "slots": [["price range", "cheap"]]},
            {"act": "inform", "slots": [["food", "dontcare"]]},
        ],
    },
    {
        "system_transcript": "It is 1234.",
        "system_acts": [],
        "transcript": "And the postcode?",
        "turn_label": [["request", "postcode"]],
        "belief_state": [{"act": "inform", "slots": [["food", "dontcare"]]}],
    },
    {
        "system_transcript": "CB1.",
        "system_acts": [],
        "transcript": "Bye",
        "turn_label": [],
        "belief_state": [],
    },
]


def said(channel: str, text: str) -> Message:
    return Message("assistant", text, channel)


def test_a_dialogue_by_hand():
    """The system's half of a turn ends the round before; requests are sorted, and no state."""
    assert woz2.parse_dialogue(TURNS, "x") == Dialogue(
        "x",
        (
            Message("user", "Cheap food?"),
            said("intent", "inform"),
            said("state", "price range=cheap"),
            said("act", "request(food); confirm(area=centre)"),
            said("reply", "Is the centre fine? Which food?"),
            Message("user", "Any. The phone and address?"),
            said("intent", "inform; request(address, phone)"),
            said("state", "food=dontcare; price range=cheap"),
            said("reply", "It is 1234."),
            Message("user", "And the postcode?"),
            said("intent", "request(postcode)"),
            said("state", "food=dontcare"),
            said("reply", "CB1."),
            Message("user", "Bye"),
            said("intent", ""),
            said("state", ""),
        ),
    )


def test_mistakes_are_told(tmp_path):
    options = {"path": str(tmp_path)}
    with pytest.raises(UserError, match="language='fr' is none of: en, de, it"):
        registry.prepare("woz2", {"language": "fr"}, tmp_path)
    with pytest.raises(UserError, match=r"no file data/woz/woz_train_en\.json; take the folder"):
        registry.prepare("woz2", options, tmp_path)
    with pytest.raises(UserError, match=r"no file data/woz/woz_train_it_en\.json"):
        registry.prepare("woz2", {**options, "language": "it_en"}, tmp_path)
    (tmp_path / "data/woz").mkdir(parents=True)
    for name in ("train", "validate", "test"):
        record = [{"dialogue": TURNS}, {"dialogue": [{"system_transcript": ""}]}]
        (tmp_path / f"data/woz/woz_{name}_en.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"woz_train_en\.json: dialogue 1: .*no field 'transcript'"):
        registry.prepare("woz2", options, tmp_path)


@pytest.mark.parametrize("language", woz2.LANGUAGES)
def test_the_real_files(corpus_dir, language):
    """Published counts (the reader asserts them), and what INDEX.md counts of the labels."""
    root = corpus_dir("woz2") / "data/woz"
    found = list(woz2.read_dialogues(root / f"woz_train_{language}.json", "train"))
    for split, name in woz2.SPLITS.items():
        read = list(woz2.read_dialogues(root / f"woz_{name}_{language}.json", split))
        assert len(read) == woz2.COUNTS[split][0]
        for message in (m for dialogue in read for m in dialogue.messages):
            if message.channel == "state":
                assert "slot" not in parse_state(message.content)
    intents = [m.content for d in found for m in d.messages if m.channel == "intent"]
    acts = [act for line in intents for act in parse_acts(line)]
    assert sum(len(act.slots) for act in acts if act.name == "request") == 1256
    assert intents.count("") == 813


@pytest.mark.parametrize("language", ["de", "it"])
def test_english_labels_of_translated_messages(corpus_dir, language):
    """Messages are the translation's, but for a full stop; states the English ones, but for two."""
    root = corpus_dir("woz2") / "data/woz"

    def read(name: str, channel: str | None) -> list[str]:
        dialogues = woz2.read_dialogues(root / f"woz_test_{name}.json", "test")
        return [m.content for d in dialogues for m in d.messages if m.channel == channel]

    def differing(channel: str | None, name: str) -> int:
        pairs = zip(read(f"{language}_en", channel), read(name, channel), strict=True)
        return sum(one != other for one, other in pairs)

    assert differing(None, language) <= 1
    assert differing("state", "en") == 2
    assert differing("state", language) == 1646


def test_the_real_corpus(corpus_dir, tmp_path):
    built = registry.prepare("woz2", {"path": str(corpus_dir("woz2"))}, tmp_path)
    counts = {s: (c["dialogues"], c["responses"]) for s, c in built.counts.items()}
    assert counts == {"train": (600, 2536), "validation": (200, 830), "test": (400, 1646)}
