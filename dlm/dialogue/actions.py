"""Who and what a model meets: functions to call, the world that they change, and users."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dlm.dialogue.schema import Dialogue, Message


@dataclass(frozen=True)
class Tool:
    """One function that a call may name.

    Attributes:
      parameters: the JSON schema of the arguments, an object.
      function: takes the arguments as keywords, returns the result's text.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    function: Callable[..., str]

    @property
    def declaration(self) -> dict[str, Any]:
        """What `Dialogue.tools` holds of it and the model reads."""
        return {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }


class World(Protocol):
    """What the calls of one conversation act upon.

    A `tools` config names a module whose `world(dialogue: Dialogue) -> World` gives a fresh world,
    as it is at the start of that dialogue.
    """

    @property
    def tools(self) -> Mapping[str, Tool]:
        """The callable functions, by name."""
        ...

    def state(self) -> object:
        """The world's state: JSON-able, equal exactly where the worlds are the same."""
        ...


class User(Protocol):
    """Whoever talks to the model in one conversation: recorded, or simulated with a goal.

    An `eval.users` config names a module whose `user(dialogue: Dialogue) -> User | None` gives a
    user with the goal of that dialogue, None where it has none that can be pursued.
    """

    def say(self, heard: Sequence[Message]) -> str | None:
        """The next message, or None at the end.

        Args:
          heard: what the assistant wrote since the user spoke last; () at the beginning.
        """
        ...

    def is_served(self, conversation: Dialogue, world: World) -> bool:
        """Whether the conversation, now at its end, reached the user's goal in this world."""
        ...
