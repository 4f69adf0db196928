"""Scores what a model wrote: scorers found by name, the gold as upper bound, a trivial baseline.

A scorer is a pure function in a file of its own:

    (examples) -> Scored(figures, signature)

It reads dialogues with the responses written in them, so predictions that were stored are scored
again without the model. It gives figures only of what it finds: a scorer of dialogue states has
none for chat, and so one list of scorers serves a mixture of tasks.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from dlm.core.errors import UserError
from dlm.dialogue.schema import Dialogue, Message, response_units
from dlm.dialogue.template import message_text
from dlm.evaluation import scorers as folder
from dlm.evaluation.predict import Prediction, spelled


class Example(NamedTuple):
    """A dialogue and what was written in place of its responses, in the order of its units."""

    dialogue: Dialogue
    predictions: tuple[Prediction, ...]


class Scored(NamedTuple):
    """What a scorer gives.

    Attributes:
      figures: metric -> value, shares in 0..1; those that nothing was found for are absent.
      signature: how exactly they are measured: conventions, normalisation, tools.
    """

    figures: dict[str, float]
    signature: str


Scorer = Callable[[Sequence[Example]], Scored]


def known() -> list[str]:
    """The names of the scorers of this project."""
    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__))


def find(name: str) -> Scorer:
    """Finds a scorer: `rouge` of `dlm/evaluation/scorers`, or `package.module:function`.

    Raises:
      UserError: there is none of that name.
    """
    if ":" not in name and name not in known():
        near = difflib.get_close_matches(name, known(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known())}"
        raise UserError(f"eval.scorers: no scorer {name!r}; {hint}")
    path = name if ":" in name else f"{folder.__name__}.{name}:{name}"
    module, _, function = path.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"eval.scorers: {name!r}: {error}; name a function as 'package.module:function'"
        ) from None


def examples(dialogues: Iterable[Dialogue], predictions: Iterable[Prediction]) -> list[Example]:
    """Lays predictions beside their dialogues; a dialogue without any is left out.

    Raises:
      ValueError: a dialogue's predictions are not its units, each once.
    """
    written: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        written.setdefault(prediction.dialogue, []).append(prediction)
    paired = []
    for dialogue in dialogues:
        own = sorted(written.get(dialogue.id, ()), key=lambda prediction: prediction.unit)
        units = len(response_units(dialogue))
        if own and [prediction.unit for prediction in own] != list(range(units)):
            raise ValueError(f"dialogue {dialogue.id}: {len(own)} predictions of {units} responses")
        if own:
            paired.append(Example(dialogue, tuple(own)))
    return paired


def score(names: Sequence[str], given: Sequence[Example]) -> Scored:
    """The figures of several scorers, in all and by task: `METRIC` and `task:NAME/METRIC`.

    The signature has a line `NAME: ...` for each scorer that found something.
    """
    figures: dict[str, float] = {}
    signatures = []
    tasks: dict[str, list[Example]] = {}
    for example in given:
        tasks.setdefault(example.dialogue.task, []).append(example)
    for name in names:
        scorer = find(name)
        whole = scorer(given)
        if whole.figures:
            figures.update(whole.figures)
            signatures.append(f"{name}: {whole.signature}")
        for task in sorted(filter(None, tasks)):
            own = scorer(tasks[task]).figures
            figures.update({f"task:{task}/{metric}": value for metric, value in own.items()})
    return Scored(figures, "\n".join(signatures))


def gold(given: Sequence[Example]) -> list[Example]:
    """The same dialogues with the corpus's own responses as what was written: the upper bound."""
    return [
        Example(dialogue, tuple(replace(p, predicted=p.gold) for p in predictions))
        for dialogue, predictions in given
    ]


def commonest(train: Iterable[Dialogue], given: Sequence[Example]) -> list[Example]:
    """The same dialogues answered without reading them: the trivial baseline.

    Each response is the one that training dialogues of the task have most often after a message of
    that role, the first seen of equally frequent ones.
    """
    counts: dict[tuple[str, str], Counter[tuple]] = {}
    seen: dict[tuple, tuple[Message, ...]] = {}
    for dialogue in train:
        for read, unit in _responses(dialogue):
            spelling = tuple(spelled(unit))
            seen.setdefault(spelling, unit)
            counts.setdefault((dialogue.task, read), Counter())[spelling] += 1
    best = {key: seen[counter.most_common(1)[0][0]] for key, counter in counts.items()}
    answered = []
    for dialogue, predictions in given:
        answers = [best.get((dialogue.task, read), ()) for read, _ in _responses(dialogue)]
        own = (replace(p, predicted=a) for p, a in zip(predictions, answers, strict=True))
        answered.append(Example(dialogue, tuple(own)))
    return answered


def said(messages: Iterable[Message], channel: str) -> str | None:
    """The text of the first message of a channel, None where there is none."""
    return next((message_text(m) for m in messages if m.channel == channel), None)


def pairs(given: Sequence[Example], channel: str) -> Iterator[tuple[Example, str, str | None]]:
    """Of each response whose gold has a message of the channel: example, gold and written text."""
    for example in given:
        for prediction in example.predictions:
            wanted = said(prediction.gold, channel)
            if wanted is not None:
                yield example, wanted, said(prediction.predicted, channel)


def share(right: Iterable[bool]) -> float | None:
    """The share that is true; None of nothing."""
    found = list(right)
    return sum(found) / len(found) if found else None


def present(figures: Mapping[str, float | None]) -> dict[str, float]:
    """The figures that something was found for."""
    return {name: value for name, value in figures.items() if value is not None}


def _responses(dialogue: Dialogue) -> list[tuple[str, tuple[Message, ...]]]:
    """The role that was read last before each response ("" at the start), and its messages."""
    messages = dialogue.messages
    return [
        (messages[unit[0] - 1].role if unit[0] else "", tuple(messages[i] for i in unit))
        for unit in response_units(dialogue)
    ]
