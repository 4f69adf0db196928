"""Schema-Guided Dialogue, both annotations: small releases by hand, and the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dlm.core.errors import UserError
from dlm.corpora import registry, sgd, sgd_head
from dlm.dialogue.schema import Dialogue, Message

BUSES = {
    "service_name": "Buses_1",
    "description": "Bus tickets",
    "slots": [
        {"name": "to", "description": "Where", "is_categorical": False, "possible_values": []},
        {
            "name": "n",
            "description": "Seats",
            "is_categorical": True,
            "possible_values": ["1", "2"],
        },
    ],
    "intents": [
        {
            "name": "Find",
            "description": "Find a bus",
            "required_slots": ["to"],
            "optional_slots": {"n": "1"},
        }
    ],
}
BANKS = {**BUSES, "service_name": "Banks_1", "description": "Money", "intents": []}


def user(text: str, *frames: dict[str, Any]) -> dict[str, Any]:
    return {"speaker": "USER", "utterance": text, "frames": list(frames)}


def frame(service: str, intent: str, values: dict[str, list[str]], *asked: str) -> dict[str, Any]:
    state = {"active_intent": intent, "requested_slots": list(asked), "slot_values": values}
    return {"service": service, "slots": [], "state": state}


def system(text: str, *actions: tuple[str, str, list[str]], **more: Any) -> dict[str, Any]:
    acts = [{"act": act, "slot": slot, "values": values} for act, slot, values in actions]
    frames = [{"service": "Buses_1", "slots": [], "actions": acts, **more}]
    return {"speaker": "SYSTEM", "utterance": text, "frames": frames}


CALL = {"method": "Find", "parameters": {"to": "Rome"}}
RECORD = {
    "dialogue_id": "1_00000",
    "services": ["Banks_1", "Buses_1"],
    "turns": [
        user("to rome or SF?", frame("Buses_1", "Find", {"to": ["Rome", "rome"]}, "price", "n")),
        system(
            "2 found, a or b (c). More?",
            ("OFFER", "name", ["a", "b (c)"]),
            ("OFFER", "n", ["2"]),
            ("REQ_MORE", "", []),
            ("REQUEST", "to", []),
            service_call=CALL,
            service_results=[{"name": "a", "n": "2"}, {"name": "b (c)"}],
        ),
        user(
            "money",
            frame("Buses_1", "NONE", {"to": ["Rome"], "n": ["dontcare"]}),
            frame("Banks_1", "Find", {}),
        ),
        system("sorry", ("GOODBYE", "", []), service_call=CALL, service_results=[]),
    ],
}


def said(channel: str, text: str, **more: Any) -> Message:
    return Message("assistant", text, channel, **more)


def called(result: str) -> list[Message]:
    call = Message("assistant", channel="call", name="Buses_1.Find", arguments={"to": "Rome"})
    return [call, Message("tool", result, name="Buses_1.Find")]


def messages(*, calls: bool) -> tuple[Message, ...]:
    """What RECORD is, with or without its service calls."""
    first, second = "n=2; name=a\nname=b (c)", "no result"
    return (
        Message("user", "to rome or SF?"),
        said("intent", "Buses_1.Find; request(Buses_1.n, Buses_1.price)"),
        said("state", "Buses_1.to=Rome", meta={"values": {"Buses_1.to": ["Rome", "rome"]}}),
        *(called(first) if calls else []),
        said("act", r"offer(name=a, name=b \(c\), n=2); req_more; request(to)"),
        said("reply", "2 found, a or b (c). More?"),
        Message("user", "money"),
        said("intent", "Buses_1.NONE; Banks_1.Find"),
        said("state", "Buses_1.n=dontcare; Buses_1.to=Rome"),
        *(called(second) if calls else []),
        said("act", "goodbye"),
        said("reply", "sorry"),
    )


def without_calls() -> dict[str, Any]:
    """RECORD as the first annotation has it."""
    record = json.loads(json.dumps(RECORD))
    for turn in record["turns"]:
        for part in turn["frames"]:
            part.pop("service_call", None)
            part.pop("service_results", None)
    return record


def write(root: Path, record: dict[str, Any], names: dict[str, list[int]]) -> None:
    for folder, numbers in names.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        services = [BUSES] if folder == "train" else [BUSES, BANKS]
        (root / folder / "schema.json").write_text(json.dumps(services))
        for number in numbers:
            one = {**record, "dialogue_id": f"{number}_00000"}
            if folder == "train":
                one["services"] = ["Buses_1"]
            (root / folder / f"dialogues_{number:03}.json").write_text(json.dumps([one]))


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A release of 2, 1 and 1 files of one dialogue, its test split unlabelled."""
    write(tmp_path, without_calls(), {"train": [1, 2], "dev": [1]})
    blank = without_calls()
    for turn in blank["turns"]:
        turn["frames"] = [
            {**part, "state": {**part["state"], "active_intent": "", "slot_values": {}}}
            if turn["speaker"] == "USER"
            else part
            for part in turn["frames"]
        ]
    write(tmp_path, blank, {"test": [1]})
    monkeypatch.setattr(sgd, "FILES", {"train": 2, "validation": 1, "test": 1})
    monkeypatch.setattr(sgd, "COUNTS", {"train": (2, 4), "validation": (1, 2), "test": (1, 2)})
    return tmp_path


