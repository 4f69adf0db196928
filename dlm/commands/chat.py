"""Talks to a trained model in the terminal; its calls are executed.

    python run.py chat --workdir=DIR [--like=SPLIT:INDEX] [--show=all] [--config.generate.KEY=VALUE]

The conversation begins as a dialogue of the corpus does (--like; the first of the first evaluated
split): with its system and context messages, and in its world; an imported model has no corpus and
begins with nothing. --show names what is shown beside replies: intent, state, reason, call, act,
result, several with commas, or all. /help lists what can be typed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TextIO

from dlm.commands.setup import Setup, parse_options, take_flag
from dlm.core.errors import UserError
from dlm.dialogue.actions import World
from dlm.dialogue.readers import write_jsonl
from dlm.dialogue.schema import CHANNELS, Dialogue
from dlm.dialogue.template import Template
from dlm.evaluation.rollout import opening
from dlm.generation.engine import Engine, GenerateConfig, Request
from dlm.generation.response_text import ResponseText
from dlm.manager import actions
from dlm.manager.conversation import respond, run_one
from dlm.manager.events import Called, Conversation, Returned, Wrote, fold, to_dialogue, undo

SHOWABLE = (*(channel for channel in CHANNELS if channel != "reply"), "result")

CONTROL_CHARACTERS = {
    code: "\ufffd" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
}

HELP = f"""/show [NAME ...]  what is shown beside replies: {" ".join(SHOWABLE)}, all or none
/state            the state the model keeps, and the world's
/undo             take back the last message and what followed
/reset            begin again
/save FILE        write the conversation as a line of JSON
/help  /quit      this list; leave (also Ctrl-D)"""


def run(argv: list[str]) -> int:
    """The verb `chat`."""
    like, rest = take_flag(argv, "like")
    show, rest = take_flag(rest, "show")
    options = parse_options(rest, saved=True)
    if options.rest:
        raise UserError(f"chat does not know {options.rest[0]!r}; see python run.py chat --help")
    shown = set(SHOWABLE) if show == "all" else set(filter(None, (show or "").split(",")))
    if shown.difference(SHOWABLE):
        raise UserError(f"--show={show}: give some of {','.join(SHOWABLE)}, or all")
    setup = Setup(options)
    engine = setup.engine(setup.trained_params())
    begun = Dialogue("", ())
    if like or setup.has_corpus:
        begun = pick(setup, like or f"{setup.settings.eval.splits[0]}:0")
    introduction = getattr(setup.open_world(begun), "introduction", None)
    begins = [introduction()] if introduction else []
    print(*begins, "/help lists commands.", sep="\n", file=sys.stderr)
    chat(
        engine,
        setup.template,
        setup.open_world,
        replace(opening(begun), record=replace(begun, id="", messages=())),
        setup.settings.generate,
        input_stream=sys.stdin,
        output_stream=sys.stdout,
        show=shown,
    )
    return 0


def pick(setup: Setup, name: str) -> Dialogue:
    """The dialogue that `SPLIT:INDEX` names.

    Raises:
      UserError: there is no such split or dialogue.
    """
    split, _, index = name.partition(":")
    source = setup.split(split)
    if not index.isdecimal() or int(index) >= len(source):
        raise UserError(f"--like={name}: give {split}:0 to {split}:{len(source) - 1}")
    return source[int(index)]


def chat(
    engine: Engine,
    template: Template,
    world: Callable[[Dialogue], World],
    opening: Conversation,
    config: GenerateConfig,
    *,
    input_stream: TextIO,
    output_stream: TextIO,
    show: set[str],
) -> Conversation:
    """Talks until the input ends or `/quit`.

    Args:
      engine: writes the responses.
      template: of the model.
      world: gives a fresh world for the opening; called again by `/reset` and `/undo`.
      opening: what stands before the first message.
      config: how responses are written.
      input_stream: lines; a prompt is shown only where it is a terminal.
      output_stream: what is said back.
      show: channels written out beside the reply, of `SHOWABLE`.

    Returns:
      Conversation: all that was said.
    """
    session = Session(engine, template, world, opening, config, output_stream, set(show))
    asks = input_stream.isatty()
    while True:
        if asks:
            session.write("> ")
        line = input_stream.readline()
        text = line.strip()
        if not line or text == "/quit":
            session.write("\n" if asks and not line else "")
            return session.conversation
        if text.startswith("/"):
            session.command(*text.split(maxsplit=1))
        elif text:
            session.say(text)


@dataclass
class Session:
    """One conversation at the terminal and the world that its calls act on."""

    engine: Engine
    template: Template
    open_world: Callable[[Dialogue], World]
    opening: Conversation
    config: GenerateConfig
    output: TextIO
    show: set[str]
    saved: set[Path] = field(default_factory=set)
    conversation: Conversation = field(init=False)
    world: World = field(init=False)

    def __post_init__(self) -> None:
        self.go_to(self.opening)

    def go_to(self, conversation: Conversation) -> None:
        """Takes up a conversation, with the world that its calls lead to."""
        self.conversation = conversation
        self.world = actions.rebuild(self.open_world(to_dialogue(self.opening)), conversation)

    def write(self, text: str) -> None:
        """Writes at once; control characters, which a terminal would obey, become U+FFFD."""
        self.output.write(text.translate(CONTROL_CHARACTERS))
        self.output.flush()

    def say(self, text: str) -> None:
        """One round: streams the reply, and what is shown beside it."""
        display = Display(self.template, self.write, self.show)
        generator = respond(
            self.conversation,
            text,
            self.world,
            self.template,
            constrained=self.config.constrained,
            max_new_tokens=self.config.max_new_tokens,
            execute=display.execute,
        )
        self.conversation = run_one(self.engine, generator, self.config, display.token)
        display.close(self.conversation)

    def command(self, name: str, rest: str = "") -> None:
        """Does what a line that begins with a slash asks."""
        match name:
            case "/help":
                self.write(HELP + "\n")
            case "/reset":
                self.go_to(self.opening)
                self.write("(a new conversation)\n")
            case "/undo":
                before = undo(self.conversation)
                told = "taken back" if before != self.conversation else "nothing to take back"
                self.go_to(before)
                self.write(f"({told})\n")
            case "/state":
                self.write_state()
            case "/show":
                self.choose(rest.split())
            case "/save":
                self.save(rest)
            case _:
                self.write(f"unknown command {name}; /help lists them\n")

    def write_state(self) -> None:
        """Writes the belief state and the world's state."""
        world = json.dumps(self.world.state(), ensure_ascii=False)
        self.write(
            f"state: {fold(self.conversation.events).latest.get('state', '')}\nworld: {world}\n"
        )

    def choose(self, names: list[str]) -> None:
        """Changes what is shown beside replies."""
        chosen = {"all": set(SHOWABLE), "none": set()}.get(" ".join(names), set(names))
        unknown = chosen.difference(SHOWABLE)
        if unknown:
            self.write(f"cannot show {min(unknown)}; one of: {' '.join(SHOWABLE)}, all, none\n")
            return
        if names:
            self.show = chosen
        shown = [name for name in SHOWABLE if name in self.show]
        self.write(f"showing {' '.join(shown) or 'replies only'}\n")

    def save(self, name: str) -> None:
        """Writes the conversation to a file; only one that this session wrote is replaced."""
        path = Path(name).expanduser()
        if not name:
            self.write("which file? /save FILE\n")
        elif not self.conversation.events:
            self.write("nothing was said yet; nothing saved\n")
        elif path.exists() and path not in self.saved:
            self.write(f"{path} is there already; choose another name\n")
        else:
            try:
                write_jsonl(path, [to_dialogue(self.conversation)])
            except (OSError, UserError) as error:
                self.write(f"not saved: {error}\n")
                return
            self.saved.add(path)
            self.write(f"saved to {path}\n")


