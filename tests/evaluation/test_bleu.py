"""BLEU and exact match, on texts whose scores are known."""

from __future__ import annotations

import math

import pytest

from dlm.core.mean import Mean
from dlm.evaluation.bleu import corpus_bleu, exact_match

GOLD = ["the cat sat on the mat today", "where should it be , in paris ?", "you are welcome"]
# sacrebleu 2.6.0's signature without its version.
SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:"


def test_gold_is_the_upper_bound():
    """Gold against itself scores exactly 1, and any change scores below it."""
    assert corpus_bleu(GOLD, GOLD)[0] == pytest.approx(1.0)
    assert corpus_bleu(GOLD, GOLD)[0] <= 1.0
    assert corpus_bleu(["the cat sat on a mat today", *GOLD[1:]], GOLD)[0] < 0.95


def test_by_hand():
    """BP * exp(mean log p_n) of one sentence, counted by hand.

    6 words against 7: p_1 = 6/6, p_2 = 4/5, p_3 = 2/4, p_4 = 1/3 and BP = exp(1 - 7/6).
    """
    predicted, gold = "the cat sat on mat today", "the cat sat on the mat today"
    wanted = math.exp(1 - 7 / 6) * (1 * 4 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert corpus_bleu([predicted], [gold])[0] == pytest.approx(wanted, rel=1e-9)


def test_signature_says_how():
    """Response metrics: tokenisation, casing and smoothing stand in the signature (C37)."""
    assert corpus_bleu(GOLD, GOLD)[1].startswith(SIGNATURE)


def test_case_counts():
    assert corpus_bleu([text.upper() for text in GOLD], GOLD)[0] < 0.5


def test_silence_scores_nothing():
    assert corpus_bleu(["", "", ""], GOLD)[0] == 0.0


def test_texts_and_references_must_pair():
    with pytest.raises(ValueError, match="BLEU of 2 texts against 3 references"):
        corpus_bleu(GOLD[:2], GOLD)
    with pytest.raises(ValueError, match="BLEU of 0 texts"):
        corpus_bleu([], [])


def test_exact_match():
    assert exact_match(["a", "b ", ""], ["a", "b", ""]) == Mean(2.0, 3.0)
    assert exact_match([], []) == Mean(0.0, 0.0)
    with pytest.raises(ValueError, match="longer than argument 1"):
        exact_match(["a"], ["a", "b"])
