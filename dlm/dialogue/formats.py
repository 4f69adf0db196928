"""Other formats of dialogue files, each translated into a record of the interactive format.

A translation only renames and regroups; what it yields is checked by `schema.from_json`. Fields
that it does not know stay where they are and so end in `meta`.
"""

from __future__ import annotations

import json
from typing import Any

from dlm.dialogue.checks import RecordError, check_choice, kind

_OPENAI_ROLES = {"developer": "system", "function": "tool"}
_ASSISTANT_FIELDS = ("role", "weight", "content", "tool_calls", "function_call")
_SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "system": "system",
    "function_call": "call",
    "tool_call": "call",
    "observation": "tool",
    "function_response": "tool",
    "tool": "tool",
}


def from_openai(record: Any, where: str) -> dict[str, Any]:
    """Translates a line of OpenAI's fine-tuning format.

    `tool_calls` become calls, a result finds its call by `tool_call_id`; text beside calls becomes
    `reason`; `developer` is `system`; an assistant's `weight` (0 or 1) goes to all it wrote.

    Raises:
      RecordError: the record breaks the format.
    """
    record = dict(_object(record, where, ""))
    if "messages" not in record:
        return record
    called: dict[str, str] = {}  # by id, the tools whose result has not come
    messages: list[Any] = []
    for index, message in enumerate(_list(record["messages"], where, "messages")):
        field = f"messages[{index}]"
        message = dict(_object(message, where, field))
        role = message.get("role")
        if role == "assistant":
            messages.extend(_openai_assistant(message, called, where, field))
            continue
        message["role"] = _OPENAI_ROLES.get(role, role) if isinstance(role, str) else role
        message["content"] = _openai_content(message.get("content"), where, f"{field}.content")
        identity = message.get("tool_call_id")
        if message["role"] == "tool" and identity is not None:
            if not isinstance(identity, str) or identity not in called:
                problem = f"a tool result without its call; no open call has id {identity!r:.60}"
                raise RecordError(where, f"{field}.tool_call_id", problem)
            message["name"] = called.pop(identity)
        messages.append(message)
    tools = _list(record.get("tools") or [], where, "tools")
    return {**record, "messages": messages, "tools": [_declaration(tool) for tool in tools]}


def from_sharegpt(record: Any, where: str) -> dict[str, Any]:
    """Translates a record with `conversations` of `from` and `value`, and `system` and `tools`.

    `function_call` holds a JSON object of name and arguments (or a list of them), `observation` a
    result. `chosen` and `rejected` are endings in the same notation.

    Raises:
      RecordError: the record breaks the format.
    """
    record = dict(_object(record, where, ""))
    if "conversations" not in record:
        raise RecordError(where, "conversations", "missing; give the list of messages")
    messages = _sharegpt_messages(record.pop("conversations"), where, "conversations")
    system = record.pop("system", None)
    if system:
        messages.insert(0, {"role": "system", "content": system})
    tools = record.pop("tools", None) or []
    if isinstance(tools, str):
        tools = _json(tools, where, "tools")
    for name in ("chosen", "rejected"):
        if name in record:
            ending = record[name] if isinstance(record[name], list) else [record[name]]
            record[name] = _sharegpt_messages(ending, where, name)
    tools = [_declaration(tool) for tool in _list(tools, where, "tools")]
    return {**record, "messages": messages, "tools": tools}


def from_prompt_response(record: Any, where: str) -> dict[str, Any]:
    """Translates one question and its answer.

    Takes `prompt` with `completion` or `response`, or `instruction` (with `input`) and `output`;
    `system` and `history` (a list of earlier pairs) may stand beside them.

    Raises:
      RecordError: the record breaks the format.
    """
    record = dict(_object(record, where, ""))
    asked = next((name for name in ("prompt", "instruction") if name in record), None)
    if asked is None:
        raise RecordError(where, "prompt", "missing; give prompt (or instruction)")
    answers = ("output",) if asked == "instruction" else ("completion", "response")
    answered = next((name for name in answers if name in record), None)
    if answered is None:
        raise RecordError(where, answers[-1], f"missing; give {' or '.join(answers)}")
    question = _text(record.pop(asked), where, asked)
    if asked == "instruction" and (given := record.pop("input", None)):
        question += "\n\n" + _text(given, where, "input")
    messages = []
    if system := record.pop("system", None):
        messages.append({"role": "system", "content": system})
    for index, pair in enumerate(_list(record.pop("history", None) or [], where, "history")):
        if not isinstance(pair, list) or len(pair) != 2:
            raise RecordError(where, f"history[{index}]", "expected a pair of question and answer")
        messages.extend(_pair(*pair))
    answer = _text(record.pop(answered), where, answered)
    return {**record, "messages": [*messages, *_pair(question, answer)]}


