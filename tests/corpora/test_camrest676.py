"""CamRest676: a dialogue and a database by hand, the tool, and the real release."""

from __future__ import annotations

import pytest

from dlm.core.errors import UserError
from dlm.corpora import camrest676, registry
from dlm.corpora.camrest676 import Database, parse_dialogue, read_commented
from dlm.dialogue.schema import Dialogue, Message

ROWS = [
    {"name": n, "area": area, "food": food, "pricerange": "cheap", "type": "restaurant", "id": n}
    for n, area, food in (("a", "east", "thai"), ("b", "east", "greek"), ("c", "west", "thai"))
]


def inform(*pairs: list[str]) -> list[dict]:
    return [{"act": "inform", "slots": [pair]} for pair in pairs]


def turn(user: str, slu: list[dict], reply: str, acts: list) -> dict:
    return {"usr": {"transcript": user, "slu": slu}, "sys": {"sent": reply, "DA": acts}}


THAI, ANYWHERE = ["food", "thai"], ["area", "dontcare"]
RECORD = {
    "dialogue_id": 7,
    "finished": True,
    "goal": {"constraints": [["food", "thai"]], "request-slots": ["phone"]},
    "dial": [
        turn("hi", [], "hello", []),
        turn("thai", inform(THAI), "where? ", ["area", ["pricerange, cheap"]]),
        turn("anywhere", inform(ANYWHERE, THAI), "a is thai", []),
        turn(
            "its phone? east",
            [*inform(["slot", "phone"], THAI), {"act": "request", "slots": [["area", "east"]]}],
            "no phone",
            [],
        ),
    ],
}


def said(channel: str, text: str) -> Message:
    return Message("assistant", text, channel)


def found(arguments: dict[str, str], result: str) -> list[Message]:
    call = Message("assistant", channel="call", name="find", arguments=arguments)
    return [call, Message("tool", result, name="find")]


def test_a_dialogue_by_hand():
    """The database is asked when the constraints change, not for "dontcare"; labels put right."""
    thai = [
        "area=east; food=thai; name=a; pricerange=cheap",
        "area=west; food=thai; name=c; pricerange=cheap",
    ]
    assert parse_dialogue(RECORD, Database(ROWS)) == Dialogue(
        "7",
        (
            Message("user", "hi"),
            said("intent", ""),
            said("state", ""),
            said("reply", "hello"),
            Message("user", "thai"),
            said("intent", "inform"),
            said("state", "food=thai"),
            *found({"food": "thai"}, "\n".join(["2 found", *thai])),
            said("act", "request(area); confirm(pricerange=cheap)"),
            said("reply", "where?"),
            Message("user", "anywhere"),
            said("intent", "inform"),
            said("state", "area=dontcare; food=thai"),
            said("reply", "a is thai"),
            Message("user", "its phone? east"),
            said("intent", "inform; request(phone)"),
            said("state", "area=east; food=thai"),
            *found({"area": "east", "food": "thai"}, f"1 found\n{thai[0]}"),
            said("reply", "no phone"),
        ),
        meta={"goal": RECORD["goal"], "finished": True},
    )


def test_no_more_than_five_are_shown():
    rows = [{"name": f"r{i}", "food": "thai", "area": "east"} for i in range(7)]
    lines = Database(rows).find(area="east").split("\n")
    assert lines == ["7 found", *(f"area=east; food=thai; name=r{i}" for i in range(5))]
    assert Database(rows).find(area="west") == "0 found"


def test_comments_stand_before_the_list(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("####\n# (c)\n[1,\n 2]\n")
    assert read_commented(path) == [1, 2]
    path.write_text("####\n[1,\n 2,]\n")
    with pytest.raises(UserError, match=r"x\.json:3:\d: not valid JSON"):
        read_commented(path)
    path.write_text("# c\n{}")
    with pytest.raises(UserError, match=r"x\.json: no list; take the folders"):
        read_commented(path)


def test_mistakes_are_told(tmp_path):
    options = {"path": str(tmp_path)}
    with pytest.raises(UserError, match=r"no file data/CamRest676\.json; take the folders data"):
        registry.prepare("camrest676", options, tmp_path)
    for folder, text in (("data/CamRest676.json", "[{}]"), ("db/CamRest.json", "[]")):
        (tmp_path / folder).parent.mkdir()
        (tmp_path / folder).write_text(text)
    with pytest.raises(UserError, match=r"CamRest676\.json: 1 dialogues; the release has 676"):
        registry.prepare("camrest676", options, tmp_path)
    (tmp_path / "data/CamRest676.json").write_text(f"[{', '.join(['{}'] * 676)}]")
    with pytest.raises(UserError, match="record 0: no record of this corpus: no field 'dial'"):
        registry.prepare("camrest676", options, tmp_path)
    (tmp_path / "data/CamRest676.json").write_text(f"[{', '.join(['1'] * 676)}]")
    with pytest.raises(UserError, match=r"676\.json: record 0: no record of this corpus: 'int'"):
        registry.prepare("camrest676", options, tmp_path)
    (tmp_path / "db/CamRest.json").write_text('[{"area": []}]')
    with pytest.raises(UserError, match=r"CamRest\.json: no record of this corpus: unhashable"):
        registry.prepare("camrest676", options, tmp_path)


def test_the_real_corpus(corpus_dir, tmp_path, monkeypatch):
    """Counts; what the tool says is what stands in the history; restaurants named are found."""
    root = corpus_dir("camrest676")
    built = registry.prepare("camrest676", {"path": str(root)}, tmp_path)
    counts = {s: (c["dialogues"], c["responses"]) for s, c in built.counts.items()}
    assert counts == camrest676.COUNTS
    everything = [d for source in built.splits.values() for d in source]
    assert sum(m.role == "user" for d in everything for m in d.messages) == 2744
    assert sum(d.meta["finished"] for d in everything) == 650
    assert {d.id for d in everything} == {str(i) for i in range(676)}
    monkeypatch.setenv("DLM_DATA_DIR", str(root.parent))
    find = camrest676.world(everything[0]).tools["find"]
    assert len(read_commented(root / "db/CamRest.json")) == 110
    for dialogue in everything[:50]:
        for call, result in zip(dialogue.messages, dialogue.messages[1:], strict=False):
            if call.channel == "call":
                assert find.function(**call.arguments) == result.content
