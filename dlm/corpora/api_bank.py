"""API-Bank: assistants that call tools; the evaluation part, so there is a test split alone.

    user     Can you add an alarm at 2pm?
    reason   ...                                     what the assistant says before it calls
    call     AddAlarm(token="...", time="...")
    tool     success                                 the output as JSON, a text as it is
    reply    ...

The tools of a dialogue are those that it calls, sorted, with their published descriptions. `task`
is its level: `level-1` calls what is described, `level-2` plans several calls, `toolsearcher` finds
the tools first by calling `ToolSearcher` (which alone is described), and `level-3` are requests
with the calls that serve them, and what the user knows as `context`; of the results, which are not
published, an empty `tool` message stands behind each call, and nothing is replied.

Calls are compared by name and arguments; the code that executes them is not part of the files.

Source: Li et al.: API-Bank: A Comprehensive Benchmark for Tool-Augmented LLMs, EMNLP 2023,
arXiv:2304.08244; the folder api-bank of the release.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dlm.core.config import parse
from dlm.corpora.published import counted, find_files, reading, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tables import csv_rows, file_text, reader_digest
from dlm.corpora.tfds_store import build
from dlm.dialogue.schema import Dialogue, Message

DESCRIPTIONS = "data/all_apis.csv"
NAME, DESCRIPTION = "类名", "api_info"  # columns of the table
LEVELS = {  # folder -> task of a file whose name holds no level
    "lv1-lv2-samples/level-1-given-desc": "",
    "lv1-lv2-samples/level-2-toolsearcher": "toolsearcher",
    "lv3-samples": "level-3",
}
TYPES = {
    **{"str": "string", "datetime": "string", "int": "integer", "float": "number"},
    **{"list": "array", "List[str]": "array", "object": "object", "dict": "object"},
}
SEARCHER: dict[str, Any] = {
    "name": "ToolSearcher",
    "description": "Finds tools by keywords.",
    "parameters": {
        "type": "object",
        "properties": {"keywords": {"type": "string", "description": "what the tool is to do"}},
        "required": ["keywords"],
    },
}

COUNTS = {"test": (271, 1397)}  # measured on the release: dialogues, responses
CARD = Card(
    task="tools",
    description="API-Bank: assistants that call tools, on three levels; the evaluation part.",
    citation=(
        "Minghao Li et al.: API-Bank: A Comprehensive Benchmark for Tool-Augmented LLMs, EMNLP 2023"
    ),
    licence="Apache-2.0",
    counts={split: dialogues for split, (dialogues, _) in COUNTS.items()},
    folder="api-bank",
    files=(f"api-bank/{DESCRIPTIONS}",),
    remedy=(
        "take the folder api-bank of the GitHub repository AlibabaResearch/DAMO-ConvAI and name "
        "the folder that holds it in data.options.path, or put it at $DLM_DATA_DIR/api-bank"
    ),
    missing="the training split, and the code that executes the calls",
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      path: folder that holds api-bank; empty: `$DLM_DATA_DIR/api-bank`.
    """

    path: str = ""


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens the corpus.

    Raises:
      UserError: a file that is absent or of another shape, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    root = root_of(CARD, config.path)
    [table] = find_files(CARD, root, CARD.files)
    paths = [path for folder in LEVELS for path in sorted((root / "api-bank" / folder).glob("*.*"))]
    return build(
        "api_bank",
        reader_digest(config, root, (table, *paths), sys.modules[__name__]),
        {"test": partial(read_dialogues, paths, table)},
        data_dir,
        card=CARD,
    )


def read_dialogues(paths: Sequence[Path], table: Path) -> Iterator[Dialogue]:
    """The dialogues of files, one each; an empty file is none. Ids are the files' names.

    Raises:
      UserError: a record of another shape, with its file; other counts than published.
    """
    return counted(_read(paths, read_tools(table)), COUNTS["test"], table.parent.parent, CARD)


def _read(paths: Sequence[Path], tools: Mapping[str, Mapping[str, Any]]) -> Iterator[Dialogue]:
    for path in paths:
        text = file_text(path)
        if not text.strip():
            continue
        with reading(path, CARD):
            if path.suffix == ".txt":
                dialogue = parse_request(text, path.stem, tools)
            else:
                records = [json.loads(line) for line in text.splitlines() if line.strip()]
                dialogue = parse_dialogue(records, path, tools)
        yield dialogue


