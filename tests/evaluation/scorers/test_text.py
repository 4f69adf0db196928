"""BLEU, ROUGE, distinct and exact match, on texts whose scores are known."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.evaluation.scorers.bleu import bleu
from dlm.evaluation.scorers.distinct import distinct
from dlm.evaluation.scorers.exact_match import exact_match
from dlm.evaluation.scorers.rouge import rouge
from tests.evaluation.scorers.cases import example, figures, replies

GOLD = ["the cat sat on the mat today", "where should it be , in paris ?", "you are welcome"]
SAME = replies(*zip(GOLD, GOLD, strict=True))
# sacrebleu 2.6.0's signature without its version.
SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:"


def test_bleu_of_gold_is_the_upper_bound():
    """Gold against itself scores exactly 1, and any change scores below it (C37)."""
    assert bleu([SAME]).figures["bleu"] == pytest.approx(1.0)
    assert bleu([SAME]).figures["bleu"] <= 1.0
    changed = replies(
        (GOLD[0], "the cat sat on a mat today"), *zip(GOLD[1:], GOLD[1:], strict=True)
    )
    assert bleu([changed]).figures["bleu"] < 0.95


def test_bleu_by_hand():
    """BP * exp(mean log p_n) of one sentence, counted by hand.

    6 words against 7: p_1 = 6/6, p_2 = 4/5, p_3 = 2/4, p_4 = 1/3 and BP = exp(1 - 7/6).
    """
    one = replies(("the cat sat on the mat today", "the cat sat on mat today"))
    wanted = math.exp(1 - 7 / 6) * (1 * 4 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert bleu([one]).figures["bleu"] == pytest.approx(wanted, rel=1e-9)


def test_bleu_with_several_references_by_hand():
    """An n-gram counts where any reference has it; the nearest length is that of the brevity.

    "a b c d e" against "a b c d x" and "y b c d e f": p_1 = 5/5, p_2 = 4/4, p_3 = 3/3, p_4 = 2/2;
    its 5 words are as many as those of the first, so nothing is short.
    """
    several = replies(("a b c d x", "a b c d e"), references=["a b c d x", "y b c d e f"])
    assert bleu([several]).figures["bleu"] == pytest.approx(1.0)
    alone = replies(("a b c d x", "a b c d e"))
    assert bleu([alone]).figures["bleu"] == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)


def test_bleu_with_different_numbers_of_references():
    """A text of one reference beside one of two: sacrebleu says that they vary."""
    several = replies((GOLD[0], GOLD[1]), references=[GOLD[0], GOLD[1]])
    scored = bleu([several, SAME])
    assert scored.figures["bleu"] == pytest.approx(1.0)
    assert "nrefs:var" in scored.signature


def test_references_are_those_of_a_single_reply():
    """In a conversation of several replies each has its own text as its only reference."""
    talk = replies((GOLD[0], GOLD[0]), (GOLD[1], GOLD[0]), references=[GOLD[0]])
    assert bleu([talk]).figures["bleu"] < 0.9


def test_bleu_signature_says_how():
    """Response metrics: tokenisation, casing and smoothing stand in the signature (C37)."""
    assert f"names not delexicalised; {SIGNATURE}" in bleu([SAME]).signature


def test_case_counts_for_bleu_and_silence_scores_nothing():
    shouted = replies(*((text, text.upper()) for text in GOLD))
    assert bleu([shouted]).figures["bleu"] < 0.5
    silent = example(*(({"reply": text}, {}) for text in GOLD))
    assert bleu([silent]).figures["bleu"] == 0.0


def test_rouge_by_hand():
    """4 of 5 words are shared in the same order, 2 of 4 pairs: P = R, so F1 is the share."""
    found = figures(rouge, [replies(("a b c d e", "a b x d e"))])
    assert found == pytest.approx({"rouge1": 4 / 5, "rouge2": 2 / 4, "rougeL": 4 / 5})


def test_rouge_takes_the_best_reference_and_averages_over_replies():
    """1 for the text that equals its second reference, 2 * 1 * 0.5 / 1.5 for half of the other."""
    first = replies(("no such words", "one two"), references=["no such words", "one two"])
    second = replies(("one two three four", "one two"), identity="e")
    found = figures(rouge, [first, second])
    assert found["rouge1"] == pytest.approx((1 + 2 / 3) / 2)
    assert "stemmed" in rouge([first]).signature


def test_distinct_by_hand():
    """5 words, 3 different; 3 pairs within replies, 2 different."""
    found = figures(distinct, [replies(("x", "a b A b"), ("x", "c"))])
    assert found == pytest.approx({"distinct_1": 3 / 5, "distinct_2": 2 / 3})


def test_exact_match_sees_channels():
    """The words alone are not enough: the channel they stand in counts."""
    right = ({"act": "offer", "reply": "yes"}, {"act": "offer", "reply": "yes"})
    swapped = ({"act": "offer", "reply": "yes"}, {"reply": "yes"})
    assert figures(exact_match, [example(right, swapped)]) == {"exact_match": 0.5}


@pytest.mark.parametrize("scorer", [bleu, rouge, distinct, exact_match])
def test_nothing_to_score_has_no_figure(scorer):
    assert figures(scorer, []) == {}


@given(st.lists(st.tuples(st.text("ab c", max_size=8), st.text("ab c", max_size=8)), min_size=1))
def test_gold_is_never_exceeded(pairs):
    """No system exceeds the gold through the same path (C37)."""
    written = [replies(pair, identity=str(place)) for place, pair in enumerate(pairs)]
    perfect = [replies((gold, gold), identity=str(i)) for i, (gold, _) in enumerate(pairs)]
    for scorer in (bleu, rouge, exact_match):
        best = figures(scorer, perfect)
        assert all(x <= best[name] + 1e-12 for name, x in figures(scorer, written).items())
