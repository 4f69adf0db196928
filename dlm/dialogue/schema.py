"""The interactive format: a dialogue of messages, checked when it is read.

A *turn* is one user message (an absent one counts as empty) and everything up to the next; a
*round* is what the assistant writes in it, channel after channel, ending with `reply`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dlm.core import files
from dlm.dialogue.checks import (
    RecordError,
    check_choice,
    check_content,
    check_json,
    check_name,
    check_object,
    check_text,
    check_tool,
    kind,
)

ROLES = ("system", "context", "user", "assistant", "tool")
CHANNELS = ("intent", "state", "reason", "call", "act", "reply")
MAX_WEIGHT = 1e6


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
      role: one of `ROLES`.
      content: text, or a tuple of parts `{"type": "text", "text": ...}` and
        `{"type": "image"|"audio", "path"|"data": ...}`. A call's content is empty, unless it is a
        call that could not be read: then it is the text as written, and name and arguments are
        None.
      channel: one of `CHANNELS` for the assistant (`reply` where none is given), else None.
      name: the tool of a call or a result; otherwise a speaker.
      arguments: of a call, an object as JSON has it.
      weight: >= 0; multiplies what the supervision policy gives.
      meta: whatever else the record says; never read by the model.
    """

    role: str
    content: str | tuple[Mapping[str, Any], ...] = ""
    channel: str | None = None
    name: str | None = None
    arguments: Mapping[str, Any] | None = None
    weight: float = 1.0
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.role == "assistant" and self.channel is None:
            object.__setattr__(self, "channel", "reply")


@dataclass(frozen=True)
class Dialogue:
    """One dialogue, as one line of a file holds it.

    Attributes:
      tools: `{"name", "description", "parameters": JSON schema}` each, shown to the model.
      candidates, answer: endings to choose from, and the index of the right one.
      chosen, rejected: alternative endings of `messages`.
      label: whether the ending is desirable. rating: a user's.
      meta: whatever else the record says; never read by the model.
    """

    id: str
    messages: tuple[Message, ...]
    task: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    candidates: tuple[str, ...] = ()
    answer: int | None = None
    chosen: tuple[Message, ...] = ()
    rejected: tuple[Message, ...] = ()
    label: bool | None = None
    rating: float | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)


_CONTENT = ("messages", "tools", "candidates", "chosen", "rejected")
_MESSAGE_FIELDS = ("role", "content", "channel", "name", "arguments", "weight", "meta")
_DIALOGUE_FIELDS = (
    *("id", "task", "tools", "messages", "candidates", "answer"),
    *("chosen", "rejected", "label", "rating", "meta"),
)

_OF_MESSAGE, _OF_DIALOGUE = frozenset(_MESSAGE_FIELDS), frozenset(_DIALOGUE_FIELDS)


def from_json(record: Any, where: str) -> Dialogue:
    """Reads a dialogue from the value of one line.

    Unknown fields go to `meta`; a missing id becomes a digest of the record.

    Args:
      record: what `json.loads` gave.
      where: `file:line`, for errors.

    Raises:
      RecordError: the record breaks the format; names the field and the remedy.
    """
    if not isinstance(record, dict):
        raise RecordError(where, "", f"expected an object, got {kind(record)}; give one a line")
    if "messages" not in record:
        raise RecordError(where, "messages", f"missing; {_other_format(record)}")
    dialogue = _dialogue(record, where)
    validate(dialogue, where)
    return dialogue if dialogue.id else replace(dialogue, id=files.digest(record)[:16])


def restore(record: dict[str, Any]) -> Dialogue:
    """Reads what `to_json` made of a dialogue that was checked then, and so is not checked now."""
    fields = dict(record)
    for name in ("messages", "chosen", "rejected"):
        fields[name] = tuple(map(_restored, fields.get(name, ())))
    for name in ("tools", "candidates"):
        fields[name] = tuple(fields.get(name, ()))
    return Dialogue(**fields)


def _restored(record: dict[str, Any]) -> Message:
    content = record.get("content")
    if isinstance(content, list):
        return Message(**{**record, "content": tuple(content)})
    return Message(**record)


def _dialogue(record: dict[str, Any], where: str) -> Dialogue:
    """Returns the dialogue of a record; what its values are is still to be checked."""
    identity = record.get("id")
    if identity is None or type(identity) is int:
        identity = "" if identity is None else str(identity)
    return Dialogue(
        id=identity,
        messages=_messages(record["messages"], where, "messages"),
        task=record.get("task", ""),
        tools=_list(record.get("tools", []), where, "tools"),
        candidates=_list(record.get("candidates", []), where, "candidates"),
        answer=record.get("answer"),
        chosen=_messages(record.get("chosen", []), where, "chosen"),
        rejected=_messages(record.get("rejected", []), where, "rejected"),
        label=record.get("label"),
        rating=record.get("rating"),
        meta=_meta(record, _OF_DIALOGUE, where, "meta"),
    )