class Display:
    """Writes one round as it comes: the reply's text, and a line for each other shown channel."""

    def __init__(self, template: Template, write: Callable[[str], None], show: set[str]) -> None:
        self._template = template
        self._write = write
        self._show = show
        self._request: Request | None = None
        self._text = ResponseText(template)
        self._line_open = False

    def token(self, request: Request, token: int) -> None:
        """Takes a token; a new request begins a new response."""
        if request is not self._request:
            self._end_line()
            self._request, self._text = request, ResponseText(self._template)
        piece = self._text.feed(token)
        if piece is None or (piece.channel != "reply" and piece.channel not in self._show):
            return
        if not self._line_open and piece.channel != "reply":
            self._write(f"[{piece.channel}] ")
        self._line_open = True
        self._write(piece.text)
        if piece.ended:
            self._end_line()

    def execute(self, world: World, call: Called) -> Returned:
        """Executes a call and shows its result."""
        result = actions.execute(world, call)
        if "result" in self._show:
            self._write(f"[result] {result.content}\n")
        return result

    def close(self, conversation: Conversation) -> None:
        """Ends the round; a reply that the model did not write is shown now."""
        self._end_line()
        last = conversation.events[-1]
        if isinstance(last, Wrote) and last.meta.get("by") == "manager":
            self._write(f"{last.content}\n")

    def _end_line(self) -> None:
        if self._line_open:
            self._write("\n")
        self._line_open = False