def read_tools(table: Path) -> dict[str, dict[str, Any]]:
    """The described tools by name; what the table has no readable description of takes anything.

    Raises:
      UserError: the table has other columns.
    """
    tools = {SEARCHER["name"]: SEARCHER}
    for where, row in csv_rows(table, (NAME, DESCRIPTION)):
        with reading(where, CARD):
            tools[row[NAME]] = parse_tool(row[NAME], row[DESCRIPTION])
    return tools


def parse_tool(name: str, text: str) -> dict[str, Any]:
    """A tool from its published description, which assigns Python literals to names.

    One is `input_parameters = {"time": {"type": "str", "description": "..."}}`.
    """
    try:
        lines = ast.parse(text).body
    except SyntaxError:
        lines = []
    said = {
        line.targets[0].id: ast.literal_eval(line.value)
        for line in lines
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
    }
    given = said.get("input_parameters")
    given = given if isinstance(given, dict) else {}
    properties = {
        parameter: {"type": TYPES[told["type"]], "description": told["description"]}
        for parameter, told in given.items()
    }
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return {"name": name, "description": said.get("description", ""), "parameters": schema}


def parse_dialogue(
    records: Sequence[Mapping[str, Any]], path: Path, tools: Mapping[str, Mapping[str, Any]]
) -> Dialogue:
    """One dialogue: users', assistants' and API records in their order.

    What the assistant says is a `reply`, or where a call follows before the user speaks a `reason`.
    """
    messages: list[Message] = []
    said: list[str] = []  # by the assistant, since the last message
    for record in (*records, None):
        role = record["role"] if record else "User"
        if record and role == "AI":
            said.append(record["text"])
            continue
        if said:
            channel = "reason" if role == "API" else "reply"
            messages.append(Message("assistant", "\n".join(said), channel))
            said = []
        if record and role == "API":
            messages += _call(record)
        elif record:
            messages.append(Message("user", record["text"]))
    task = LEVELS[f"{path.parent.parent.name}/{path.parent.name}"]
    found = re.search(r"level-\d", path.stem)
    return Dialogue(
        f"{path.parent.name}/{path.stem}",
        tuple(messages),
        task=task or (found[0] if found else "level-1"),
        tools=(SEARCHER,) if task else _called(messages, tools),
    )


def _call(record: Mapping[str, Any]) -> list[Message]:
    name, output = record["api_name"], record["result"]["output"]
    text = output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
    return [
        Message("assistant", channel="call", name=name, arguments=record["param_dict"]),
        Message("tool", text, name=name),
    ]


def parse_request(text: str, name: str, tools: Mapping[str, Mapping[str, Any]]) -> Dialogue:
    """A request of level 3: the first utterance, what the user knows, and the calls in order."""
    marks = r"First Utter\w+:|Key Info:|\n[- ]*(?:GT )?API Calls?:"
    _, utterance, known, calls = re.split(marks, text)
    messages = [Message("context", known.strip()), Message("user", utterance.strip())]
    for line in filter(None, map(str.strip, calls.split("\n"))):
        call = _spelled_call(line)
        messages += [call, Message("tool", "", name=call.name)]
    shown = _called(messages, tools)
    return Dialogue(f"lv3-samples/{name}", tuple(messages), task="level-3", tools=shown)


def _called(
    messages: Sequence[Message], tools: Mapping[str, Mapping[str, Any]]
) -> tuple[Mapping[str, Any], ...]:
    """The tools that are called, by name: their order says nothing about that of the calls."""
    return tuple(tools[name] for name in sorted({m.name for m in messages if m.name}))


def _spelled_call(line: str) -> Message:
    """A call as it is written, `GetUserToken(username="JohnDoe")`, with or without a remark."""
    spelled = line[: line.rindex(")") + 1]
    call = ast.parse(spelled, mode="eval").body
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError(f"{line!r} is no call")
    arguments = {word.arg: _literal(word.value) for word in call.keywords if word.arg}
    return Message("assistant", channel="call", name=call.func.id, arguments=arguments)


def _literal(node: ast.expr) -> Any:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)  # a bare word: a text
