"""What a template is: how a dialogue becomes ids, and how ids are read as messages.

A message is header + output + trailer, and only the output can be learned. A template is bound to
its tokenizer and inverts what it renders.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from dlm.core.errors import UserError
from dlm.dialogue.checks import RecordError, check_name, check_object
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.tokenizer import Tokenizer


def all_of_it(dialogue: Dialogue) -> Dialogue:
    """Returns the dialogue: a prompt holds everything."""
    return dialogue


class Rejected(UserError):
    """A dialogue of which nothing can be learned; `reason` is the same for all of its kind."""

    def __init__(self, dialogue: str, reason: str, detail: str) -> None:
        super().__init__(f"dialogue {dialogue}: {reason}: {detail}")
        self.reason = reason


class RenderedMessage(NamedTuple):
    """A message as ids.

    Attributes:
      header: read, never learned.
      output: what whoever speaks would have to write, the terminator included.
      role: one of `ROLES`, or "tools" for the list of tools.
      message_index: of the message in its dialogue; -1 for what is none (the list of tools).
      trailer: read, never learned: what stands between the terminator and the next message.
    """

    header: list[int]
    output: list[int]
    role: str
    channel: str | None
    message_index: int
    trailer: Sequence[int] = ()

    @property
    def ids(self) -> list[int]:
        """All of them, in order."""
        return [*self.header, *self.output, *self.trailer]


class Span(NamedTuple):
    """A stretch of a response that is the content of one message, or the beginning of it.

    Attributes:
      channel: of the message; "" where it has none.
      ids: the content; a control token among them is malformed.
      text: what they say, without the beginning of a character; a call's, once it is whole, is a
        JSON object of name and arguments.
      start: where the message begins in the response.
      ended: whether the message is whole.
    """

    channel: str
    ids: list[int]
    text: str
    start: int
    ended: bool


class Template(Protocol):
    """How dialogues are written out for one tokenizer.

    A response is what the model writes after a prompt: one message of the assistant after another,
    up to the call or the reply that hands over.

    Attributes:
      tokenizer: gives the ids.
      digest: hex; equal exactly where every dialogue gets equal ids.
      ends: control tokens that end an output.
      jinja: a chat template for others, who have a dialogue's system, user and assistant messages.
    """

    tokenizer: Tokenizer
    digest: str
    ends: frozenset[int]
    jinja: str

    def render(self, dialogue: Dialogue) -> list[RenderedMessage]:
        """Returns a dialogue's messages as ids, in order.

        Raises:
          UserError: a message has no text; `Rejected`, where the template refuses the dialogue.
        """

    def render_many(
        self, dialogues: Sequence[Dialogue]
    ) -> Sequence[list[RenderedMessage] | Rejected]:
        """Returns the messages of each dialogue, or why it is refused; faster than one by one.

        Raises:
          UserError: a message has no text.
        """

    def prompt(self, dialogue: Dialogue) -> list[int]:
        """Returns the ids of what is shown, and the header of the assistant's next message."""

    def parse(self, ids: Sequence[int]) -> list[Message]:
        """Returns the messages that the ids of a whole dialogue spell; inverts `render`.

        Raises:
          ValueError: no dialogue is rendered so; says where.
        """

    def split(self, ids: Sequence[int]) -> list[Span]:
        """Returns the messages of a response as far as it is written; the last may not be ended."""


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


def spoken_message(role: str, channel: str | None, text: str) -> Message:
    """Returns the message whose `message_text` is `text`.

    A call whose text is not an object of name and arguments is kept as its text, with weight 0.
    """
    if role == "tool":
        name, _, content = text.partition("\n")
        return Message(role, content, name=name or None)
    if channel != "call":
        return Message(role, text, channel)
    call = _call(text)
    return call or Message(role, text, channel, weight=0.0)


def response(template: Template, ids: Sequence[int]) -> list[Message]:
    """Returns the messages that a whole response spells.

    Raises:
      ValueError: the last message is not ended, or one is malformed.
    """
    spans, control_name = template.split(ids), template.tokenizer.control_name
    for span in spans:
        if not span.ended or not span.channel or any(map(control_name, span.ids)):
            raise ValueError(f"at {span.start}: no whole message of the assistant")
    return [spoken_message("assistant", span.channel, span.text) for span in spans]


def decoded(tokenizer: Tokenizer, ids: Sequence[int], ended: bool) -> str:
    """Returns the text of ids; where more may follow, a character appears with its last byte."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    return decoder.decode(b"".join(map(tokenizer.token_bytes, ids)), final=ended)


def _part_text(part: Any) -> str:
    if part["type"] != "text":
        raise UserError(f"the model reads text only; take the {part['type']} out of the dialogue")
    return part["text"]


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
