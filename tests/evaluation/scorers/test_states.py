"""States and acts: conventions told apart, spellings, and F1 counted by hand."""

from __future__ import annotations

import pytest
from sklearn.metrics import f1_score

from dlm.dialogue.schema import Message
from dlm.evaluation.predict import Prediction
from dlm.evaluation.scorers.act_f1 import act_f1
from dlm.evaluation.scorers.emotion_f1 import emotion_f1
from dlm.evaluation.scorers.joint_goal_accuracy import joint_goal_accuracy
from dlm.evaluation.scorers.slot_f1 import slot_f1
from dlm.evaluation.scoring import Example, gold
from tests.evaluation.scorers.cases import example, figures, replies


def tracked(*pairs):
    """A dialogue of (gold, written) states."""
    return example(*(({"state": wanted}, {"state": written}) for wanted, written in pairs))


def test_one_wrong_slot_zeroes_its_turn():
    """2 of 4 turns are whole; of gold slots 1, 1/2, 2/2 are right, the empty has none (C36)."""
    talk = tracked(
        ("area=east", "area=east"),
        ("area=east; food=thai", "area=east; food=french"),
        ("area=east; food=thai", "food=thai; area=EAST; stars=4"),
        ("", ""),
    )
    assert figures(joint_goal_accuracy, [talk]) == pytest.approx(
        {
            "joint_goal_accuracy": 2 / 4,
            "joint_goal_accuracy_dontcare_none": 2 / 4,
            "average_goal_accuracy": (1 + 1 / 2 + 1) / 3,
        }
    )


def test_conventions_of_dontcare_have_names_of_their_own():
    """Missing "dontcare" is an error under the one and none under the other (C36)."""
    talk = tracked(("area=dontcare; food=thai", "food=thai"), ("food=none", ""))
    found = figures(joint_goal_accuracy, [talk])
    assert found["joint_goal_accuracy"] == 1 / 2
    assert found["joint_goal_accuracy_dontcare_none"] == 1.0


def test_the_empty_predictor_scores_the_share_of_empty_states():
    """C36; a state that is not written, or cannot be read, is empty."""
    talk = tracked(("", ""), ("a=1", ""), ("", "no state at all"), ("a=1", "a=1; a=1"))
    silent = example(({"state": ""}, {"reply": "?"}))
    assert figures(joint_goal_accuracy, [talk])["joint_goal_accuracy"] == 2 / 4
    assert figures(joint_goal_accuracy, [silent])["joint_goal_accuracy"] == 1.0


def test_any_recorded_spelling_is_right():
    state = Message("assistant", "time=6 pm", "state", meta={"values": {"time": ["6 pm", "18:00"]}})
    dialogue = tracked(("time=6 pm", "")).dialogue
    written = Message("assistant", "time=18:00", "state")
    one = Example(dialogue, (Prediction("d", 0, (state,), (written,), True),))
    assert figures(joint_goal_accuracy, [one])["joint_goal_accuracy"] == 1.0
    assert figures(slot_f1, [one])["slot_f1"] == 1.0


def test_slot_f1_by_hand():
    """People: 2 right, none wrong; time: gold 1, written 2, right 0; name is never in the gold.

    Micro: right 2, gold 3, written 2 + 2 + 1.
    """
    talk = tracked(
        ("people=2; time=six", "people=2; time=seven"),
        ("people=4", "people=4; time=one; name=kim"),
    )
    found = figures(slot_f1, [talk])
    assert found["slot_f1"] == pytest.approx((1 + 0) / 2)
    assert found["slot_f1_micro"] == pytest.approx(2 * 2 / (3 + 5))


def test_acts_as_triples():
    """Gold 3 triples, written 3, shared 2; one of two responses is whole."""
    talk = example(
        ({"act": "inform(food=thai, area=east)"}, {"act": "inform(food=thai); request(area)"}),
        ({"act": "bye"}, {"act": "bye"}),
    )
    assert figures(act_f1, [talk]) == pytest.approx({"act_f1": 2 * 2 / 6, "act_accuracy": 1 / 2})


def test_gold_scores_one_and_chat_nothing():
    talk = tracked(("a=dontcare; b=none", "x"), ("", "y=1"))
    for scorer in (joint_goal_accuracy, slot_f1):
        assert set(figures(scorer, gold([talk])).values()) == {1.0}
        assert figures(scorer, [replies(("hi", "hi"))]) == {}
    assert figures(act_f1, [replies(("hi", "hi"))]) == {}


def test_emotions_are_weighted_by_how_often_they_are_felt():
    """By hand: joy 2 gold, 3 written, 1 right: F1 2/5; sad 2, 1, 1: 2/3; fear 1, 0, 0: 0."""
    labels = [("joy", "joy"), ("joy", ""), ("sad", "joy"), ("sad", "sad"), ("fear", "joy")]
    talk = tracked(
        *((f"emotion={gold}", written and f"emotion={written}") for gold, written in labels)
    )
    assert figures(emotion_f1, [talk]) == pytest.approx(
        {"emotion_weighted_f1": (2 * 2 / 5 + 2 * 2 / 3) / 5, "emotion_accuracy": 2 / 5}
    )
    whole = f1_score(*zip(*labels, strict=True), average="weighted", zero_division=0)
    assert figures(emotion_f1, [talk])["emotion_weighted_f1"] == pytest.approx(whole)
    assert figures(emotion_f1, [tracked(("area=east", "area=east"))]) == {}
