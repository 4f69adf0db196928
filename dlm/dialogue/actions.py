"""What a model can call: functions with a schema, and the world that they change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


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
