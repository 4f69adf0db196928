"""Generated dialogues: any Unicode, control tokens' names in the text, every role and channel."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.tokenizer import CONTROL

CUT = tuple(name[:end] for name in CONTROL for end in range(1, len(name)))
PIECES = (
    *CONTROL,
    *CUT,
    " ",
    "  ",
    "\n",
    '"',
    "\\",
    "_",
    "Élan",
    "e\u0301",
    "東京",
    "🙂",
    "\u2028",
)

plain = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)
text = st.one_of(
    plain, st.lists(st.one_of(plain, st.sampled_from(PIECES)), max_size=5).map("".join)
)
name = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=8)
weight = st.sampled_from((0.0, 0.5, 1.0, 2.0))
json_value = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        text,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(text, inner, max_size=2)),
    max_leaves=3,
)
arguments = st.dictionaries(text, json_value, max_size=2)
tool = st.fixed_dictionaries({"name": name, "description": text, "parameters": arguments})


@st.composite
def call(draw: st.DrawFn) -> list[Message]:
    """A call, most often with its result."""
    called = draw(name)
    asked = Message("assistant", "", "call", called, draw(arguments), draw(weight))
    result = Message("tool", draw(text), name=draw(st.sampled_from((called, None))))
    return [asked, result] if draw(st.booleans()) else [asked]


@st.composite
def turn(draw: st.DrawFn) -> list[Message]:
    """A user message and the assistant's round, which may stop anywhere before its reply."""
    messages = [Message("user", draw(text))]
    if draw(st.booleans()):
        messages.insert(draw(st.integers(0, 1)), Message("context", draw(text)))
    for channel in ("intent", "state", "reason"):
        if draw(st.booleans()):
            messages.append(Message("assistant", draw(text), channel, weight=draw(weight)))
    for made in draw(st.lists(call(), max_size=2)):
        messages += made
    for channel in ("act", "reply"):
        if draw(st.booleans()):
            messages.append(Message("assistant", draw(text), channel, weight=draw(weight)))
    return messages


@st.composite
def dialogues(draw: st.DrawFn, max_turns: int = 3) -> Dialogue:
    messages = [Message("system", draw(text))] if draw(st.booleans()) else []
    for more in draw(st.lists(turn(), min_size=1, max_size=max_turns)):
        messages += more
    tools = tuple(draw(st.lists(tool, max_size=2)))
    return Dialogue(draw(name), tuple(messages), task=draw(text), tools=tools)


def as_read(message: Message) -> Message:
    """What of a message its ids can tell."""
    return replace(message, weight=1.0)
