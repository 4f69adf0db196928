"""The built-in template: every role and channel has a token.

A message is header + output, and only the output can be learned:

    header   the role's token
    output   the channel's token (for the assistant), the content, `<|end|>`

So which channel comes next is learned, and so is stopping. The tools, where a dialogue has some,
stand first, as a message of their own. No sequence begins with a token of its own (no BOS): the
first id is a role's. Ids come message by message, so the ids of the first k messages are a prefix
of those of the first k + 1, and a prompt is what training saw up to the assistant's output, bit
for bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from dlm.core.errors import UserError
from dlm.core.files import digest
from dlm.dialogue.schema import CHANNELS, ROLES, Dialogue, Message
from dlm.dialogue.template import (
    RenderedMessage,
    Span,
    all_of_it,
    decoded,
    message_text,
    spoken_message,
)
from dlm.dialogue.tokenizer import Tokenizer

JINJA = (
    "{% for message in messages %}{{ '<|' + message.role + '|>' }}"
    "{% if message.role == 'assistant' %}{{ '<|reply|>' }}{% endif %}"
    "{{ message.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


class BuiltinTemplate:
    """See the module; the methods are those of `Template`.

    Attributes:
      header: the ids between a message and the assistant's output.
      channels: the channel that a control token opens.
      shown: what of a dialogue a prompt for its next message holds.
    """

    jinja = JINJA

    def __init__(
        self, tokenizer: Tokenizer, shown: Callable[[Dialogue], Dialogue] = all_of_it
    ) -> None:
        self.tokenizer = tokenizer
        self.shown = shown
        self.digest = digest("builtin")
        self.header: Sequence[int] = [tokenizer.control("<|assistant|>")]
        self.channels: Mapping[int, str] = {
            tokenizer.control(f"<|{name}|>"): name for name in CHANNELS
        }
        self._end = tokenizer.control("<|end|>")
        names = ("tools", *ROLES, *CHANNELS)
        self._marks = {name: tokenizer.control(f"<|{name}|>") for name in names}
        self.ends = frozenset([self._end])

    def render(self, dialogue: Dialogue) -> list[RenderedMessage]:
        """Returns a dialogue's messages as ids, in order, the list of tools first."""
        return self.render_many([dialogue])[0]

    def render_many(self, dialogues: Sequence[Dialogue]) -> list[list[RenderedMessage]]:
        """Returns the messages of each dialogue."""
        plans = [_plan(dialogue) for dialogue in dialogues]
        texts = iter(self.tokenizer.encode_many([text for plan in plans for *_, text in plan]))
        return [
            [self._message(role, channel, index, next(texts)) for role, channel, index, _ in plan]
            for plan in plans
        ]

    def _message(
        self, role: str, channel: str | None, index: int, ids: list[int]
    ) -> RenderedMessage:
        opening = [self._marks[channel]] if channel else []
        output = [*opening, *ids, self._end]
        return RenderedMessage([self._marks[role]], output, role, channel, index)

    def prompt(self, dialogue: Dialogue) -> list[int]:
        """Returns the ids of what is shown, and the header of the assistant's next message."""
        ids = [token for message in self.render(self.shown(dialogue)) for token in message.ids]
        return [*ids, *self.header]

    def parse(self, ids: Sequence[int]) -> list[Message]:
        """Returns the messages that ids spell; the list of tools is no message and left out.

        A call whose text is not an object of name and arguments is kept as its text, with weight 0.

        Raises:
          ValueError: the ids are not header and output in turn, each output ended; says where.
        """
        names = [self.tokenizer.control_name(token) for token in ids]
        messages, start = [], 0
        while start < len(ids):
            role = (names[start] or "")[2:-2]
            if role not in ("tools", *ROLES):
                raise ValueError(
                    f"id {ids[start]} at {start}: a message begins with a role's token"
                )
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
                text = self.tokenizer.decode(ids[body:stop])
                messages.append(spoken_message(role, channel, text))
            start = stop + 1
        return messages

    def split(self, ids: Sequence[int]) -> list[Span]:
        """Returns the messages of a response: `[channel token] content <|end|>` each."""
        spans, start = [], 0
        while start < len(ids):
            if start and list(ids[start : start + 1]) == list(self.header):
                start += 1
            if start == len(ids):
                break
            stop = next((i for i in range(start, len(ids)) if ids[i] == self._end), len(ids))
            channel = self.channels.get(ids[start], "")
            content = list(ids[start + bool(channel) : stop])
            ended = stop < len(ids)
            text = decoded(self.tokenizer, content, ended)
            spans.append(Span(channel, content, text, start, ended))
            start = stop + 1
        return spans


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
