"""A dialogue in the terms of a checkpoint's chat template, which knows roles only.

All that the assistant writes between two messages read is one message of the template, a block. In
it, and wherever else messages of ours share one of the template's, a message stands between light
tags, on lines of its own; a reply, or what a user, a tool or the system says, needs none:

    <state>people=4</state>
    <act>offer(name=Marlo)</act>
    Marlo has a table for four.

Calls that end a block go through the template's own syntax where it has one, else they are tagged
too, as JSON. `context` joins the message before it, or the user's after it, in tags; so do results
and tools that the template does not know. Empty text that shares a message is tagged as well.

In what is rendered, marks (characters of private use) tell our text from the template's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dlm.core.errors import UserError
from dlm.dialogue.schema import CHANNELS, Dialogue, Message
from dlm.dialogue.template import message_text

OPEN, CLOSE = "\ue000", "\ue001"  # around the text of a message
CUT = "\ue002"  # what stands before and behind is encoded apart
NEXT = "\ue003"  # a message ends here
HERE = "\ue004"  # the name of a call begins here
_ESCAPE = "\ue005"
_MARK = re.compile(f"[{OPEN}-{_ESCAPE}]")
_ESCAPED = re.compile(f"{_ESCAPE}(.)|[{OPEN}-{HERE}]", re.DOTALL)
_TEXT = re.compile(f"{OPEN}([^{OPEN}-{HERE}]*){CLOSE}")
_SHIFT = 0x100  # an escaped mark is written this much further

TAGS = (*CHANNELS, "context", "tool", "tools", "user", "system")


@dataclass(frozen=True)
class CallSyntax:
    """How a template writes calls: JSON objects between two texts.

    Attributes:
      before, after: these texts, a control token by its name.
      name_key, arguments_key: of the object.
      listed: the objects stand in a list; otherwise each between texts of its own.
      several: more than one call can end a block.
      with_text: other text may stand before them.
    """

    before: str
    after: str
    name_key: str
    arguments_key: str
    listed: bool
    several: bool
    with_text: bool


@dataclass(frozen=True)
class Form:
    """What a template can do.

    Attributes:
      strips: roles whose text it writes without the white space around it.
      takes_tools: it writes a list of tools.
      tool_role: it writes results that stand in messages of role `tool`.
      calls: None where it writes none.
    """

    strips: frozenset[str] = frozenset()
    takes_tools: bool = False
    tool_role: bool = False
    calls: CallSyntax | None = None


@dataclass(frozen=True)
class Part:
    """A message of ours within one of the template's.

    Attributes:
      role, channel: as in `RenderedMessage`.
      index: of the message in the dialogue; -1 for the list of tools.
      text: as the model reads it.
      tag: between which it stands; "" none.
      call: its name and arguments, if it is a call that can be read.
    """

    role: str
    channel: str | None
    index: int
    text: str
    tag: str = ""
    call: tuple[str, Mapping[str, Any]] | None = None


@dataclass
class Chat:
    """A message of the template.

    Attributes:
      role: system, user, assistant or tool.
      parts: in order, without `calls`.
      calls: those that the template writes in its own syntax, behind the parts.
      names: tool and id of the call that a result answers.
    """

    role: str
    parts: list[Part] = field(default_factory=list)
    calls: list[Part] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def takes(self, role: str) -> bool:
        """Whether a message of ours of some role may join this one."""
        if role == "assistant":
            return self.role == role and not any(part.channel == "reply" for part in self.parts)
        if role == "context":
            return self.role != "assistant"
        return role in ("user", "tool") and self.role == "user" and not self._has("user")

    def _has(self, role: str) -> bool:
        return any(part.role == role for part in self.parts)


def chats(dialogue: Dialogue, form: Form) -> list[Chat]:
    """Returns a dialogue as messages of a template of this form.

    Raises:
      UserError: a message has an image or a sound.
    """
    found: list[Chat] = []
    for index, message in enumerate(dialogue.messages):
        try:
            part = _part(message, index)
        except UserError as error:
            raise UserError(f"dialogue {dialogue.id}: messages[{index}]: {error}") from None
        own = message.role == "tool" and _takes_result(found, form)
        if own or not found or not found[-1].takes(message.role):
            joined = message.role in ("context", "tool") and not own
            found.append(Chat("user" if joined else message.role))
        if own:
            part = replace(part, text=part.text.partition("\n")[2])
            found[-1].names = {"name": message.name or ""}
        found[-1].parts.append(part)
    if dialogue.tools and not form.takes_tools:
        _add_tools(found, dialogue.tools)
    for chat in found:
        _settle(chat, form)
    name_results(found)
    return found


def to_messages(found: Sequence[Chat], guard: re.Pattern[str] | None) -> list[dict[str, Any]]:
    """Returns messages as the transformers library takes them.

    Args:
      found: what `chats` gave.
      guard: matches what no name or argument of a call may spell; marks are set. None: no marks.
    """
    messages, numbered = [], 0
    for chat in found:
        said: dict[str, Any] = {"role": chat.role, "content": _content(chat), **chat.names}
        if guard is None:
            said["content"] = unmarked(said["content"])
        numbered += sum(part.channel == "call" for part in chat.parts)
        calls = []
        for part in chat.calls:
            assert part.call is not None
            name, arguments = part.call
            if guard is not None:
                name, arguments = HERE + guarded(name, guard), guarded(arguments, guard)
            function = {"name": name, "arguments": arguments}
            calls.append({"id": _call_id(numbered), "type": "function", "function": function})
            numbered += 1
        messages.append({**said, "tool_calls": calls} if calls else said)
    return messages


def declared(
    tools: Iterable[Mapping[str, Any]], guard: re.Pattern[str] | None
) -> list[dict[str, Any]]:
    """Returns tools as the transformers library takes them."""
    listed = [{"type": "function", "function": dict(tool)} for tool in tools]
    return listed if guard is None else guarded(listed, guard)


def guarded(value: Any, guard: re.Pattern[str]) -> Any:
    """Returns a JSON value whose strings are escaped, and cut where they match."""
    if isinstance(value, str):
        return guard.sub(lambda found: found[0][0] + CUT + found[0][1:], escaped(value))
    if isinstance(value, Mapping):
        return {guarded(name, guard): guarded(item, guard) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [guarded(item, guard) for item in value]
    return value


def escaped(text: str) -> str:
    """Returns a text without marks, which `unmarked` gives back."""
    return _MARK.sub(lambda mark: _ESCAPE + chr(ord(mark[0]) + _SHIFT), text)


def unmarked(text: str) -> str:
    """Returns a text without the marks that were set in it."""
    return _ESCAPED.sub(lambda found: chr(ord(found[1]) - _SHIFT) if found[1] else "", text)


def texts(marked: str) -> list[str]:
    """Returns the texts of messages in what was rendered, in order."""
    return [unmarked(text) for text in _TEXT.findall(marked)]


def _part(message: Message, index: int) -> Part:
    readable = message.channel == "call" and message.name is not None
    call = (message.name or "", message.arguments or {}) if readable else None
    tag = message.channel or message.role
    return Part(message.role, message.channel, index, message_text(message), tag, call)


def _takes_result(found: Sequence[Chat], form: Form) -> bool:
    """Whether a result of the last block stands in a message of role `tool`.

    Not that of a call in tags, where the template has a syntax for calls: it may count on it.
    """
    blocks = [chat for chat in found if chat.role == "assistant"]
    if not form.tool_role or not blocks:
        return False
    _settle(blocks[-1], form)
    return form.calls is None or bool(blocks[-1].calls)


def _add_tools(found: list[Chat], tools: Sequence[Mapping[str, Any]]) -> None:
    text = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    if not found or found[0].role not in ("system", "user"):
        found.insert(0, Chat("user"))
    place = 1 if found[0].role == "system" else 0
    found[0].parts.insert(place, Part("tools", None, -1, text, "tools"))


def _settle(chat: Chat, form: Form) -> None:
    """Decides which calls go through the template's syntax, and which parts need no tag."""
    first = len(chat.parts)
    while first and chat.parts[first - 1].call:
        first -= 1
    calls, parts = chat.parts[first:], chat.parts[:first]
    if calls and _expressible(len(calls), bool(parts), form.calls):
        chat.parts, chat.calls = parts, calls
    natural = "reply" if chat.role == "assistant" else chat.role
    alone = len(chat.parts) == 1 and not chat.calls
    for i, part in enumerate(chat.parts):
        text = part.text.strip() if chat.role in form.strips else part.text
        if part.tag == natural and (text or alone):
            chat.parts[i] = replace(part, text=text, tag="")


