"""Calls as data, however they are spelled."""

from __future__ import annotations

import json
from collections.abc import Sequence

from dlm.dialogue.schema import Message
from dlm.evaluation.scoring import Example, Scored, present, share


def call_match(examples: Sequence[Example]) -> Scored:
    """`call_match`: gold calls written with the same tool and arguments, as JSON values.

    `call_name_match` asks for the tool alone. `call_precision` = of the calls written, those at
    whose place the gold calls alike. The order of keys does not count; 4 and "4" differ.

    Source: Li et al. 2023, API-Bank, EMNLP, section 3 (accuracy of API calls).
    """
    both = [
        (_call(prediction.gold), _call(prediction.predicted))
        for example in examples
        for prediction in example.predictions
    ]
    if not any(gold for gold, _ in both):
        return Scored({}, "")
    figures = {
        "call_match": share(gold == written for gold, written in both if gold),
        "call_name_match": share(
            written is not None and written[0] == gold[0] for gold, written in both if gold
        ),
        "call_precision": share(gold == written for gold, written in both if written),
    }
    return Scored(present(figures), "tool and arguments equal as JSON values")


def _call(messages: Sequence[Message]) -> tuple[str | None, str] | None:
    """Name and arguments, keys sorted, of the call in a response."""
    for message in messages:
        if message.channel == "call":
            return message.name, json.dumps(message.arguments, sort_keys=True)
    return None
