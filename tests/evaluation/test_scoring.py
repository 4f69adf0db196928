"""Scorers found by name, figures by task, and what stands beside the model's responses."""

from __future__ import annotations

import pytest

from dlm.core.errors import UserError
from dlm.dialogue.schema import Dialogue, Message
from dlm.evaluation.scorers.exact_match import exact_match
from dlm.evaluation.scoring import Scored, commonest, examples, find, gold, known, score
from tests.evaluation.scorers.cases import example, replies


def test_found_by_name():
    assert find("exact_match") is exact_match
    assert find("dlm.evaluation.scorers.exact_match:exact_match") is exact_match
    assert all(callable(find(name)) for name in known())


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("exact_mach", "did you mean 'exact_match'"),
        ("zzz", "known: act_f1, bleu"),
        ("no.such:thing", "No module named 'no'"),
        ("dlm.core.mean:median", "no attribute 'median'"),
    ],
)
def test_an_unknown_scorer_is_one_line(name, told):
    with pytest.raises(UserError, match=told) as error:
        find(name)
    assert "\n" not in str(error.value)


def test_figures_in_all_and_by_task():
    """2 of 3 in all, 1 of 2 of the one task, all of the other; signatures by name."""
    given = [
        replies(("a", "a"), ("b", "x"), task="one", identity="1"),
        replies(("c", "c"), task="two", identity="2"),
    ]
    scored = score(["exact_match", "intent_accuracy"], given)
    assert scored.figures == pytest.approx(
        {
            "exact_match": 2 / 3,
            "task:one/exact_match": 1 / 2,
            "task:two/exact_match": 1.0,
        }
    )
    assert scored.signature == "exact_match: responses written word for word"


def test_gold_scores_one_on_everything():
    """Gold through the same path is the upper bound (C36, C37)."""
    wrong = {"intent": "x", "call": ("f", {"a": 1})}
    given = [
        example(({"intent": "pay", "reply": "Done it is now ."}, wrong), answers=["Done"]),
        example(({"call": ("f", {"a": 1})}, {"reply": "?"}), identity="e"),
    ]
    names = [name for name in known() if name != "distinct"]
    assert set(score(names, gold(given)).figures.values()) == {1.0}


def talk(identity, *said, task=""):
    messages = []
    for asked, answered in said:
        messages += [Message("user", asked), Message("assistant", answered)]
    return Dialogue(identity, tuple(messages), task=task)


def test_the_commonest_response_is_trainings_of_the_same_task():
    """Of task one "b" stands twice in training, of task two there is none to give."""
    train = [talk("t", ("?", "a"), ("?", "b"), ("?", "b"), task="one")]
    given = [
        replies(("b", "x"), ("c", "x"), task="one", identity="1"),
        replies(("b", "x"), task="two", identity="2"),
    ]
    answered = commonest(train, given)
    assert score(["exact_match"], answered).figures == {
        "exact_match": pytest.approx(1 / 3),
        "task:one/exact_match": 0.5,
        "task:two/exact_match": 0.0,
    }


def test_of_equals_the_first_seen_is_taken():
    train = [talk("t", ("?", "a"), ("?", "b"))]
    (answered,) = commonest(train, [replies(("b", "x"))])
    assert answered.predictions[0].predicted[0].content == "a"


def test_predictions_are_laid_beside_their_dialogues():
    """In any order, by dialogue and unit; a dialogue without predictions is left out."""
    one = replies(("a", "1"), ("b", "2"), identity="one")
    two = replies(("c", "3"), identity="two")
    other = talk("three", ("?", "!"))
    shuffled = [*reversed(one.predictions), *two.predictions]
    assert examples([two.dialogue, other, one.dialogue], shuffled) == [two, one]
    with pytest.raises(ValueError, match="dialogue one: 1 predictions of 2 responses"):
        examples([one.dialogue], one.predictions[:1])


def test_a_scorer_of_ones_own():
    """Any function of examples, named by its module."""
    assert score(["tests.evaluation.test_scoring:count"], [replies(("a", "b"))]).figures == {
        "count": 1.0
    }


def count(examples):
    return Scored({"count": float(len(examples))}, "examples")
