"""Greedy responses from the gold history: what the model would have said at each point."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from dlm.dialogue.actions import World
from dlm.dialogue.schema import Dialogue, Message, response_units, to_json
from dlm.dialogue.template import message_text, parse, prompt
from dlm.dialogue.tokenizer import Tokenizer
from dlm.generation.constraints import ResponseGrammar
from dlm.generation.engine import Engine, GenerateConfig, Request
from dlm.manager.conversation import without_oldest_turn


@dataclass(frozen=True)
class Prediction:
    """One response unit: the gold messages and what the model wrote in their place."""

    dialogue: str
    unit: int
    gold: tuple[Message, ...]
    predicted: tuple[Message, ...]
    finished: bool

    def to_json(self) -> dict:
        """A JSON-able record: one line of `predictions/SPLIT.jsonl`."""
        return {
            "dialogue": self.dialogue,
            "unit": self.unit,
            "gold": [message_json(m) for m in self.gold],
            "predicted": [message_json(m) for m in self.predicted],
            "finished": self.finished,
        }


def message_json(message: Message) -> dict:
    """A message as it stands in a dialogue's JSON."""
    return to_json(Dialogue(id="", messages=(message,)))["messages"][0]


def reply_text(messages: Iterable[Message]) -> str | None:
    """The text of the `reply` among messages, or None where the unit ends in a call."""
    for message in messages:
        if message.channel == "reply":
            return message_text(message)
    return None


def spelled(messages: Iterable[Message]) -> list[tuple[str | None, str]]:
    """What messages say: the channel and text of each, weights and notes left out."""
    return [(message.channel, message_text(message)) for message in messages]


def predict(
    dialogues: Sequence[Dialogue],
    engine: Engine,
    tokenizer: Tokenizer,
    config: GenerateConfig,
    open_world: Callable[[Dialogue], World],
) -> list[Prediction]:
    """Writes every response unit of the dialogues anew, each from its gold history.

    A history that leaves no room for a response loses its oldest whole turns.
    """
    places, requests = [], []
    for dialogue in dialogues:
        tools = open_world(dialogue).tools
        for index, unit in enumerate(response_units(dialogue)):
            history = replace(dialogue, messages=dialogue.messages[: unit[0]])
            ids = prompt(history, tokenizer)
            while len(ids) > engine.max_length - config.max_new_tokens:
                shorter = without_oldest_turn(history)
                if shorter is None:
                    break
                history, ids = shorter, prompt(shorter, tokenizer)
            resumed = bool(history.messages) and history.messages[-1].role == "tool"
            grammar = ResponseGrammar(
                tokenizer, tools, constrained=config.constrained, resumed=resumed
            )
            places.append((dialogue, index, unit))
            requests.append(Request(ids, grammar, config.max_new_tokens))
    return [
        Prediction(
            dialogue=dialogue.id,
            unit=index,
            gold=tuple(dialogue.messages[i] for i in unit),
            predicted=parsed(done.ids, tokenizer),
            finished=done.reason == "stop",
        )
        for (dialogue, index, unit), done in zip(
            places, engine.generate(requests, config), strict=True
        )
    ]


def parsed(ids: Sequence[int], tokenizer: Tokenizer) -> tuple[Message, ...]:
    """The messages written after the assistant's header; () where the ids spell none."""
    try:
        return tuple(parse([tokenizer.control("<|assistant|>"), *ids], tokenizer))
    except ValueError:
        return ()
