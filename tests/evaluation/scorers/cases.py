"""Examples made by hand: gold and written messages, response by response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlm.dialogue.schema import Dialogue, Message
from dlm.evaluation.predict import Prediction
from dlm.evaluation.scoring import Example

Response = Mapping[str, Any]  # channel -> text; `call` -> (name, arguments)


def messages(response: Response) -> tuple[Message, ...]:
    """A response's messages in the order given."""
    made = []
    for channel, text in response.items():
        if channel == "call":
            name, arguments = text
            made.append(Message("assistant", "", "call", name=name, arguments=arguments))
        else:
            made.append(Message("assistant", text, channel))
    return tuple(made)


def example(
    *responses: tuple[Response, Response], task: str = "", identity: str = "d", **meta: Any
) -> Example:
    """A dialogue of (gold, written) responses, each after a user's message."""
    said: list[Message] = []
    predictions = []
    for number, (gold, written) in enumerate(responses):
        said += [Message("user", f"question {number}"), *messages(gold)]
        predictions.append(Prediction(identity, number, messages(gold), messages(written), True))
    return Example(Dialogue(identity, tuple(said), task=task, meta=meta), tuple(predictions))


def replies(*pairs: tuple[str, str], **more: Any) -> Example:
    """A dialogue of (gold, written) replies."""
    return example(*(({"reply": gold}, {"reply": written}) for gold, written in pairs), **more)


def figures(scorer: Any, examples: Sequence[Example]) -> dict[str, float]:
    """What a scorer finds."""
    return scorer(examples).figures