def _pair(question: Any, answer: Any) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "channel": "reply", "content": answer},
    ]


def _openai_assistant(
    message: dict[str, Any], called: dict[str, str], where: str, field: str
) -> list[dict[str, Any]]:
    """Returns an assistant's message as one message a channel; notes the ids of its calls."""
    shared = {key: value for key, value in message.items() if key in ("role", "weight")}
    rest = {key: value for key, value in message.items() if key not in _ASSISTANT_FIELDS}
    calls = _list(message.get("tool_calls") or [], where, f"{field}.tool_calls")
    if message.get("function_call"):
        calls = [*calls, {"function": message["function_call"]}]
    result = []
    content = message.get("content")
    if content or not calls:
        content = _openai_content(content, where, f"{field}.content")
        channel = "reason" if calls else "reply"
        result.append({**shared, **rest, "channel": channel, "content": content})
    for index, call in enumerate(calls):
        name = f"{field}.tool_calls[{index}]"
        function = _object(_object(call, where, name).get("function"), where, f"{name}.function")
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            arguments = _json(arguments or "{}", where, f"{name}.function.arguments")
        tool, identity = function.get("name"), call.get("id")
        if not isinstance(tool, str):
            raise RecordError(where, f"{name}.function.name", "missing; name the tool")
        if isinstance(identity, str):
            called[identity] = tool
        entry = {**shared, "channel": "call", "name": tool, "arguments": arguments}
        if identity is not None:
            entry["id"] = identity
        result.append(entry)
    return result


def _openai_content(content: Any, where: str, field: str) -> Any:
    if not isinstance(content, list):
        return content
    return [
        _openai_part(_object(part, where, f"{field}[{index}]"), where, f"{field}[{index}]")
        for index, part in enumerate(content)
    ]


def _openai_part(part: dict[str, Any], where: str, field: str) -> dict[str, Any]:
    if part.get("type") == "image_url":
        image = part.get("image_url")
        url = image.get("url") if isinstance(image, dict) else image
        if not isinstance(url, str) or not url.startswith("data:"):
            problem = "no data URI; download the image and give it as one"
            raise RecordError(where, f"{field}.image_url", problem)
        return {"type": "image", "data": url}
    if part.get("type") == "input_audio":
        audio = _object(part.get("input_audio"), where, f"{field}.input_audio")
        data = f"data:audio/{audio.get('format', 'wav')};base64,{audio.get('data', '')}"
        return {"type": "audio", "data": data}
    return part


def _declaration(tool: Any) -> Any:
    """Returns a tool without OpenAI's wrapping."""
    if isinstance(tool, dict) and tool.get("type") == "function" and "function" in tool:
        return tool["function"]
    return tool


def _sharegpt_messages(value: Any, where: str, field: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for index, item in enumerate(_list(value, where, field)):
        name = f"{field}[{index}]"
        item = dict(_object(item, where, name))
        check_choice(item.get("from"), tuple(_SHAREGPT_ROLES), where, f"{name}.from")
        role = _SHAREGPT_ROLES[item.pop("from")]
        text = _text(item.pop("value", None), where, f"{name}.value")
        if role != "call":
            messages.append({**item, "role": role, "content": text})
            continue
        calls = _json(text, where, f"{name}.value")
        for call in calls if isinstance(calls, list) else [calls]:
            call = _object(call, where, f"{name}.value")
            arguments = call.get("arguments", {})
            if isinstance(arguments, str):
                arguments = _json(arguments, where, f"{name}.value")
            entry = {"role": "assistant", "channel": "call", "name": call.get("name")}
            messages.append({**item, **entry, "arguments": arguments})
    return messages


def _object(value: Any, where: str, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RecordError(where, field, f"expected an object, got {kind(value)}")
    return value


def _list(value: Any, where: str, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise RecordError(where, field, f"expected a list, got {kind(value)}")
    return value


def _text(value: Any, where: str, field: str) -> str:
    if not isinstance(value, str):
        raise RecordError(where, field, f"expected a string, got {kind(value)}")
    return value


def _json(text: str, where: str, field: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        problem = f"expected JSON in the string: {str(error)[:100]}"
        raise RecordError(where, field, problem) from None
