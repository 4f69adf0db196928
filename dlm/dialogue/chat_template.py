"""A checkpoint's own chat template, held to the rules of `Template`.

    prompt_j = what it writes of the messages before block j, with the prompt for the assistant
    block_j  = what it writes up to block j, without prompt_j, up to the end of turn (learned)

It is rendered for every block, and refused where prompt_j or what it writes up to block j is not
the beginning of the whole; so the ids of the first k rounds are a prefix of those of the first
k + 1, and a prompt is what training saw. Rendered without our marks it must give the same text, so
what the model reads is what the transformers library would write. See `chat_messages` for how
channels become roles, and `chat_spelling` for how text becomes ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dlm.core.errors import UserError
from dlm.core.files import digest
from dlm.dialogue.chat_assembly import Assembly, Cut
from dlm.dialogue.chat_messages import (
    Chat,
    chats,
    declared,
    texts,
    to_messages,
    unmarked,
)
from dlm.dialogue.chat_parsing import Parser
from dlm.dialogue.chat_probe import probe
from dlm.dialogue.chat_reading import BlockReader
from dlm.dialogue.chat_spelling import Spelling
from dlm.dialogue.jinja import Refused, Renderer, Request
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.template import (
    Rejected,
    RenderedMessage,
    Span,
    all_of_it,
)
from dlm.dialogue.tokenizer import Tokenizer


class ChatTemplate:
    """See the module; the methods are those of `Template`.

    Raises:
      UserError: the tokenizer has no chat template, or one that cannot be trained with.
    """

    def __init__(
        self, tokenizer: Tokenizer, shown: Callable[[Dialogue], Dialogue] = all_of_it
    ) -> None:
        said = tokenizer.pretrained
        if said is None or not said.chat_template:
            raise UserError(
                "template.name='checkpoint', but the tokenizer has no chat template; take "
                "template.name='builtin' or a checkpoint that has one"
            )
        self.tokenizer = tokenizer
        self.shown = shown
        self.jinja = said.chat_template
        self.digest = digest(["checkpoint", self.jinja, dict(said.special), said.adds_bos])
        self.bos = said.special.get("bos_token", "") if said.adds_bos else ""
        self._renderer = Renderer(self.jinja, said.special)
        control = Spelling(tokenizer, ()).control
        self.form, self.end, markers, spaced = probe(self._renderer, control)
        self.spelling = Spelling(tokenizer, markers)
        ends = [self.end, said.special.get("eos_token")]
        self.ends = frozenset(tokenizer.control(name) for name in ends if name)
        self._reader = BlockReader(tokenizer, self.spelling, self.form, self.ends, spaced)
        self.written = self._reader.written
        self.tags = self._reader.tags

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process renders by a process of its own."""
        return ChatTemplate, (self.tokenizer, self.shown)

    def render(self, dialogue: Dialogue) -> list[RenderedMessage]:
        """Returns a dialogue's messages as ids; the first entry holds what stands before all."""
        (rendered,) = self.render_many([dialogue])
        if isinstance(rendered, Rejected):
            raise rendered
        return rendered

    def render_many(self, dialogues: Sequence[Dialogue]) -> list[list[RenderedMessage] | Rejected]:
        """Returns the messages of each dialogue, or why the template refuses it."""
        all_found = [chats(dialogue, self.form) for dialogue in dialogues]
        requests = [
            request
            for dialogue, found in zip(dialogues, all_found, strict=True)
            for request in self._requests(dialogue, found, prompted=False)
        ]
        texts = self._renderer.render_many(requests)
        return [
            self._whole(dialogue, found, marked, plain)
            for dialogue, found, marked, plain in zip(
                dialogues, all_found, texts[::2], texts[1::2], strict=True
            )
        ]

    def text(self, dialogue: Dialogue) -> str:
        """Returns what the template writes of a dialogue, as one text, the BOS in front."""
        _, plain = self._requests(dialogue, chats(dialogue, self.form), prompted=False)
        (text,) = self._renderer.render(*plain)
        return text if text.startswith(self.bos) else self.bos + text

    def prompt(self, dialogue: Dialogue) -> list[int]:
        """Returns the ids of all messages that are shown, and the template's prompt.

        Where the dialogue ends within the assistant's block, they end there: the block goes on.
        """
        dialogue = self.shown(dialogue)
        found = chats(dialogue, self.form)
        if found and found[-1].takes("assistant"):
            ids = [i for message in self.render(dialogue) for i in message.ids]
            return ids[: max(i for i, token in enumerate(ids) if token in self.ends)]
        rendered, header = self._rendered(dialogue, prompted=True)
        return [*(i for message in rendered for i in message.ids), *header]

    def split(self, ids: Sequence[int]) -> list[Span]:
        """Returns the messages of a response: one block of the assistant."""
        return self._reader.split(ids)

    def parse(self, ids: Sequence[int], tools: Sequence[Mapping[str, Any]] = ()) -> list[Message]:
        """Returns the messages that ids spell, given the tools that they begin with.

        Lost is what the template does not write: white space that it strips, where a system text
        ends if it writes that into the user's, and the tool of a result, which is then the first
        called that waits.

        Raises:
          ValueError: no dialogue is rendered so.
        """
        return Parser(self, self.tags, tools).parse(list(ids))

    def _rendered(
        self, dialogue: Dialogue, prompted: bool
    ) -> tuple[list[RenderedMessage], list[int]]:
        return self.assembled(dialogue, chats(dialogue, self.form), prompted)

    def assembled(
        self, dialogue: Dialogue, found: Sequence[Chat], prompted: bool = False
    ) -> tuple[list[RenderedMessage], list[int]]:
        """Returns the messages of chats, and the ids behind them: the prompt, if asked for.

        Args:
          dialogue: names itself and its tools.
          found: its messages, as `chats` gives them.
          prompted: with the prompt for the assistant.

        Raises:
          UserError: see `Template.render`.
        """
        return self._assembled(
            dialogue, found, *self._renderer.render_many(self._requests(dialogue, found, prompted))
        )

    def _whole(
        self,
        dialogue: Dialogue,
        found: Sequence[Chat],
        marked: list[str] | Refused,
        plain: list[str] | Refused,
    ) -> list[RenderedMessage] | Rejected:
        try:
            messages, rest = self._assembled(dialogue, found, marked, plain)
        except Rejected as rejected:
            return rejected
        return [*messages[:-1], messages[-1]._replace(trailer=rest)] if messages else []

    def _requests(self, dialogue: Dialogue, found: Sequence[Chat], prompted: bool) -> list[Request]:
        """Returns what to render: with marks every prefix that matters, without them the whole."""
        blocks = [i for i, chat in enumerate(found) if chat.role == "assistant"]
        prefixes = [p for i in blocks for p in ((i, True), (i + 1, False))]
        prefixes.append((len(found), prompted))
        guard = self.spelling.guard
        tools = dialogue.tools if self.form.takes_tools else ()
        return [
            Request(to_messages(found, guard), prefixes, declared(tools, guard)),
            Request(to_messages(found, None), prefixes[-1:], declared(tools, None)),
        ]

    def _assembled(
        self,
        dialogue: Dialogue,
        found: Sequence[Chat],
        marked: list[str] | Refused,
        plain: list[str] | Refused,
    ) -> tuple[list[RenderedMessage], list[int]]:
        """Returns what `assembled` does, given what `_requests` gave."""
        if isinstance(marked, Refused) or isinstance(plain, Refused):
            refused = marked if isinstance(marked, Refused) else plain
            raise Rejected(dialogue.id, "refused by the chat template", str(refused))
        *parts, whole = marked
        self._check(dialogue, found, parts, whole, *plain)
        cuts: list[Cut] = []
        blocks = [i for i, chat in enumerate(found) if chat.role == "assistant"]
        for chat, before, after in zip(blocks, parts[::2], parts[1::2], strict=True):
            # A space before the assistant's first word is part of the word that it writes.
            cuts.append(Cut(chat, len(before) - before.endswith(" "), len(after)))
        assembly = Assembly(self, dialogue.id)
        rest = assembly.build(found, whole, cuts)
        return assembly.messages, rest

    @staticmethod
    def _check(
        dialogue: Dialogue, found: Sequence[Chat], parts: Sequence[str], whole: str, plain: str
    ) -> None:
        """Raises Rejected where the marked text is not the plain one, or not all that is said."""
        changed = "changed by the chat template"
        if unmarked(whole) != plain:
            detail = "what it writes depends on what is said; no text may change its form"
            raise Rejected(dialogue.id, changed, detail)
        if texts(whole) != [part.text for chat in found for part in chat.parts]:
            detail = "what is said is left out, moved or changed"
            raise Rejected(dialogue.id, changed, detail)
        if not all(map(whole.startswith, parts)):
            detail = "what it writes of the first messages changes with those that follow"
            raise Rejected(dialogue.id, changed, detail)
