"""What may be written: a grammar stands beside each request and says which tokens fit next."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Protocol

from dlm.dialogue.actions import Tool
from dlm.dialogue.builtin_template import BuiltinTemplate
from dlm.dialogue.chat_template import ChatTemplate
from dlm.dialogue.schema import CHANNELS
from dlm.dialogue.template import Template
from dlm.generation import json_grammar


class Grammar(Protocol):
    """The state of one response in the making; it belongs to one request and changes with it.

    Attributes:
      done: the response is whole; nothing more may be written.
    """

    done: bool

    def forced(self) -> int | None:
        """Returns the only token that can come next, where that does not depend on the model."""

    def allows(self, token: int) -> bool:
        """Whether `token` may come next."""

    def advance(self, token: int) -> None:
        """Appends `token`."""


def response_grammar(
    template: Template, tools: Mapping[str, Tool], *, constrained: bool, resumed: bool = False
) -> Grammar:
    """Returns what may be written after a template's prompt; see the two grammars."""
    if isinstance(template, ChatTemplate):
        return BlockGrammar(template, constrained=constrained)
    assert isinstance(template, BuiltinTemplate)
    return ResponseGrammar(template, tools, constrained=constrained, resumed=resumed)


class BlockGrammar:
    """One response in a checkpoint's chat template: free text up to the end of turn.

    Calls in it are checked when they are read. With `constrained`, no control token stands in the
    text but those of the template's own syntax for calls.
    """

    def __init__(self, template: ChatTemplate, *, constrained: bool) -> None:
        self.done = False
        self._template = template
        self._constrained = constrained

    def forced(self) -> int | None:
        """Never any."""
        return None

    def allows(self, token: int) -> bool:
        """Whether `token` may come next."""
        known = self._template.ends | self._template.written
        name = self._template.tokenizer.control_name(token)
        there = token < self._template.tokenizer.vocab_size
        return not self.done and there and (not self._constrained or not name or token in known)

    def advance(self, token: int) -> None:
        """Appends `token`."""
        self.done = token in self._template.ends


class ResponseGrammar:
    """One response of the built-in template: from the prompt's end to the end of a call or a reply.

    A response starts after the assistant's header; between its messages the header is forced.
    With `constrained`, channels come in their order, a call is
    JSON as the template writes it, with a known tool's name and arguments after its schema, and
    all text is well-formed UTF-8. Without, whatever the model writes up to a terminator is taken.

    Args:
      template: whose channels are opened by tokens.
      tools: those that may be called; empty = none is known, and any name and arguments may stand.
      constrained: see above.
      resumed: the prompt ends in a tool's result, so the round goes on from `reason`.
    """

    def __init__(
        self,
        template: BuiltinTemplate,
        tools: Mapping[str, Tool],
        *,
        constrained: bool,
        resumed: bool = False,
    ) -> None:
        self.done = False
        self._tokenizer = template.tokenizer
        self._tools = tools
        self._constrained = constrained
        self._ends = template.ends
        self._header = template.header
        self._channels = template.channels
        self._rank = CHANNELS.index("reason") if resumed else 0
        self._channel: str | None = None
        self._opening = True
        self._content: json_grammar.State = ()
        self._queue: deque[int] = deque()
        self._tried: tuple[int, json_grammar.State | None] = (-1, None)

    def forced(self) -> int | None:
        """The assistant's header between two messages."""
        return self._queue[0] if self._queue else None

    def allows(self, token: int) -> bool:
        """Whether `token` may come next."""
        if self.done or (self._queue and token != self._queue[0]):
            return False
        if self._queue or not self._constrained:
            return True
        if self._opening:
            return token in self._channels and self._order(self._channels[token]) >= self._rank
        if self._tokenizer.control_name(token) is not None:
            return token in self._ends and json_grammar.complete(self._content)
        return self._after(token) is not None

    def advance(self, token: int) -> None:
        """Appends `token`, which `forced` named or `allows` let pass."""
        if self._queue:
            self._queue.popleft()
        elif token in self._ends:
            self._end_message()
        elif self._opening:
            self._open(token)
        elif self._constrained:
            self._content = self._after(token) or ()
            self._tried = (-1, None)

    def _order(self, channel: str) -> int:
        return CHANNELS.index(channel)

    def _after(self, token: int) -> json_grammar.State | None:
        """The content's state after a text token; the last answer is kept for `advance`."""
        if self._tried[0] != token:
            text = self._tokenizer.token_bytes(token)
            self._tried = (token, json_grammar.advance_all(self._content, text) if text else None)
        return self._tried[1]

    def _open(self, token: int) -> None:
        self._opening = False
        self._channel = self._channels.get(token)
        if self._channel == "call":
            self._content = json_grammar.call({n: t.parameters for n, t in self._tools.items()})
        else:
            self._content = json_grammar.text()
        if self._channel is not None:
            self._rank = self._order(self._channel) + 1

    def _end_message(self) -> None:
        # A message without a channel is no message: it ends the response, which is malformed.
        if self._opening or self._channel in (None, "call", "reply"):
            self.done = True
        else:
            self._queue.extend(self._header)
            self._opening = True
