"""The terminal conversation, on scripted input."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from dlm.commands.chat import chat
from dlm.dialogue.builtin_template import BuiltinTemplate
from dlm.dialogue.readers import read
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.template import Template
from dlm.dialogue.tokenizer import TokenizerConfig, train
from dlm.generation.engine import Completion, GenerateConfig
from dlm.manager.conversation import APOLOGY
from dlm.manager.events import Conversation, SystemSaid, UserSaid, to_dialogue
from tests.manager.scripted import Bookings, ScriptedEngine, called, wrote

OPENING = Conversation((SystemSaid("Be brief."),), Dialogue("d", ()))
ROME = (
    [wrote("intent", "book"), wrote("state", "place=Rome"), called("book", place="Rome")],
    [wrote("act", "told"), wrote("reply", "Booked: caf\u00e9 \u2713")],
)
HELLO = ([wrote("reply", "Hello!")],)


@pytest.fixture(scope="module")
def template() -> Template:
    texts = ["a cheap table for four tonight"] * 3
    return BuiltinTemplate(train(texts, [], TokenizerConfig(vocab_size=290)))


def talk(
    template: Template, responses: tuple, *lines: str, show: set[str] = frozenset()
) -> tuple[str, Conversation]:
    output = io.StringIO()
    conversation = chat(
        ScriptedEngine(template, responses),
        template,
        Bookings,
        OPENING,
        GenerateConfig(),
        input_stream=io.StringIO("".join(f"{line}\n" for line in lines)),
        output_stream=output,
        show=show,
    )
    return output.getvalue(), conversation


def test_replies_alone_are_shown_at_first(template: Template):
    shown, conversation = talk(template, (*HELLO, *ROME), "hi", "", "a table in Rome")
    assert shown == "Hello!\nBooked: caf\u00e9 \u2713\n"
    assert len([e for e in conversation.events if isinstance(e, UserSaid)]) == 2


def test_everything_is_shown_when_asked(template: Template):
    shown, _ = talk(template, ROME, "/show all", "Rome")
    assert shown.splitlines() == [
        "showing intent state reason call act result",
        "[intent] book",
        "[state] place=Rome",
        '[call] {"name": "book", "arguments": {"place": "Rome"}}',
        "[result] booked Rome",
        "[act] told",
        "Booked: caf\u00e9 \u2713",
    ]


def test_show_takes_names(template: Template):
    lines = ("/show", "/show intent", "/show colour", "Rome", "/show none")
    shown, _ = talk(template, ROME, *lines, show={"state"})
    assert shown.splitlines() == [
        "showing state",
        "showing intent",
        "cannot show colour; one of: intent state reason call act result, all, none",
        "[intent] book",
        "Booked: caf\u00e9 \u2713",
        "showing replies only",
    ]


def test_state_undo_and_reset(template: Template):
    """The world goes back with the conversation."""
    lines = ("/undo", "Rome", "/state", "hi", "/undo", "/state", "/undo", "/state", "/reset")
    shown, conversation = talk(template, (*ROME, *HELLO), *lines)
    assert shown.splitlines() == [
        "(nothing to take back)",
        "Booked: caf\u00e9 \u2713",
        "state: place=Rome",
        'world: [["Rome", 2]]',
        "Hello!",
        "(taken back)",
        "state: place=Rome",
        'world: [["Rome", 2]]',
        "(taken back)",
        "state: ",
        "world: []",
        "(a new conversation)",
    ]
    assert conversation == OPENING


def test_save_writes_the_format(template: Template, tmp_path: Path):
    path, taken = tmp_path / "said.jsonl", tmp_path / "taken"
    taken.write_text("mine")
    lines = (
        "Rome",
        f"/save {path}",
        f"/save {path}",
        f"/save {taken}",
        "/save",
        f"/save {taken}/x",
    )
    shown, conversation = talk(template, ROME, *lines)
    assert shown.splitlines()[1:5] == [
        *[f"saved to {path}"] * 2,
        f"{taken} is there already; choose another name",
        "which file? /save FILE",
    ]
    assert shown.splitlines()[5].startswith("not saved: ")
    assert list(read(path)) == [to_dialogue(conversation)]
    assert taken.read_text() == "mine"
    assert next(iter(read(path))).messages[-1] == Message("assistant", "Booked: caf\u00e9 \u2713")


def test_quit_and_unknown_commands(template: Template):
    shown, _ = talk(template, (), "/dance", "/help", "/quit", "never read")
    assert shown.splitlines()[0] == "unknown command /dance; /help lists them"
    assert "/undo" in shown


def test_a_failure_is_a_polite_reply(template: Template):
    cut = Completion(
        (template.tokenizer.control("<|reply|>"), *template.tokenizer.encode("so")), "stuck", 0.0
    )
    shown, _ = talk(template, (cut, *HELLO), "hi", "hi")
    assert shown.splitlines() == ["so", APOLOGY, "Hello!"]


def test_a_terminal_is_asked_and_obeys_nothing(template: Template):
    """Prompts stand on a terminal only; control characters of a reply never reach it."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    output = io.StringIO()
    engine = ScriptedEngine(template, ([wrote("reply", "a\x1b[2Jb\x9bc\n\td")],))
    given = {"input_stream": Terminal("hi\n"), "output_stream": output, "show": set()}
    chat(engine, template, Bookings, OPENING, GenerateConfig(), **given)
    assert output.getvalue() == "> a\ufffd[2Jb\ufffdc\n\td\n> \n"
