"""LLaMA-Factory's demos: records in the published formats by hand, and the real sets if present."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.corpora import llamafactory_demo, registry, splits
from dlm.corpora.llamafactory_demo import FILES, read_file
from dlm.dialogue.schema import Dialogue, Message

TOOL = {"name": "find", "description": "finds", "parameters": {"type": "object"}}
TOOLCALL = {
    "conversations": [
        {"from": "human", "value": "Find tea."},
        {"from": "function_call", "value": '{"name": "find", "arguments": {"what": ["tea"]}}'},
        {"from": "observation", "value": '{"found": 2}'},
        {"from": "gpt", "value": "Two."},
    ],
    "tools": json.dumps([TOOL]),
}
DPO = {
    "conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Hi"}],
    "chosen": {"from": "gpt", "value": "Hi."},
    "rejected": {"from": "gpt", "value": "Hello, my dear friend."},
}
KTO = {
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No."}],
    "label": False,
}


@pytest.fixture
def one(monkeypatch) -> None:
    """Files of one record."""
    monkeypatch.setattr(llamafactory_demo, "COUNT", 1)


def write(path: Path, *records: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records))
    return path


def test_a_tool_call_by_hand(tmp_path, one):
    path = write(tmp_path / "a.json", TOOLCALL)
    assert list(read_file(path, "toolcall")) == [
        Dialogue(
            "0",
            (
                Message("user", "Find tea."),
                Message("assistant", "", "call", "find", {"what": ["tea"]}),
                Message("tool", '{"found": 2}'),
                Message("assistant", "Two.", "reply"),
            ),
            tools=(TOOL,),
        )
    ]
    path = write(tmp_path / "a.json", TOOLCALL | {"tools": "[]"})
    assert next(read_file(path, "toolcall")).tools == ()


def test_preferences_by_hand(tmp_path, one):
    history = (Message("system", "Be brief."), Message("user", "Hi"))
    chosen, rejected = (
        (Message("assistant", text, "reply"),) for text in ("Hi.", "Hello, my dear friend.")
    )
    assert list(read_file(write(tmp_path / "a.json", DPO), "dpo")) == [
        Dialogue("0", history, chosen=chosen, rejected=rejected)
    ]
    said = (Message("user", "Hi"), Message("assistant", "No.", "reply"))
    assert list(read_file(write(tmp_path / "a.json", KTO), "kto")) == [
        Dialogue("0", said, label=False)
    ]


@pytest.mark.parametrize(
    ("chosen", "records", "message"),
    [
        ("toolcall", [KTO], r"a\.json: record 0: conversations: missing"),
        ("kto", [DPO], r"a\.json: record 0: messages: missing"),
        ("toolcall", [{**TOOLCALL, "tools": "x"}], "record 0: tools: expected JSON in the string"),
        ("dpo", [DPO, DPO], "2 records; the release has 1 records"),
    ],
)
def test_mistakes_are_told(tmp_path, one, chosen, records, message):
    with pytest.raises(UserError, match=message):
        list(read_file(write(tmp_path / "a.json", *records), chosen))


def test_a_conversation_without_a_user_falls_on_one_side_too(tmp_path, one):
    """It is on that of the empty text."""
    alone = {"conversations": [{"from": "gpt", "value": "Hello."}]}
    write(tmp_path / "data/glaive_toolcall_en_demo.json", alone)
    split = splits.split_of("")
    with pytest.raises(UserError, match="no dialogue for the split") as caught:
        registry.prepare("llamafactory_demo", {"path": str(tmp_path)}, tmp_path / "built")
    assert f"'{split}'" not in str(caught.value)


def test_what_is_absent_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no file data/dpo_en_demo\.json; take the folder data"):
        registry.prepare("llamafactory_demo", {"path": str(tmp_path), "set": "dpo"}, tmp_path)
    with pytest.raises(UserError, match=r"data\.options\.set: unknown value 'ktp'; did you mean"):
        registry.prepare("llamafactory_demo", {"set": "ktp"}, tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_the_real_sets(corpus_dir, tmp_path, name):
    """Counts; what is asked first is on one side."""
    options = {"path": str(corpus_dir("llamafactory-demo")), "set": name}
    corpus = registry.prepare("llamafactory_demo", options, tmp_path)
    counts = {split: corpus.counts[split]["dialogues"] for split in corpus.splits}
    wanted = {"toolcall": (240, 24, 36), "dpo": (237, 39, 24), "kto": (243, 27, 30)}
    assert tuple(counts.values()) == wanted[name]
    every = [dialogue for source in corpus.splits.values() for dialogue in source]
    if name == "toolcall":
        roles = Counter(m.channel or m.role for d in every for m in d.messages)
        assert roles == {"user": 746, "reply": 746, "call": 211, "tool": 211}
        assert sum(bool(dialogue.tools) for dialogue in every) == 191
    elif name == "dpo":
        assert all(d.chosen and d.rejected and d.messages[-1].role == "user" for d in every)
    else:
        assert Counter(dialogue.label for dialogue in every) == {True: 150, False: 150}
    asked = [
        {next(m.content for m in d.messages if m.role == "user") for d in source}
        for source in corpus.splits.values()
    ]
    assert len(set.union(*asked)) == sum(map(len, asked))
