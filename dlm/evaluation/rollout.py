"""Live replay: the user is as recorded, the model keeps its own history, its calls are executed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dlm.core.mean import Mean
from dlm.dialogue.actions import World
from dlm.dialogue.schema import Dialogue
from dlm.dialogue.template import Template, message_text
from dlm.generation.engine import Engine, GenerateConfig
from dlm.manager.actions import execute
from dlm.manager.conversation import respond, run_batch
from dlm.manager.events import Called, Conversation, from_dialogue


@dataclass(frozen=True)
class Replay:
    """One replayed dialogue: what was said in it, and whether its world ended as recorded."""

    conversation: Conversation
    success: bool


def opening(dialogue: Dialogue) -> Conversation:
    """The conversation as it stands before the first user message: system and context only."""
    messages = []
    for message in dialogue.messages:
        if message.role not in ("system", "context"):
            break
        messages.append(message)
    return from_dialogue(dialogue, messages=tuple(messages))


def end_state(dialogue: Dialogue, open_world: Callable[[Dialogue], World]) -> object:
    """The state of a fresh world after the dialogue's recorded calls, executed like live ones."""
    world = open_world(dialogue)
    for message in dialogue.messages:
        if message.channel == "call":
            execute(world, Called(name=message.name, arguments=message.arguments))
    return world.state()


def replay(
    dialogues: Sequence[Dialogue],
    open_world: Callable[[Dialogue], World],
    engine: Engine,
    template: Template,
    config: GenerateConfig,
) -> list[Replay]:
    """Replays the recorded user turns of all dialogues at once, one batch a round.

    Success = the world ends in the state that the recorded calls lead to.
    """
    worlds = [open_world(d) for d in dialogues]
    users = [[message_text(m) for m in d.messages if m.role == "user"] for d in dialogues]
    conversations = [opening(d) for d in dialogues]
    for turn in range(max(map(len, users), default=0)):
        live = [i for i in range(len(dialogues)) if turn < len(users[i])]
        rounds = [
            respond(
                conversations[i],
                users[i][turn],
                worlds[i],
                template,
                constrained=config.constrained,
                max_new_tokens=config.max_new_tokens,
            )
            for i in live
        ]
        for i, conversation in zip(live, run_batch(engine, rounds, config), strict=True):
            conversations[i] = conversation
    return [
        Replay(conversation, world.state() == end_state(dialogue, open_world))
        for conversation, world, dialogue in zip(conversations, worlds, dialogues, strict=True)
    ]


def success(replays: Sequence[Replay]) -> Mean:
    """Share of replayed dialogues whose world ended as recorded."""
    return Mean(float(sum(r.success for r in replays)), float(len(replays)))
