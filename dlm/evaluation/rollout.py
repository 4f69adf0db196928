"""Live conversations: a user speaks, the model keeps its own history, its calls are executed.

The user is the one recorded in a dialogue, whatever the model answers, or a simulated one who
pursues the dialogue's goal and reacts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dlm.core.mean import Mean
from dlm.dialogue.actions import User, World
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.template import Template, message_text
from dlm.generation.engine import GenerateConfig, Writer
from dlm.manager.actions import execute
from dlm.manager.conversation import respond, run_batch
from dlm.manager.events import Called, Conversation, from_dialogue, to_dialogue

MAX_TURNS = 30  # of a simulated user


@dataclass(frozen=True)
class Rollout:
    """One conversation held: what was said, in how many turns, and whether the goal was reached."""

    conversation: Conversation
    turns: int
    success: bool


class RecordedUser:
    """Says what the user of a dialogue said; served where the world ends as recorded.

    Args:
      dialogue: the recording.
      open_world: gives a fresh world, in which its calls are executed.
    """

    def __init__(self, dialogue: Dialogue, open_world: Callable[[Dialogue], World]) -> None:
        self._texts = [message_text(m) for m in reversed(dialogue.messages) if m.role == "user"]
        self._end_state = end_state(dialogue, open_world)

    def say(self, heard: Sequence[Message]) -> str | None:
        """The next recorded message, whatever was heard."""
        del heard
        return self._texts.pop() if self._texts else None

    def is_served(self, conversation: Dialogue, world: World) -> bool:
        """Whether the world is in the state that the recorded calls lead to."""
        del conversation
        return world.state() == self._end_state


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


def roll_out(
    dialogues: Sequence[Dialogue],
    users: Sequence[User],
    open_world: Callable[[Dialogue], World],
    engine: Writer,
    template: Template,
    config: GenerateConfig,
    *,
    max_turns: int | None = None,
) -> list[Rollout]:
    """Holds all conversations at once, one batch a round.

    Args:
      dialogues: where each conversation begins: its system text, context and tools.
      users: whoever speaks in each; used up.
      open_world: gives the fresh world of a dialogue.
      engine: writes responses.
      template: of the model.
      config: how responses are written.
      max_turns: after so many a user is cut off; None = never.
    """
    worlds = [open_world(dialogue) for dialogue in dialogues]
    conversations = [opening(dialogue) for dialogue in dialogues]
    spoken = [user.say(()) for user in users]
    turns = [0] * len(users)
    while live := [i for i, text in enumerate(spoken) if text is not None]:
        rounds = [
            respond(
                conversations[i],
                spoken[i] or "",
                worlds[i],
                template,
                constrained=config.constrained,
                max_new_tokens=config.max_new_tokens,
            )
            for i in live
        ]
        for i, conversation in zip(live, run_batch(engine, rounds, config), strict=True):
            turns[i] += 1
            conversations[i] = conversation
            over = turns[i] == max_turns
            spoken[i] = None if over else users[i].say(_heard(conversation))
    return [
        Rollout(conversation, count, user.is_served(to_dialogue(conversation), world))
        for conversation, count, user, world in zip(
            conversations, turns, users, worlds, strict=True
        )
    ]


def success(rollouts: Sequence[Rollout]) -> Mean:
    """Share of conversations whose goal was reached."""
    return Mean(float(sum(rollout.success for rollout in rollouts)), float(len(rollouts)))


def _heard(conversation: Conversation) -> tuple[Message, ...]:
    """What the assistant wrote in the last round."""
    messages = to_dialogue(conversation).messages
    last = max(i for i, message in enumerate(messages) if message.role == "user")
    return tuple(message for message in messages[last:] if message.role == "assistant")
