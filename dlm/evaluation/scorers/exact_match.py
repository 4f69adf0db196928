"""Responses written word for word."""

from __future__ import annotations

from collections.abc import Sequence

from dlm.evaluation.predict import spelled
from dlm.evaluation.scoring import Example, Scored, present, share


def exact_match(examples: Sequence[Example]) -> Scored:
    """`exact_match`: responses whose every message equals the gold one, in channel and text."""
    right = (
        spelled(prediction.predicted) == spelled(prediction.gold)
        for example in examples
        for prediction in example.predictions
    )
    return Scored(present({"exact_match": share(right)}), "responses written word for word")
