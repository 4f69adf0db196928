"""A small world, and an engine that writes what a script says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from dlm.dialogue.actions import Tool
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.template import Template
from dlm.generation.engine import Completion, GenerateConfig, Request, Written, collect


class Bookings:
    """A world with one list: `book` adds to it and `find` reads it."""

    def __init__(self, dialogue: Dialogue | None = None) -> None:
        self.booked: list[object] = []
        text, number = {"type": "string"}, {"type": "integer"}
        both = {"place": text, "people": number}
        self.tools = {
            "book": self.tool("book", self.book, both, required=["place"]),
            "find": self.tool("find", lambda place: f"{place} is free", {"place": text}),
        }

    @staticmethod
    def tool(
        name: str, function: Callable[..., str], properties: dict, required: Sequence[str] = ()
    ) -> Tool:
        schema = {"type": "object", "properties": properties, "required": list(required)}
        return Tool(name, "", schema, function)

    def book(self, place: str, people: int = 2) -> str:
        self.booked.append([place, people])
        return f"booked {place}"

    def state(self) -> object:
        return self.booked


def output_ids(template: Template, messages: Sequence[Message]) -> list[int]:
    """What a model writes for assistant messages: outputs, with headers between them."""
    rendered = template.render(Dialogue("", tuple(messages)))
    return [token for message in rendered for token in message.header + message.output][1:]


class ScriptedEngine:
    """Answers requests in turn with scripted responses, each within the request's grammar.

    A response is messages, or a Completion to be given as it is.
    """

    def __init__(self, template: Template, responses: Sequence[Sequence[Message] | Completion]):
        self.template = template
        self.responses = list(responses)
        self.requests: list[Request] = []

    def generate(self, requests: Sequence[Request], config: GenerateConfig) -> list[Completion]:
        return collect(len(requests), self.stream(requests, config))

    def stream(self, requests: Sequence[Request], config: GenerateConfig) -> Iterator[Written]:
        for place, request in enumerate(requests):
            self.requests.append(request)
            response = self.responses.pop(0)
            if isinstance(response, Completion):
                ids, reason = response.ids, response.reason
            else:
                ids, reason = output_ids(self.template, response), "stop"
                for token in ids:
                    assert request.grammar.allows(token)
                    request.grammar.advance(token)
                assert request.grammar.done
            for token in ids:
                yield Written(place, token, 0.0, None)
            yield Written(place, None, 0.0, reason)


def wrote(channel: str, content: str) -> Message:
    return Message("assistant", content, channel)


def called(name: str, **arguments: object) -> Message:
    return Message("assistant", "", "call", name, arguments)
