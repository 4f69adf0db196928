"""The embedded corpus, spoken again: a model that writes the gold gets the gold dialogue."""

from __future__ import annotations

from dlm.corpora.concierge.builder import Options, draw
from dlm.corpora.concierge.skills import SKILLS
from dlm.corpora.concierge.world import world
from dlm.dialogue.schema import Dialogue, response_units
from dlm.dialogue.template import Template
from dlm.manager.conversation import respond, run_one
from dlm.manager.events import from_dialogue, to_dialogue
from tests.manager.scripted import ScriptedEngine


def replay(dialogue: Dialogue, template: Template) -> Dialogue:
    """Says the user's messages; the gold responses are written, the calls really executed."""
    units = [[dialogue.messages[i] for i in unit] for unit in response_units(dialogue)]
    engine, opened = ScriptedEngine(template, units), world(dialogue)
    conversation = from_dialogue(dialogue, messages=())
    for message in dialogue.messages:
        if message.role == "user":
            generator = respond(conversation, str(message.content), opened, template)
            conversation = run_one(engine, generator)
    assert opened.state() == dialogue.meta["end_state"]
    return to_dialogue(conversation)


def test_gold_responses_fit_the_grammar_and_lead_to_the_gold_dialogue(template: Template):
    options = Options(skills=tuple(SKILLS), dialogues=18, held_out=6, cities=3, unseen_cities=2)
    dialogues = [d for split in draw(options).values() for d in split]
    assert {d.task for d in dialogues} == set(SKILLS)
    for dialogue in dialogues:
        assert replay(dialogue, template).messages == dialogue.messages
