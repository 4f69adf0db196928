"""Draws of a mixture: shares kept, nothing twice before everything once, a pure function."""

from __future__ import annotations

from collections import Counter
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlm.core.errors import UserError
from dlm.corpora.mixture import tempered, weighted
from dlm.data.mixture import Draws
from dlm.data.packing import Packing

LENGTH = 50


def make_pieces(*sizes: int, digest: str = "d", seed: int = 0) -> SimpleNamespace:
    """Pieces of parts `a`, `b`, ... of so many pieces, in no order, of 1 to 40 tokens."""
    random = np.random.default_rng(seed)
    task_id = random.permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int32)
    lengths = random.integers(1, 40, len(task_id)).astype(np.int32)
    names = list("abcdefg"[: len(sizes)])
    return as_pieces(task_id, names, lengths, digest)


def as_pieces(task_id, task_names, lengths, digest="d") -> SimpleNamespace:
    """What the draws read of `Pieces`, each piece a unit."""
    starts = np.arange(len(lengths) + 1)
    return SimpleNamespace(
        task_id=task_id,
        task_names=task_names,
        lengths=lengths,
        unit_lengths=lengths,
        unit_starts=starts,
        data_digest=digest,
    )


def draws_of(pieces, seed=3, **weights) -> Draws:
    return Draws(pieces, partial(weighted, weights), seed)


MIXTURES = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 9)), min_size=1, max_size=4).map(
    lambda parts: (make_pieces(*(n for n, _ in parts)), [float(w) for _, w in parts])
)


@given(MIXTURES)
def test_a_part_is_seen_whole_before_anything_of_it_twice(mixture):
    """Over any number of epochs the pieces of a part came equally often, or once more."""
    pieces, weights = mixture
    draws = draws_of(pieces, **dict(zip(pieces.task_names, weights, strict=True)))
    seen = np.zeros(len(pieces.task_id), int)
    for epoch in range(5):
        np.add.at(seen, draws.units(epoch), 1)
        for part in range(len(weights)):
            times = seen[pieces.task_id == part]
            assert times.max() - times.min() <= 1


@given(MIXTURES)
def test_epochs_follow_the_shares(mixture):
    """After e epochs, of each part e times its quota of pieces, rounded down: no error adds up.

    The quota is s n / l: the share of the tokens of all parts, over the part's mean length.
    """
    pieces, weights = mixture
    draws = draws_of(pieces, **dict(zip(pieces.task_names, weights, strict=True)))
    counts = np.zeros(len(weights))
    for epoch in range(7):
        counts += np.bincount(pieces.task_id[draws.units(epoch)], minlength=len(weights))
        for part, weight in enumerate(weights):
            lengths = pieces.lengths[pieces.task_id == part]
            quota = weight / sum(weights) * pieces.lengths.sum() / lengths.mean()
            assert abs(counts[part] - (epoch + 1) * quota) < 1 + 1e-3


def test_shares_are_those_of_the_tokens():
    """3 : 1 in tokens, whatever the sizes: the small part comes again and again."""
    pieces = make_pieces(300, 7)
    draws = draws_of(pieces, a=1.0, b=3.0)
    tokens = np.zeros(2)
    for epoch in range(200):
        drawn = draws.units(epoch)
        np.add.at(tokens, pieces.task_id[drawn], pieces.lengths[drawn])
    np.testing.assert_allclose(tokens / tokens.sum(), [0.25, 0.75], atol=1e-3)
    assert tokens.sum() / 200 == pytest.approx(pieces.lengths.sum(), rel=1e-3)
    passes = 0.75 * pieces.lengths.sum() / pieces.lengths[pieces.task_id == 1].sum()
    assert f"b 75.0% ({passes:.3g} times all of it)" in draws.describe()


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(0, 9))
def test_shares_by_size_give_every_piece_once(sizes, epoch):
    """At temperature 1 an epoch holds each piece once, as it does without shares."""
    pieces = make_pieces(*sizes)
    draws = Draws(pieces, partial(tempered, 1.0), seed=1)
    assert sorted(draws.units(epoch)) == list(range(len(pieces.task_id)))


def test_draws_are_a_function_of_digest_seed_and_epoch():
    """Asked for alone, again, in any order: the same; another seed or corpus: another order."""
    pieces = make_pieces(60, 20)
    weights = {"a": 0.5, "b": 0.5}
    forth = [draws_of(pieces, **weights).units(epoch).tolist() for epoch in range(6)]
    again = draws_of(pieces, **weights)
    assert [again.units(epoch).tolist() for epoch in reversed(range(6))] == forth[::-1]
    assert draws_of(pieces, seed=4, **weights).units(0).tolist() != forth[0]
    other = make_pieces(60, 20, digest="e")
    assert draws_of(other, **weights).units(0).tolist() != forth[0]
    passes = [piece for epoch in forth for piece in epoch if pieces.task_id[piece] == 1]
    assert sorted(passes[:20]) == sorted(passes[20:40])
    assert passes[:20] != passes[20:40]  # each pass has an order of its own


@given(MIXTURES, st.integers(1, 3))
def test_no_rows_hold_more_pieces_than_the_bound(mixture, rows):
    """`most` holds for any rows of any epoch, so that one shape of batch serves the run."""
    pieces, weights = mixture
    draws = draws_of(pieces, **dict(zip(pieces.task_names, weights, strict=True)))
    for epoch in range(4):
        segments = Packing(pieces.lengths[draws.units(epoch)], LENGTH).segments
        assert segments[:rows].sum() <= draws.most(rows * LENGTH)


def test_a_piece_comes_no_more_often_than_the_bound_allows():
    """The bound counts a short piece as often as one epoch can hold it; by hand.

    Of one piece of 5 tokens and ten of 30, shares 1 : 1: an epoch has 305 tokens, 30.5 times the
    short one. Nine of them fit 49 tokens, 30 + 5 * 3 < 50.
    """
    lengths = np.array([5] + [30] * 10, np.int32)
    task_id = np.array([0] + [1] * 10, np.int32)
    draws = draws_of(as_pieces(task_id, ["a", "b"], lengths), a=1.0, b=1.0)
    assert [Counter(draws.units(epoch).tolist())[0] for epoch in (0, 1)] == [30, 31]
    assert draws.most(49) == 9
    assert draws.most(31 * 5 + 30) == 32


def test_weight_0_is_not_drawn():
    """And does not count in the size of an epoch."""
    pieces = make_pieces(10, 500)
    drawn = draws_of(pieces, a=2.0, b=0.0).units(1)
    assert sorted(drawn) == np.flatnonzero(pieces.task_id == 0).tolist()


def test_a_part_without_pieces_is_refused_by_name():
    with pytest.raises(UserError, match="part z has nothing to learn from"):
        draws_of(make_pieces(3), a=1.0, z=1.0)
