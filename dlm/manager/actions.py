"""Calls: read strictly, checked against their schema, and only then executed, with a time limit."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any, NoReturn

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from dlm.dialogue.actions import Tool, World
from dlm.manager.events import Called, Conversation, Returned

TIME_LIMIT = 5.0
MAX_REASON = 200


class Refusal(Exception):
    """A call that is not executed; the message says why, in the model's own terms."""


def clean(text: str) -> str:
    """Returns text that the format can hold: null bytes and half surrogates become U+FFFD."""
    return (
        text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )


def read_call(text: str) -> Called:
    """Reads the text of a call, `{"name": ..., "arguments": {...}}`.

    Text that is anything else becomes a call of that content alone, which `execute` refuses; its
    weight is 0, so that it is never learned.
    """
    try:
        call = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        name, arguments = call["name"], call["arguments"]
        readable = call.keys() == {"name", "arguments"} and isinstance(name, str)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Called(content=text, weight=0.0)
    if not readable or not isinstance(arguments, dict):
        return Called(content=text, weight=0.0)
    return Called(name=name, arguments=arguments)


def execute(world: World, call: Called, *, seconds: float = TIME_LIMIT) -> Returned:
    """Executes a call, or refuses it; never raises.

    A call past its time is answered with an error, but its thread runs on in the background: a
    Python function cannot be stopped from outside. Tools that are not ours belong into a process.

    Args:
      world: its tools may be called, and may change it.
      call: its arguments are copied before the tool sees them.
      seconds: time limit.

    Returns:
      Returned: the tool's text; where it is not `ok`, the text begins with "error:".
    """
    try:
        tool = check(world.tools, call)
        text = _within(seconds, tool, json.loads(json.dumps(call.arguments)))
    except Refusal as refusal:
        return Returned(name=call.name, content=clean(f"error: {refusal}"), ok=False)
    return Returned(name=call.name, content=clean(text))


def check(tools: Mapping[str, Tool], call: Called) -> Tool:
    """Returns the tool that a call names, if its arguments are what the tool's schema says.

    Arguments that the schema does not name are refused even where JSON Schema would let them pass.

    Raises:
      Refusal: otherwise.
    """
    if call.name is None or call.arguments is None:
        raise Refusal('the call is not of the form {"name": ..., "arguments": {...}}')
    if call.name not in tools:
        raise Refusal(f"unknown tool {call.name!r}; known: {', '.join(tools) or 'none'}")
    schema = tools[call.name].parameters
    known = schema.get("properties", call.arguments)
    unknown = [name for name in call.arguments if name not in known]
    if unknown and not schema.get("additionalProperties"):
        wanted = ", ".join(known) or "none"
        raise Refusal(f"unknown argument {unknown[0]!r} of {call.name}; known: {wanted}")
    error = best_match(Draft202012Validator(schema).iter_errors(call.arguments))
    if error is not None:
        raise Refusal(f"{call.name}{error.json_path[1:]}: {error.message[:MAX_REASON]}")
    return tools[call.name]


def rebuild(world: World, conversation: Conversation) -> World:
    """Brings a fresh world to where the conversation's calls led: those that succeeded, in order.

    Returns:
      World: the same object.
    """
    waiting: list[Called] = []
    for event in conversation.events:
        if isinstance(event, Called):
            waiting.append(event)
        elif isinstance(event, Returned):
            call = next((call for call in waiting if call.name == event.name), None)
            if call is not None:
                waiting.remove(call)
                if event.ok:
                    execute(world, call)
    return world


def _within(seconds: float, tool: Tool, arguments: dict[str, Any]) -> str:
    """Calls the tool in a thread of its own and waits so long."""
    results: list[object] = []

    def work() -> None:
        try:
            results.append(tool.function(**arguments))
        except BaseException as error:  # a tool's failure is a result
            results.append(Refusal(f"{tool.name} failed: {str(error)[:MAX_REASON]}"))

    thread = threading.Thread(target=work, name=f"tool {tool.name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if not results:
        raise Refusal(f"{tool.name} took longer than {seconds:g} seconds")
    if isinstance(results[0], Refusal):
        raise results[0]
    if not isinstance(results[0], str):
        raise Refusal(f"{tool.name} returned {type(results[0]).__name__}, not text")
    return results[0]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
