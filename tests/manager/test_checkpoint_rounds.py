"""Rounds in checkpoints' chat templates: calls executed, and prompts that training saw."""

from __future__ import annotations

import pytest

from dlm.dialogue.chat_template import ChatTemplate
from dlm.dialogue.encoding import encode
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.schema import Dialogue, validate
from dlm.generation.engine import Completion
from dlm.manager.conversation import APOLOGY, respond, run_one
from dlm.manager.events import (
    Called,
    Conversation,
    Failed,
    Returned,
    SystemSaid,
    UserSaid,
    Wrote,
    to_dialogue,
)
from tests.dialogue.chat_forms import FORMS, checkpoint
from tests.manager.scripted import Bookings, ScriptedEngine, called, wrote

BOOK = called("book", place="Rome", people=4)
FIND = called("find", place="Oslo")
DONE = wrote("reply", "Booked <|im_end|>.")


class Writing(ScriptedEngine):
    """Writes messages as blocks of the template."""

    def ids(self, messages):
        said = Dialogue("", (to_dialogue(Conversation((UserSaid("x"),))).messages[0], *messages))
        rendered = self.template.render(said)
        return [i for message in rendered if message.role == "assistant" for i in message.output]

    def stream(self, requests, config):
        self.responses = [
            Completion(tuple(self.ids(r)), "stop", 0.0) if isinstance(r, list) else r
            for r in self.responses
        ]
        return super().stream(requests, config)


def converse(template, responses, opening=(), text="a table"):
    engine, world = Writing(template, responses), Bookings()
    start = Conversation(tuple(opening), Dialogue("d", ()))
    return run_one(engine, respond(start, text, world, template)), world, engine


@pytest.mark.parametrize("form", FORMS)
def test_a_round_with_a_call(form: str):
    """One rendering: each prompt is a prefix of the finished dialogue's training tokens."""
    template = ChatTemplate(checkpoint(form))
    opening = [] if form == "gemma" else [SystemSaid("Be brief.")]
    responses = [[wrote("state", "place=Rome"), BOOK], [wrote("act", "told"), DONE]]
    conversation, world, engine = converse(template, responses, opening)
    assert conversation.events == (
        *opening,
        UserSaid("a table"),
        Wrote(channel="state", content="place=Rome"),
        Called(name="book", arguments={"place": "Rome", "people": 4}),
        Returned(name="book", content="booked Rome"),
        Wrote(channel="act", content="told"),
        Wrote(channel="reply", content="Booked <|im_end|>."),
    )
    assert world.state() == [["Rome", 4]]
    dialogue = to_dialogue(conversation)
    validate(dialogue, "")
    tokens = encode(dialogue, template, PolicyConfig()).tokens.tolist()
    for request in engine.requests:
        assert request.prompt == tokens[: len(request.prompt)]


@pytest.mark.parametrize("form", ["qwen", "mistral", "zephyr"])
def test_several_calls_of_one_block_are_all_executed(form: str):
    conversation, world, engine = converse(ChatTemplate(checkpoint(form)), [[BOOK, FIND], [DONE]])
    names = [e.name for e in conversation.events if isinstance(e, Called | Returned)]
    assert names == ["book", "find", "book", "find"]
    assert world.state() == [["Rome", 4]]
    assert len(engine.requests) == 2
    validate(to_dialogue(conversation), "")


def test_a_history_that_the_template_refuses_is_a_recorded_apology():
    """The conversation goes on; no prompt is asked that training could not have seen."""
    gemma = ChatTemplate(checkpoint("gemma"))
    conversation, _, engine = converse(gemma, [], [SystemSaid("Be brief.")])
    *_, failed, apology = conversation.events
    assert isinstance(failed, Failed)
    assert failed.reason.startswith("refused: dialogue d: refused by the chat template: a system")
    assert (apology.content, apology.weight) == (APOLOGY, 0.0)
    assert engine.requests == []


def test_what_was_whole_before_the_failure_is_kept():
    chatml = ChatTemplate(checkpoint("chatml"))
    ids = chatml.spelling.literal("<state>a</state>\n<act>b")
    conversation, _, _ = converse(chatml, [Completion(tuple(ids), "length", 0.0)])
    assert conversation.events[1] == Wrote(channel="state", content="a")
    assert conversation.events[2] == Failed("length", "<act>b")
