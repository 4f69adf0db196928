"""Batches of a mixture by shares: every epoch what was drawn for it, resumable, one shape."""

from __future__ import annotations

import itertools
from collections import Counter
from functools import partial

import jax
import numpy as np
import pytest

from dlm.corpora.mixture import tempered, weighted
from dlm.data.batch import Batch, check
from dlm.data.packing import Packing
from dlm.data.pipeline import Batches

LENGTH, ROWS, EPOCHS = 47, 2, 4
SHARES = partial(weighted, {"talk": 4.0, "book": 1.0})


@pytest.fixture
def pieces(build):
    """Some dialogues give several pieces."""
    return build(length=34, overflow="split")


def batches_of(pieces, shares=SHARES, **options) -> Batches:
    return Batches(pieces, ROWS, LENGTH, **{"seed": 3, "shares": shares, **options})


def equal(a: Batch, b: Batch) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def steps_of(batches: Batches, epoch: int) -> range:
    first = sum(batches.num_steps(e) for e in range(epoch))
    return range(first, first + batches.num_steps(epoch))


@pytest.mark.parametrize("pack", [True, False])
def test_epochs_hold_what_was_drawn(pieces, pack):
    """Packing loses nothing: each piece as often as it was drawn, the tail included."""
    batches = batches_of(pieces, pack=pack)
    for epoch in range(EPOCHS):
        rows = [row for step in steps_of(batches, epoch) for row in batches.row_pieces(step)]
        drawn = batches.draws.units(epoch)
        assert Counter(itertools.chain(*rows)) == Counter(drawn.tolist())
        assert [] not in rows[: -batches.rows + 1] or not pack
    steps = {batches.num_steps(epoch) for epoch in range(EPOCHS)}
    assert len(steps) > 1  # epochs differ, and their steps are found all the same


@pytest.mark.parametrize("pack", [True, False])
def test_batches_keep_the_contract_and_one_shape(pieces, pack):
    batches = batches_of(pieces, pack=pack)
    for epoch in range(EPOCHS):
        for step in steps_of(batches, epoch):
            batch = check(batches.batch(step))
            assert batch.tokens.shape == (batches.rows, LENGTH)
            assert batch.task_ids.shape == (batches.rows, batches.segments)
            members = [piece for row in batches.row_pieces(step) for piece in row]
            assert batch.task_ids[batch.task_ids >= 0].tolist() == pieces.task_id[members].tolist()


@pytest.mark.parametrize("start", [1, 9, 31])
@pytest.mark.parametrize("pack", [True, False])
def test_resume_gives_the_same_batches(pieces, start, pack):
    """Resume is bitwise, over ends of epochs, by any number of threads and in any order."""
    stop = steps_of(batches_of(pieces), EPOCHS).stop
    assert stop > 31
    whole = list(batches_of(pieces, pack=pack).iterate(0, stop))
    resumed = list(batches_of(pieces, pack=pack).iterate(start, stop, threads=8, buffer=16))
    assert len(resumed) == stop - start
    assert all(equal(a, b) for a, b in zip(whole[start:], resumed, strict=True))
    backwards = batches_of(pieces, pack=pack)
    assert all(equal(backwards.batch(step), whole[step]) for step in reversed(range(stop)))


def test_processes_make_rows_of_their_own(pieces):
    whole = batches_of(pieces)
    for step in (0, 17):
        both = [whole.only(rows).batch(step) for rows in (range(1), range(1, ROWS))]
        joined = jax.tree.map(lambda *arrays: np.concatenate(arrays), *both)
        assert equal(joined, whole.batch(step))


def test_epochs_are_counted_in_steps(pieces):
    """So many epochs end where they do, though they differ; a part of one is rounded up."""
    batches = batches_of(pieces)
    steps = [batches.num_steps(epoch) for epoch in range(EPOCHS)]
    assert batches.steps_of(3.0) == sum(steps[:3])
    assert batches.steps_of(1.5) == steps[0] + -(-steps[1] // 2)
    assert batches.steps_of(0.0) == 0
    plain = batches_of(pieces, shares=None)
    assert plain.steps_of(1.1) == -(-11 * plain.num_steps() // 10)
    with pytest.raises(IndexError, match="no step -1"):
        batches.batch(-1)


@pytest.mark.parametrize("pack", [True, False])
def test_without_shares_the_order_is_that_of_the_packing(pieces, pack):
    """Nothing of a mixture enters a run without one: its rows are those of the plan, in order."""
    batches = batches_of(pieces, shares=None, pack=pack)
    packing = Packing(pieces.lengths, LENGTH)
    assert batches.draws is None
    assert batches.segments == (packing.segments[0] if pack else 1)
    for epoch in range(3):
        plan = packing.plan(digest=pieces.data_digest, seed=3, epoch=epoch)
        rows = [row.tolist() for row in plan]
        found = [row for step in steps_of(batches, epoch) for row in batches.row_pieces(step)]
        if pack:
            assert [row for row in found if row] == rows
        else:
            assert [row for row in found if row] == [[piece] for row in rows for piece in row]


def test_shares_by_size_give_every_piece_once(pieces):
    batches = batches_of(pieces, partial(tempered, 1.0))
    rows = [row for step in steps_of(batches, 1) for row in batches.row_pieces(step)]
    assert sorted(itertools.chain(*rows)) == list(range(len(pieces)))


def test_evaluation_takes_no_shares(pieces):
    """Every dialogue of a held-out split is scored once, in a mixture as elsewhere."""
    batches = batches_of(pieces, shuffle=False)
    rows = [row for step in range(batches.num_steps()) for row in batches.row_pieces(step)]
    assert sorted(itertools.chain(*rows)) == list(range(len(pieces)))
