"""What a chat template can do, found out by rendering small conversations with it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from dlm.core.errors import UserError
from dlm.dialogue.chat_messages import CallSyntax, Form
from dlm.dialogue.jinja import Refused, Renderer

_U, _A, _R, _S, _C, _N, _K = (f"zq{letter}qz" for letter in "uarscnk")
_USER = {"role": "user", "content": _U}
_REPLY = {"role": "assistant", "content": _A}
_WORD = re.compile(r"\S+")

Messages = Sequence[dict[str, Any]]


class Probed(NamedTuple):
    """What is known of a template.

    Attributes:
      form: what it can do.
      end: the control token that ends what the assistant says.
      markers: words of its own that are not control tokens, such as `[INST]`.
      spaced: whether a space stands between the prompt and what the assistant says.
    """

    form: Form
    end: str
    markers: frozenset[str]
    spaced: bool


def probe(renderer: Renderer, control: re.Pattern[str]) -> Probed:
    """Finds out what a template can do.

    Args:
      renderer: of the template.
      control: matches the names of the tokenizer's control tokens.

    Raises:
      UserError: it cannot be trained with; says why.
    """
    talk = [_USER, _REPLY, _USER, _REPLY]
    prefixes = [(1, True), (2, False), (3, True), (4, False)]
    try:
        prompt, first, again, whole = renderer.render(talk, prefixes)
    except Refused as error:
        raise _unusable(f"it refuses a plain conversation: {error}") from None
    shared = [text for text in (prompt, first, again) if not whole.startswith(text)]
    if shared or not first.startswith(prompt):
        raise _unusable("what it writes first changes with what follows")
    said = first[len(prompt) :]
    if _A not in said or _U not in prompt:
        raise _unusable("it leaves out what is said")
    end = control.search(said, said.index(_A))
    if end is None:
        raise _unusable("no token ends what the assistant says, so no end can be learned")
    form = Form(
        strips=frozenset(role for role in _SAID if _strips(renderer, role)),
        takes_tools=_takes_tools(renderer),
        tool_role=_takes_results(renderer),
        calls=_calls(renderer, end[0]),
    )
    others = [_SAID["system"], *([_USER, call, _RESULT, _REPLY] for call in _ASKED)]
    literals = [whole, *(_text(renderer, messages) for messages in others)]
    words = {word for text in literals for word in _words(control.sub(" ", text))}
    spaced = prompt.endswith(" ") or said.startswith(f" {_A}")
    return Probed(form, end[0], frozenset(words), spaced)


_SAID: dict[str, Messages] = {  # a conversation in which a role says _S
    "system": [{"role": "system", "content": _S}, _USER, _REPLY],
    "user": [{"role": "user", "content": _S}, _REPLY],
    "assistant": [_USER, {"role": "assistant", "content": _S}, _USER, _REPLY],
    "tool": [_USER, _REPLY, {"role": "tool", "content": _S, "name": "f"}, _REPLY],
}


def _text(renderer: Renderer, messages: Messages, tools: Messages = ()) -> str:
    """What it writes; "" where it cannot."""
    try:
        return renderer.render(messages, [(len(messages), False)], tools)[0]
    except UserError:
        return ""


def _strips(renderer: Renderer, role: str) -> bool:
    around = f" \n{_S}\n "
    messages = [
        {**message, "content": around} if message["content"] == _S else message
        for message in _SAID[role]
    ]
    text = _text(renderer, messages)
    return _S in text and around not in text


def _takes_tools(renderer: Renderer) -> bool:
    function = {"name": _N, "description": "", "parameters": {"type": "object", "properties": {}}}
    return _N in _text(renderer, [_USER, _REPLY], [{"type": "function", "function": function}])


def _takes_results(renderer: Renderer) -> bool:
    return any(_R in _text(renderer, [_USER, call, _RESULT, _REPLY]) for call in _ASKED)


def _call(*names: str, content: str = "") -> dict[str, Any]:
    calls = [
        {
            "id": f"call{number:05d}",
            "type": "function",
            "function": {"name": name, "arguments": {_K: 1}},
        }
        for number, name in enumerate(names or (_N,))
    ]
    return {"role": "assistant", "content": content, "tool_calls": calls}


_RESULT = {"role": "tool", "content": _R, "name": _N, "tool_call_id": "call00000"}
_ASKED: Messages = [{"role": "assistant", "content": _C}, _call()]


def _calls(renderer: Renderer, end: str) -> CallSyntax | None:
    """How it writes calls; None where it does not, or not as JSON between fixed texts."""
    block = _block(renderer, _call(), end)
    found = None if block is None else _object(block)
    if block is None or found is None:
        return None
    start, stop, item = found
    listed = isinstance(item, list)
    item = item[0] if isinstance(item, list) else item
    names = [key for key, value in item.items() if value == _N]
    arguments = [key for key, value in item.items() if value == {_K: 1}]
    if not names or not arguments:
        return None
    syntax = CallSyntax(
        before=block[:start],
        after=block[stop:],
        name_key=names[0],
        arguments_key=arguments[0],
        listed=listed,
        several=False,
        with_text=False,
    )
    two = _block(renderer, _call(_N, _C), end) or ""
    behind = _block(renderer, _call(content=_A), end) or ""
    return replace(
        syntax,
        several=0 <= two.find(_N) < two.find(_C),
        with_text=0 <= behind.find(_A) < behind.find(_N),
    )


def _block(renderer: Renderer, said: dict[str, Any], end: str) -> str | None:
    """What it writes for one message of the assistant, without the end."""
    try:
        prompt, text, _ = renderer.render(
            [_USER, said, _RESULT, _REPLY], [(1, True), (2, False), (4, False)]
        )
    except UserError:
        return None
    stop = text.find(end, len(prompt))
    return text[len(prompt) : stop] if text.startswith(prompt) and stop >= 0 else None


def _object(text: str) -> tuple[int, int, Any] | None:
    """The first object, or list of one, that holds the call: start, end and value."""
    for start in (place.start() for place in re.finditer(r"[\[{]", text)):
        try:
            value, stop = json.JSONDecoder().raw_decode(text, start)
        except ValueError:
            continue
        item = value[0] if isinstance(value, list) and len(value) == 1 else value
        if isinstance(item, dict) and _N in item.values():
            return start, stop, value
    return None


def _words(text: str) -> list[str]:
    """Words that begin and end with a mark, such as `[INST]`; not JSON's, and none of ours."""
    found = [word for word in _WORD.findall(text) if '"' not in word and "zq" not in word]
    return [w for w in found if len(w) > 2 and not w[0].isalnum() and not w[-1].isalnum()]


def _unusable(reason: str) -> UserError:
    return UserError(
        f"the checkpoint's chat template cannot be used: {reason}; set template.name='builtin'"
    )
