"""Intents, calls and answers, counted by hand."""

from __future__ import annotations

import pytest

from dlm.evaluation.scorers.call_match import call_match
from dlm.evaluation.scorers.hits_at_1 import hits_at_1
from dlm.evaluation.scorers.intent_accuracy import intent_accuracy
from tests.evaluation.scorers.cases import example, figures


def intents(*pairs):
    return example(*(({"intent": gold}, {"intent": written}) for gold, written in pairs))


def test_out_of_scope_is_counted_apart():
    """3 in scope, 2 of them right; 2 outside, 1 found; called outside twice, once rightly."""
    pairs = [("pay", "pay"), ("bill", "bill"), ("pay", "oos"), ("oos", "oos"), ("oos", "pay")]
    assert figures(intent_accuracy, [intents(*pairs)]) == pytest.approx(
        {"intent_accuracy": 2 / 3, "oos_recall": 1 / 2, "oos_precision": 1 / 2}
    )


def test_an_absent_intent_is_wrong():
    assert figures(intent_accuracy, [example(({"intent": "pay"}, {"reply": "pay"}))]) == {
        "intent_accuracy": 0.0
    }


def test_calls_are_compared_as_data():
    """Key order does not count, types do; a call where none belongs costs precision."""
    gold = {"call": ("find", {"people": 4, "price": "cheap"})}
    talk = example(
        (gold, {"call": ("find", {"price": "cheap", "people": 4})}),
        (gold, {"call": ("find", {"price": "cheap", "people": "4"})}),
        (gold, {"reply": "no"}),
        ({"reply": "no"}, gold),
    )
    assert figures(call_match, [talk]) == pytest.approx(
        {"call_match": 1 / 3, "call_name_match": 2 / 3, "call_precision": 1 / 3}
    )


def test_no_gold_call_no_figure():
    talk = example(({"reply": "no"}, {"call": ("find", {})}))
    assert figures(call_match, [talk]) == {}


def test_any_right_answer_counts_and_wrong_proofs_are_told():
    """A right answer by a wrong proof is counted apart (C38)."""
    answered = [
        example(
            ({"reason": "a b", "reply": "Rome"}, {"reason": "a b", "reply": "rome "}),
            answers=["Rome", "Oslo"],
        ),
        example(
            ({"reason": "a b", "reply": "Rome"}, {"reason": "c", "reply": "Oslo"}),
            answers=["Rome", "Oslo"],
        ),
        example(
            ({"reason": "a b", "reply": "Rome"}, {"reason": "a b", "reply": "Lima"}),
            answers=["Rome"],
        ),
    ]
    assert figures(hits_at_1, answered) == pytest.approx(
        {
            "hits_at_1": 2 / 3,
            "hits_at_1_right_reason": 1 / 3,
            "hits_at_1_wrong_reason": 1 / 3,
        }
    )


def test_chat_has_no_answers():
    assert figures(hits_at_1, [example(({"reply": "hi"}, {"reply": "hi"}))]) == {}