def to_json(dialogue: Dialogue) -> dict[str, Any]:
    """Returns the record of a dialogue; `from_json` gives the dialogue back."""
    record: dict[str, Any] = {"id": dialogue.id}
    for name in _DIALOGUE_FIELDS[1:]:
        value = getattr(dialogue, name)
        if name in ("messages", "chosen", "rejected"):
            value = [_message_to_json(message) for message in value]
        elif isinstance(value, tuple):
            value = list(value)
        if value not in ("", [], None, {}):
            record[name] = value
    return record


def content_hash(record: Mapping[str, Any]) -> int:
    """What is said in a dialogue, given as its record: messages, tools and endings, in 64 bits.

    Id, task, answer, label, rating and meta do not count.
    """
    said = [record.get(name) for name in _CONTENT]
    return files.short_digest(json.dumps(said, sort_keys=True))


def messages_from_json(value: Any, where: str, field: str) -> tuple[Message, ...]:
    """Reads messages that a model wrote: each is checked, their order is not.

    Raises:
      RecordError: a message breaks the format; names the field and the remedy.
    """
    messages = _messages(value, where, field)
    for index, message in enumerate(messages):
        _check_message(message, where, f"{field}[{index}]")
    return messages


def turns(dialogue: Dialogue) -> list[tuple[int, ...]]:
    """Returns the message indices of each turn; messages before the first turn are in none."""
    groups: list[list[int]] = []
    for index, turn in enumerate(turn_of_messages(dialogue)):
        if turn == len(groups):
            groups.append([])
        if turn >= 0:
            groups[turn].append(index)
    return [tuple(group) for group in groups]


def turn_of_messages(dialogue: Dialogue) -> tuple[int, ...]:
    """Returns the turn of each message, -1 before the first.

    A turn begins with a user message, or with the assistant where no user message stands before
    it: at the beginning, and after a reply.
    """
    result, turn, replied = [], -1, True
    for message in dialogue.messages:
        if message.role == "user" or (message.role == "assistant" and replied):
            turn += 1
            replied = False
        if message.channel == "reply":
            replied = True
        result.append(turn)
    return tuple(result)


def response_units(dialogue: Dialogue) -> list[tuple[int, ...]]:
    """Returns the responses: stretches of assistant messages, as message indices.

    A response runs from the last message read (user, tool, context or system) to the call or reply
    that ends it. Right in every token, it equals greedy generation from the gold history.
    """
    units: list[tuple[int, ...]] = []
    unit: tuple[int, ...] = ()
    for index, message in enumerate(dialogue.messages):
        if message.role == "assistant":
            unit = (*unit, index)
        if unit and (message.role != "assistant" or message.channel in ("call", "reply")):
            units.append(unit)
            unit = ()
    return [*units, unit] if unit else units


def _messages(value: Any, where: str, name: str) -> tuple[Message, ...]:
    return tuple(
        _message(item, where, f"{name}[{index}]")
        for index, item in enumerate(_list(value, where, name))
    )


def _message(record: Any, where: str, name: str) -> Message:
    if not isinstance(record, dict):
        raise RecordError(where, name, f"expected an object, got {kind(record)}")
    if "role" not in record:
        raise RecordError(where, f"{name}.role", f"missing; one of {', '.join(ROLES)}")
    if record.get("tool_calls"):
        problem = "not of this format; for OpenAI's set data.format='openai'"
        raise RecordError(where, f"{name}.tool_calls", problem)
    content = record.get("content", "")
    meta = "meta" in record or not record.keys() <= _OF_MESSAGE
    return Message(
        role=record["role"],
        content=tuple(content) if isinstance(content, list) else content,
        channel=record.get("channel"),
        name=record.get("name"),
        arguments=record.get("arguments"),
        weight=record.get("weight", 1.0),
        meta=_meta(record, _OF_MESSAGE, where, f"{name}.meta") if meta else {},
    )


def _message_to_json(message: Message) -> dict[str, Any]:
    record: dict[str, Any] = {"role": message.role}
    if message.channel is not None:
        record["channel"] = message.channel
    content = message.content
    if content or message.channel != "call":
        record["content"] = list(content) if isinstance(content, tuple) else content
    if message.name is not None:
        record["name"] = message.name
    if message.arguments is not None:
        record["arguments"] = message.arguments
    if message.weight != 1.0:
        record["weight"] = message.weight
    if message.meta:
        record["meta"] = message.meta
    return record