def _expressible(count: int, text: bool, syntax: CallSyntax | None) -> bool:
    if syntax is None:
        return False
    return (count == 1 or syntax.several) and (not text or syntax.with_text)


def name_results(found: Sequence[Chat]) -> None:
    """Says which call each result answers: the first of its tool that waits, or of all."""
    waiting: list[tuple[str, str]] = []
    numbered = 0
    for chat in found:
        for part in (*chat.parts, *chat.calls):
            if part.channel == "call":
                waiting.append((part.call[0] if part.call else "", _call_id(numbered)))
                numbered += 1
        if chat.role == "tool" and waiting:
            said = chat.names["name"]
            call = next((call for call in waiting if call[0] == said), waiting[0])
            waiting.remove(call)
            chat.names = {"name": call[0], "tool_call_id": call[1]}


def _call_id(number: int) -> str:
    return f"call{number:05d}"


def _content(chat: Chat) -> str:
    texts = []
    for i, part in enumerate(chat.parts):
        before = f"{CUT}\n{CUT}" if i else ""
        text = f"{OPEN}{escaped(part.text)}{CLOSE}"
        if part.tag:
            text = f"{CUT}<{part.tag}>{CUT}{text}{CUT}</{part.tag}>{CUT}"
        texts.append(before + text)
    return NEXT.join(texts) + (NEXT if texts and chat.calls else "")
