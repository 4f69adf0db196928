"""How a dialogue becomes ids: the built-in template.

A message is header + output, and only the output can be learned:

    header   the role's token
    output   the channel's token (for the assistant), the content, `<|end|>`

The tools, where a dialogue has some, stand first, as a message of their own. No sequence begins
with a token of its own (no BOS): the first id is a role's.

A template is three functions. `render` gives ids message by message, so the ids of the first k
messages are a prefix of those of the first k + 1; `prompt` gives what training saw up to the
assistant's output, bit for bit; `parse` inverts `render`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dlm.core.errors import UserError
from dlm.dialogue.checks import RecordError, check_choice, check_name, check_object
from dlm.dialogue.schema import CHANNELS, ROLES, Dialogue, Message
from dlm.dialogue.tokenizer import Tokenizer


@dataclass(frozen=True)
class TemplateConfig:
    """Which template renders dialogues: "builtin"."""

    name: str = "builtin"

    def __post_init__(self) -> None:
        check_choice(self.name, ("builtin",), "", "template.name")


class RenderedMessage(NamedTuple):
    """A message as ids.

    Attributes:
      header: read, never learned.
      output: what whoever speaks would have to write, the terminator included.
      role: one of `ROLES`, or "tools" for the list of tools.
      message_index: of the message in its dialogue; -1 for the list of tools.
    """

    header: list[int]
    output: list[int]
    role: str
    channel: str | None
    message_index: int


def message_text(message: Message) -> str:
    """Returns the text of a message as the model reads it.

    A call is a JSON object of name and arguments; a result is its tool's name (empty where it has
    none), a line break, and the content.

    Raises:
      UserError: the message has an image or a sound.
    """
    if message.channel == "call" and message.name is not None:
        return json.dumps(
            {"name": message.name, "arguments": message.arguments}, ensure_ascii=False
        )
    content = message.content
    if not isinstance(content, str):
        content = "".join(_part_text(part) for part in content)
    return f"{message.name or ''}\n{content}" if message.role == "tool" else content


def render(dialogue: Dialogue, tokenizer: Tokenizer) -> list[RenderedMessage]:
    """Returns a dialogue's messages as ids, in order, the list of tools first."""
    plan = _plan(dialogue)
    end = tokenizer.control("<|end|>")
    rendered = []
    for (role, channel, index, _), ids in zip(
        plan, tokenizer.encode_many([text for *_, text in plan]), strict=True
    ):
        opening = [tokenizer.control(f"<|{channel}|>")] if channel else []
        header = [tokenizer.control(f"<|{role}|>")]
        rendered.append(RenderedMessage(header, [*opening, *ids, end], role, channel, index))
    return rendered


def prompt(dialogue: Dialogue, tokenizer: Tokenizer) -> list[int]:
    """Returns the ids of all messages and the header of the assistant's next one."""
    ids = [
        token
        for message in render(dialogue, tokenizer)
        for token in message.header + message.output
    ]
    return ids + assistant_header(tokenizer)


def assistant_header(tokenizer: Tokenizer) -> list[int]:
    """Returns the ids between a message and the assistant's output."""
    return [tokenizer.control("<|assistant|>")]


def parse(ids: Sequence[int], tokenizer: Tokenizer) -> list[Message]:
    """Returns the messages that ids spell; the list of tools is no message and left out.

    A call whose text is not an object of name and arguments is kept as its text, with weight 0.

    Raises:
      ValueError: the ids are not header and output in turn, each output ended; says where.
    """
    names = [tokenizer.control_name(token) for token in ids]
    messages, start = [], 0
    while start < len(ids):
        role = (names[start] or "")[2:-2]
        if role not in ("tools", *ROLES):
            raise ValueError(f"id {ids[start]} at {start}: a message begins with a role's token")
        body = start + 1
        channel = None
        if role == "assistant":
            channel = (names[body] or "")[2:-2] if body < len(ids) else ""
            if channel not in CHANNELS:
                raise ValueError(
                    f"at {body}: the assistant's message begins with a channel's token"
                )
            body += 1
        stop = next((i for i in range(body, len(ids)) if names[i] is not None), len(ids))
        if stop == len(ids) or names[stop] != "<|end|>":
            raise ValueError(f"at {stop}: the message that begins at {start} is not ended")
        if role != "tools":
            messages.append(_message(role, channel, tokenizer.decode(ids[body:stop])))
        start = stop + 1
    return messages


def _plan(dialogue: Dialogue) -> list[tuple[str, str | None, int, str]]:
    """Returns (role, channel, index, text) of what is rendered."""
    plan: list[tuple[str, str | None, int, str]] = []
    if dialogue.tools:
        lines = [json.dumps(tool, ensure_ascii=False) for tool in dialogue.tools]
        plan.append(("tools", None, -1, "\n".join(lines)))
    for index, message in enumerate(dialogue.messages):
        try:
            text = message_text(message)
        except UserError as error:
            raise UserError(f"dialogue {dialogue.id}: messages[{index}]: {error}") from None
        plan.append((message.role, message.channel, index, text))
    return plan


def _part_text(part: Any) -> str:
    if part["type"] != "text":
        raise UserError(f"the model reads text only; take the {part['type']} out of the dialogue")
    return part["text"]


def _message(role: str, channel: str | None, text: str) -> Message:
    if role == "tool":
        name, _, content = text.partition("\n")
        return Message(role, content, name=name or None)
    if channel != "call":
        return Message(role, text, channel)
    call = _call(text)
    return call or Message(role, text, channel, weight=0.0)


def _call(text: str) -> Message | None:
    try:
        call = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict) or call.keys() != {"name", "arguments"}:
        return None
    try:
        check_name(call["name"], "", "name")
        check_object(call["arguments"], "", "arguments")
    except RecordError:
        return None
    return Message("assistant", "", "call", call["name"], call["arguments"])