def build(name: str, folder: Path, **options: Any) -> registry.Prepared:
    return registry.prepare(name, {"path": str(folder), **options}, folder / "built")


def test_a_dialogue_by_hand(small):
    """Slots behind their service, requests sorted, the first of several spellings; unseen told."""
    built = build("sgd", small, schema=False)
    assert list(built.splits["validation"]) == [
        Dialogue(
            "1_00000",
            messages(calls=False),
            task="multi",
            meta={"services": ["Banks_1", "Buses_1"], "unseen": ["Banks_1"]},
        )
    ]
    assert [d.id for d in built.splits["train"]] == ["1_00000", "2_00000"]
    assert built.splits["train"][0].meta == {"services": ["Buses_1"], "unseen": []}
    assert built.splits["train"][0].task == "single"


def test_the_schema_is_context(small):
    context = build("sgd", small).splits["train"][0].messages[0]
    lines = ("Buses_1: Bus tickets", "Find(to, n=1): Find a bus", "to: Where", "n: Seats (1, 2)")
    assert context == Message("context", "\n".join(lines))


def test_an_unlabelled_turn_has_no_state(small):
    """The test split is published without intents and states: none is made up."""
    [dialogue] = build("sgd", small, schema=False).splits["test"]
    assert [m.channel for m in dialogue.messages] == [None, "act", "reply"] * 2


def test_service_calls_by_hand(tmp_path, monkeypatch):
    """Calls before acts, results a line each; the intents are tools in place of the context."""
    write(tmp_path, RECORD, {"train": [7], "dev": [9], "test": [4]})
    counts = {"train": (1, 1, 4), "validation": (1, 1, 4), "test": (1, 1, 4)}
    monkeypatch.setattr(sgd_head, "SNAPSHOT", counts)
    [dialogue] = build("sgd_head", tmp_path).splits["test"]
    assert dialogue.messages == messages(calls=True)
    properties = {
        "to": {"type": "string", "description": "Where"},
        "n": {"type": "string", "description": "Seats", "enum": ["1", "2"]},
    }
    parameters = {"type": "object", "properties": properties, "required": ["to"]}
    tool = {"name": "Buses_1.Find", "description": "Find a bus", "parameters": parameters}
    assert dialogue.tools == (tool,)
    assert build("sgd_head", tmp_path, schema=False).splits["test"][0].tools == ()
    (tmp_path / "dev/dialogues_010.json").write_text("[]")
    with pytest.raises(UserError, match="nor 96, 17, 24: train 1, validation 2, test 1; take"):
        build("sgd_head", tmp_path)


def test_mistakes_are_told(small):
    path = small / "dev/dialogues_001.json"
    for text, message in (
        ('[{"services": []}]', r"dialogues_001\.json: dialogue 0: .* no field 'turns'"),
        ('[{"services": ["X"], "turns": []}]', "no field 'X'"),
        ("[]", "dev: 0 dialogues with 0 responses, the release has 1 with 2"),
        ("[", r"dialogues_001\.json:1:2: not valid JSON"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            build("sgd", small)
    path.unlink()
    with pytest.raises(UserError, match=r"no file dev/dialogues_001\.json; take the GitHub repo"):
        build("sgd", small)
    (small / "train/schema.json").unlink()
    with pytest.raises(UserError, match=r"no file train/schema\.json; take the GitHub repo"):
        build("sgd_head", small)


@pytest.mark.parametrize("name", ["sgd", "sgd_head"])
def test_real_files(corpus_dir, name):
    """A file of each split reads; states and calls are where the annotation has them."""
    module, folder = {
        "sgd": (sgd, "sgd"),
        "sgd_head": (sgd_head, "sgd-head-partial"),
    }[name]
    root = corpus_dir(folder)
    for split, published in sgd.SPLITS.items():
        path = root / published / "dialogues_001.json"

        def read(*args: Any) -> Dialogue:
            return module.parse_dialogue(*args, schema=True)

        found = list(sgd.read_dialogues(root, [path], split, read=read))
        channels = {m.channel for d in found for m in d.messages}
        assert ("state" in channels) == (name == "sgd_head" or split != "test")
        assert ("call" in channels) == bool(found[0].tools) == (name == "sgd_head")
        assert len(found) == len(json.loads(path.read_text()))


@pytest.mark.slow
def test_the_real_corpus(corpus_dir, tmp_path):
    """Published counts (prepare asserts them), and services that training never sees.

    The newest annotation is read by the same code and takes minutes more.
    """
    options = {"path": str(corpus_dir("sgd")), "schema": False}
    built = registry.prepare("sgd", options, tmp_path)
    sizes = {split: counts["dialogues"] for split, counts in built.counts.items()}
    assert sizes == registry.cards()["sgd"].counts
    for split, unseen in (("train", 0), ("validation", 8), ("test", 15)):
        assert len({s for d in built.splits[split] for s in d.meta["unseen"]}) == unseen
