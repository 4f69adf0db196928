"""API-Bank: a dialogue of each level by hand, and the real files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dlm.core.errors import UserError
from dlm.corpora import api_bank, registry
from dlm.dialogue.schema import Dialogue, Message

ALARM = {
    "name": "AddAlarm",
    "description": "Adds an alarm.",
    "parameters": {
        "type": "object",
        "properties": {"time": {"type": "string", "description": "when"}},
    },
}
TOKEN = {
    "name": "GetToken",
    "description": "A token.",
    "parameters": {"type": "object", "properties": {}},
}
TOOLS = {"AddAlarm": ALARM, "GetToken": TOKEN, "ToolSearcher": api_bank.SEARCHER}


def user(text: str) -> dict[str, Any]:
    return {"role": "User", "text": text}


def ai(text: str) -> dict[str, Any]:
    return {"role": "AI", "text": text}


def api(name: str, arguments: dict[str, Any], output: Any) -> dict[str, Any]:
    result = {"api_name": name, "input": {"other": 1}, "output": output, "exception": None}
    return {"role": "API", "api_name": name, "param_dict": arguments, "result": result}


RECORDS = [
    user("an alarm"),
    ai("Let me see."),
    ai("One moment."),
    api("GetToken", {}, {"token": "é1"}),
    api("AddAlarm", {"time": "2pm"}, "success"),
    ai("Done."),
    user("thanks"),
]


def called(name: str, arguments: dict[str, Any]) -> Message:
    return Message("assistant", channel="call", name=name, arguments=arguments)


def test_a_dialogue_by_hand():
    """What is said before a call is its reason; the tools are those called, sorted."""
    path = Path("level-1-given-desc/Alarm-level-2-1.jsonl")
    path = "lv1-lv2-samples" / path
    assert api_bank.parse_dialogue(RECORDS, path, TOOLS) == Dialogue(
        "level-1-given-desc/Alarm-level-2-1",
        (
            Message("user", "an alarm"),
            Message("assistant", "Let me see.\nOne moment.", "reason"),
            called("GetToken", {}),
            Message("tool", '{"token": "é1"}', name="GetToken"),
            called("AddAlarm", {"time": "2pm"}),
            Message("tool", "success", name="AddAlarm"),
            Message("assistant", "Done.", "reply"),
            Message("user", "thanks"),
        ),
        task="level-2",
        tools=(ALARM, TOKEN),
    )


def test_who_searches_for_tools_is_told_of_no_other():
    path = Path("lv1-lv2-samples/level-2-toolsearcher/Alarm-level-3-1.jsonl")
    found = api_bank.parse_dialogue(RECORDS, path, TOOLS)
    assert (found.task, found.tools) == ("toolsearcher", (api_bank.SEARCHER,))


@pytest.mark.parametrize("mark", ["API Calls:", "- GT API Call:"])
def test_a_request_by_hand(mark):
    """Remarks behind a call are left out, a bare word is a text; results are not published."""
    text = (
        "Scene: x\nFirst Utterence: Wake me.\n\nKey Info:\n\nat 8\n\n"
        f'{mark}\nAddAlarm(time="8 (am)", n=[1, -2], token=a1b): note\n\nGetToken()\n'
    )
    assert api_bank.parse_request(text, "Wake", TOOLS) == Dialogue(
        "lv3-samples/Wake",
        (
            Message("context", "at 8"),
            Message("user", "Wake me."),
            called("AddAlarm", {"time": "8 (am)", "n": [1, -2], "token": "a1b"}),
            Message("tool", "", name="AddAlarm"),
            called("GetToken", {}),
            Message("tool", "", name="GetToken"),
        ),
        task="level-3",
        tools=(ALARM, TOKEN),
    )


def test_descriptions_are_read_not_run():
    """Assignments of literals; what is none of them is refused, what is no Python is empty."""
    given = (
        'description = "Adds an alarm."\n'
        "input_parameters = {'time': {'type': 'datetime', 'description': 'when'}}"
    )
    assert api_bank.parse_tool("AddAlarm", given) == ALARM
    assert api_bank.parse_tool("GetToken", 'description = "A token."\ninput_parameters = None') == (
        TOKEN
    )
    assert api_bank.parse_tool("X", ".\n")["description"] == ""
    with pytest.raises(ValueError, match="malformed node"):
        api_bank.parse_tool("X", 'description = open("x")')


def write(root: Path, name: str, text: str) -> None:
    path = root / "api-bank" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_mistakes_are_told(tmp_path):
    def build() -> registry.Prepared:
        return registry.prepare("api_bank", {"path": str(tmp_path)}, tmp_path / "built")

    with pytest.raises(UserError, match=r"no file api-bank/data/all_apis\.csv; take the folder"):
        build()
    write(tmp_path, "data/all_apis.csv", "类名,api_info\nAddAlarm,.\n")
    name = "lv1-lv2-samples/level-1-given-desc/a-level-1-1.jsonl"
    for text, message in (
        ('{"role": "API"}', r"a-level-1-1\.jsonl: no record of this corpus: no field 'api_name'"),
        ("{", r"a-level-1-1\.jsonl: no record of this corpus: Expecting property name"),
        (json.dumps(api("Fly", {}, 1)), "no field 'Fly'"),
        ("", "0 dialogues with 0 responses, the release has 271 with 1397"),
    ):
        write(tmp_path, name, text)
        with pytest.raises(UserError, match=message):
            build()
    write(tmp_path, "lv3-samples/b.txt", "First Utterance: a Key Info: b\nAPI Call:\nfly")
    with pytest.raises(UserError, match=r"b\.txt: no record of this corpus: substring not found"):
        build()
    write(tmp_path, "data/all_apis.csv", "name,api_info\nAddAlarm,.\n")
    with pytest.raises(UserError, match=r"all_apis\.csv:1: no column '类名'"):
        build()


def test_the_real_corpus(corpus_dir, tmp_path):
    """There is a test split alone; an empty file is no dialogue; every call's tool is shown."""
    options = {"path": str(corpus_dir("api-bank"))}
    built = registry.prepare("api_bank", options, tmp_path)
    assert {s: (c["dialogues"], c["responses"]) for s, c in built.counts.items()} == api_bank.COUNTS
    found = list(built.splits["test"])
    tasks = {task: [d for d in found if d.task == task] for task in {d.task for d in found}}
    assert {task: len(dialogues) for task, dialogues in tasks.items()} == {
        **{"level-1": 127, "level-2": 86, "toolsearcher": 50, "level-3": 8}
    }
    results = sum(m.role == "tool" for d in found if d.task != "level-3" for m in d.messages)
    assert results == 508  # INDEX: API turns
    for dialogue in found:
        names = {tool["name"] for tool in dialogue.tools}
        called = {m.name for m in dialogue.messages if m.channel == "call"}
        assert names == ({"ToolSearcher"} if dialogue.task == "toolsearcher" else called)