def validate(dialogue: Dialogue, where: str) -> None:
    """Checks everything that a dialogue promises; `from_json` calls it.

    Raises:
      RecordError: names the field and the remedy.
    """
    check_text(dialogue.id, where, "id")
    check_text(dialogue.task, where, "task")
    for index, tool in enumerate(dialogue.tools):
        check_tool(tool, where, f"tools[{index}]")
    if not dialogue.messages:
        raise RecordError(where, "messages", "empty; a dialogue needs at least one message")
    _check_messages(dialogue.messages, where, "messages", ())
    _check_messages(dialogue.chosen, where, "chosen", dialogue.messages)
    _check_messages(dialogue.rejected, where, "rejected", dialogue.messages)
    for index, candidate in enumerate(dialogue.candidates):
        check_text(candidate, where, f"candidates[{index}]")
    answer, last = dialogue.answer, len(dialogue.candidates) - 1
    if answer is not None and not (type(answer) is int and 0 <= answer <= last):
        problem = f"no index of a candidate; give an integer from 0 to {last}"
        raise RecordError(where, "answer", problem if last >= 0 else "given without candidates")
    if dialogue.label is not None and type(dialogue.label) is not bool:
        raise RecordError(where, "label", f"expected true or false, got {kind(dialogue.label)}")
    if dialogue.rating is not None and type(dialogue.rating) not in (int, float):
        raise RecordError(where, "rating", f"expected a number, got {kind(dialogue.rating)}")
    check_json(dialogue.rating, where, "rating")
    check_json(dialogue.meta, where, "meta")


def _check_messages(
    messages: Sequence[Message], where: str, field: str, history: Sequence[Message]
) -> None:
    for index, message in enumerate(messages):
        _check_message(message, where, f"{field}[{index}]")
    if not messages:
        return
    pending: list[str | None] = []  # tools called and not yet answered; None: an unreadable call
    rank = -1  # of the channel that the assistant wrote last in this round
    for index, message in enumerate([*history, *messages], -len(history)):
        name = f"{field}[{index}]"
        if message.role == "user":
            pending, rank = [], -1
        elif message.role == "tool":
            called = message.name if message.name in pending else None
            unnamed = message.name is None and bool(pending)
            if called not in pending and not unnamed:
                problem = "a tool result without its call; put the assistant's call before it, "
                raise RecordError(where, name, problem + "or give facts in role 'context'")
            pending.remove(pending[0] if unnamed else called)
        elif message.channel is not None:
            if CHANNELS.index(message.channel) <= rank:
                problem = f"{message.channel!r} after {CHANNELS[rank]!r}"
                order = f"within a round the order is {', '.join(CHANNELS)}"
                raise RecordError(where, f"{name}.channel", f"{problem}; {order}")
            rank = CHANNELS.index(message.channel)
            if message.channel == "call":
                pending.append(message.name)
                rank = CHANNELS.index("state")  # the round goes on from `reason`
            elif message.channel == "reply":
                pending, rank = [], -1


def _check_message(message: Message, where: str, field: str) -> None:
    check_choice(message.role, ROLES, where, f"{field}.role")
    if message.role == "assistant":
        check_choice(message.channel, CHANNELS, where, f"{field}.channel")
    elif message.channel is not None:
        raise RecordError(where, f"{field}.channel", "only the assistant has channels; remove it")
    check_content(message.content, where, f"{field}.content")
    if message.name is not None:
        check_name(message.name, where, f"{field}.name")
    weight = message.weight
    if type(weight) not in (int, float) or not 0 <= weight <= MAX_WEIGHT:
        shown = weight if isinstance(weight, float) else kind(weight)
        problem = f"got {shown}; give a number from 0 to {MAX_WEIGHT:g}"
        raise RecordError(where, f"{field}.weight", problem)
    check_json(message.meta, where, f"{field}.meta")
    if message.channel == "call":
        _check_call(message, where, field)
    elif message.arguments is not None:
        raise RecordError(where, f"{field}.arguments", "only a call has arguments; remove it")


def _check_call(message: Message, where: str, field: str) -> None:
    if message.arguments is not None:
        check_object(message.arguments, where, f"{field}.arguments")
    if message.name is not None and message.arguments is not None and message.content == "":
        return
    if message.name is not None or message.arguments is not None or message.weight != 0:
        problem = "a call has a name and arguments and no content (or, unreadable, its text alone "
        raise RecordError(where, field, problem + "and weight 0)")


def _list(value: Any, where: str, field: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise RecordError(where, field, f"expected a list, got {kind(value)}")
    return tuple(value)


def _meta(record: dict[str, Any], known: frozenset[str], where: str, field: str) -> dict[str, Any]:
    meta = record.get("meta", {})
    check_object(meta, where, field)
    if record.keys() <= known:
        return {**meta}
    unknown = {name: value for name, value in record.items() if name not in known}
    for name in meta.keys() & unknown.keys():
        problem = f"{name[:40]!r} stands in meta and beside it; keep one"
        raise RecordError(where, field, problem)
    return {**meta, **unknown}


def _other_format(record: Mapping[str, Any]) -> str:
    """Tells which other reader takes a record without `messages`."""
    if "conversations" in record:
        return "this looks like ShareGPT: set data.format='sharegpt'"
    if record.keys() & {"prompt", "instruction"}:
        return "this looks like prompts with responses: set data.format='prompt_response'"
    return "give the list of messages"
