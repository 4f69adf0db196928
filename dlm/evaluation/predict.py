"""Greedy responses from the gold history: what the model would have said at each point."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dlm.core.errors import UserError
from dlm.dialogue.actions import Tool, World
from dlm.dialogue.checks import RecordError, kind
from dlm.dialogue.schema import (
    Dialogue,
    Message,
    messages_from_json,
    response_units,
    to_json,
)
from dlm.dialogue.template import Rejected, Template, message_text, response
from dlm.generation.constraints import response_grammar
from dlm.generation.engine import Completion, GenerateConfig, Request, Writer
from dlm.manager.conversation import without_oldest_turn

UNASKED = Completion((), "refused", 0.0)


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


def read_predictions(path: str | Path) -> list[Prediction]:
    """Reads a file of predictions, a line each as `Prediction.to_json` gives it.

    A line needs `dialogue`, `unit` and `predicted`; one from elsewhere may lack the rest.

    Raises:
      UserError: the file cannot be read, or a line is none of this form (with file and line).
    """
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    numbered = ((f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip())
    return [_prediction(line, where) for where, line in numbered]


def _prediction(line: bytes, where: str) -> Prediction:
    try:
        record = json.loads(line)
    except ValueError:
        raise RecordError(where, "", "not JSON; give one prediction a line") from None
    if not isinstance(record, dict):
        raise RecordError(where, "", f"expected an object, got {kind(record)}")
    for name, wanted in (("dialogue", str), ("unit", int), ("predicted", list)):
        if type(record.get(name)) is not wanted:
            problem = f"expected {kind(wanted())}, got {kind(record.get(name))}"
            raise RecordError(where, name, problem)
    return Prediction(
        dialogue=record["dialogue"],
        unit=record["unit"],
        gold=messages_from_json(record.get("gold", []), where, "gold"),
        predicted=messages_from_json(record["predicted"], where, "predicted"),
        finished=bool(record.get("finished", True)),
    )


def message_json(message: Message) -> dict:
    """A message as it stands in a dialogue's JSON."""
    return to_json(Dialogue(id="", messages=(message,)))["messages"][0]


def spelled(messages: Iterable[Message]) -> list[tuple[str | None, str]]:
    """What messages say: the channel and text of each, weights and notes left out."""
    return [(message.channel, message_text(message)) for message in messages]


def predict(
    dialogues: Sequence[Dialogue],
    engine: Writer,
    template: Template,
    config: GenerateConfig,
    open_world: Callable[[Dialogue], World],
) -> list[Prediction]:
    """Writes every response unit of the dialogues anew, each from its gold history.

    A response that the model's limit cuts is written again without the oldest turn of its history,
    as in a live conversation, until it fits or one turn is left. What follows a history that the
    template refuses is not written: an empty prediction, not finished.
    """
    opened = [(dialogue, open_world(dialogue).tools) for dialogue in dialogues]
    units = [
        (dialogue, tools, index, unit)
        for dialogue, tools in opened
        for index, unit in enumerate(response_units(dialogue))
    ]
    histories = [replace(d, messages=d.messages[: unit[0]]) for d, _, _, unit in units]
    written: dict[int, Completion] = {}
    waiting = list(range(len(units)))
    while waiting:
        requests = {
            i: _request(histories[i], units[i][1], template, config, sample=i) for i in waiting
        }
        asked = {i: request for i, request in requests.items() if request is not None}
        completions = engine.generate(list(asked.values()), config)
        written.update(dict.fromkeys(waiting, UNASKED))
        written.update(zip(asked, completions, strict=True))
        cut = [i for i in waiting if _is_cut(written[i], config)]
        shorter = {i: without_oldest_turn(histories[i]) for i in cut}
        waiting = [i for i in cut if shorter[i] is not None]
        histories = [shorter.get(i) or history for i, history in enumerate(histories)]
    return [
        Prediction(
            dialogue=dialogue.id,
            unit=index,
            gold=tuple(dialogue.messages[i] for i in unit),
            predicted=parsed(written[place].ids, template),
            finished=written[place].reason == "stop",
        )
        for place, (dialogue, _, index, unit) in enumerate(units)
    ]


def _request(
    history: Dialogue,
    tools: Mapping[str, Tool],
    template: Template,
    config: GenerateConfig,
    *,
    sample: int,
) -> Request | None:
    """Asks for the response that follows a history; None where the template refuses it."""
    resumed = bool(history.messages) and history.messages[-1].role == "tool"
    grammar = response_grammar(template, tools, constrained=config.constrained, resumed=resumed)
    try:
        return Request(template.prompt(history), grammar, config.max_new_tokens, sample)
    except Rejected:
        return None


def _is_cut(completion: Completion, config: GenerateConfig) -> bool:
    """Whether the model's limit ended a response, not the limit of new tokens."""
    return completion.reason == "length" and len(completion.ids) < config.max_new_tokens


def parsed(ids: Sequence[int], template: Template) -> tuple[Message, ...]:
    """The messages written after the assistant's header; () where the ids spell none."""
    try:
        return tuple(response(template, ids))
    except ValueError:
        return ()
