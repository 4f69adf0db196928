"""Groups of endings: each in one row, packed or not; what a batch says of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm.data.batch import Batch, check, empty_batch
from dlm.data.pipeline import Batches
from dlm.data.store import build_or_load
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.schema import Dialogue, Message

LENGTH, ROWS = 120, 3


def pair(number: int) -> Dialogue:
    word = "table " * (1 + number % 5)
    return Dialogue(
        f"p{number}",
        (Message("user", word),),
        task=("talk", "book")[number % 2],
        chosen=(Message("assistant", "two"),),
        rejected=(Message("assistant", "for " * (1 + number % 3)),),
    )


def choice(number: int) -> Dialogue:
    """Of 2 to 4 candidates."""
    candidates = ("a", "two", "for", "please")[: 2 + number % 3]
    answer = number % len(candidates)
    return Dialogue(f"c{number}", (Message("user", "42"),), candidates=candidates, answer=answer)


MIXED = [(pair if number % 3 else choice)(number) for number in range(40)]


@pytest.fixture
def grouped(build):
    def grouped(source=MIXED, **changes):
        return build(source=source, length=LENGTH, groups=True, **changes)

    return grouped


def test_the_pieces_of_a_dialogue_are_a_unit(grouped, dialogues):
    pieces = grouped([*MIXED, dialogues[0]])
    assert pieces.grouped
    assert pieces.counts.endings == len(MIXED)
    assert pieces.counts.rejected == {"nothing to compare": 1}
    sizes = np.diff(pieces.unit_starts).tolist()
    assert sizes == [2 if number % 3 else 2 + number % 3 for number in range(40)]
    ends = pieces.unit_starts.tolist()
    expected = [int(pieces.lengths[a:b].sum()) for a, b in pairwise(ends)]
    assert pieces.unit_lengths.tolist() == expected
    assert [pieces.piece(i).ending for i in range(4)] == ["right", "wrong", "chosen", "rejected"]


def test_a_token_loss_reads_one_piece_of_each(build):
    """The same corpus without groups: the preferred ending, no field of pairs in its batches."""
    pieces = build(source=MIXED, length=LENGTH)
    assert pieces.counts.endings == len(MIXED) == len(pieces)
    assert pieces.unit_starts.tolist() == list(range(len(pieces) + 1))
    batch = check(Batches(pieces, ROWS, LENGTH).batch(0))
    assert batch.pair_ids is batch.chosen is batch.reference_log_probs is None


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_group_lies_in_one_row(grouped, pack, shuffle):
    """Of an epoch every group comes once, whole, its members side by side; unpacked one a row."""
    pieces = grouped()
    reference = np.arange(len(pieces), dtype=np.float32)
    batches = Batches(pieces, ROWS, LENGTH, seed=1, pack=pack, shuffle=shuffle, reference=reference)
    seen = []
    for step in range(batches.num_steps()):
        batch = check(batches.batch(step))
        assert batch.tokens.shape == (batches.rows, LENGTH)
        for row, members in enumerate(batches.row_pieces(step)):
            ids = batch.pair_ids[row, : len(members)].tolist()
            _, places = np.unique(pieces.dialogue_index[members], return_index=True)
            begun = np.isin(np.arange(len(members)), places)
            assert ids == (np.cumsum(begun) - 1).tolist()
            np.testing.assert_array_equal(batch.reference_log_probs[row, : len(members)], members)
            assert (batch.pair_ids[row, len(members) :] == -1).all()
            assert pack or len(set(ids)) <= 1
            for place, index in enumerate(members):
                assert batch.chosen[row, place] == (
                    pieces.piece(index).ending in ("chosen", "right")
                )
            seen += members
    assert sorted(seen) == list(range(len(pieces)))
    packed = Batches(pieces, ROWS, LENGTH, seed=1, shuffle=shuffle)
    assert [batches.dialogues(s) for s in range(batches.num_steps())] == [
        packed.dialogues(s) for s in range(batches.num_steps())
    ]


@settings(max_examples=25, deadline=None)
@given(numbers=st.lists(st.integers(0, 200), min_size=1, max_size=30), rows=st.integers(1, 4))
def test_any_groups_keep_the_contract(numbers, rows, template, tmp_path_factory):
    source = [(pair if number % 2 else choice)(number) for number in numbers]
    pieces = build_or_load(
        source,
        template,
        PolicyConfig(),
        LENGTH,
        name="train",
        data_digest=str(numbers),
        cache_dir=tmp_path_factory.getbasetemp(),
        groups=True,
    )
    for pack in (True, False):
        batches = Batches(pieces, rows, LENGTH, pack=pack)
        learned = 0
        for step in range(batches.num_steps()):
            batch = check(batches.batch(step))
            learned += int((batch.loss_weights > 0).sum())
            assert int(batch.chosen.sum()) == int((batch.pair_ids.max(1) + 1).sum())
        assert learned == sum(pieces.counts.supervised.values())


def test_a_group_that_comes_twice_is_two_groups(grouped):
    """A mixture may draw a small part again within an epoch, and even within a row."""
    pieces = grouped([pair(0), pair(1)])
    batches = Batches(pieces, 1, 2 * LENGTH, shares=lambda sizes: {"talk": 0.9, "book": 0.1})
    twice = 0
    for step in range(5 * batches.num_steps()):
        batch, (members, *_) = check(batches.batch(step)), batches.row_pieces(step)
        assert batch.pair_ids[0, : len(members)].tolist() == [i // 2 for i in range(len(members))]
        twice += len(set(members)) < len(members)
    assert twice


def test_each_process_makes_its_own_rows(grouped):
    batches = Batches(grouped(), ROWS, LENGTH).with_reference(np.ones(len(grouped())))
    whole, own = batches.batch(0), batches.only([2]).batch(0)
    for name in ("pair_ids", "chosen", "reference_log_probs"):
        np.testing.assert_array_equal(getattr(own, name), getattr(whole, name)[2:])
    assert own.reference_log_probs.dtype == np.float32


def example() -> Batch:
    batch = empty_batch(2, 4, 4, pairs=True)
    batch.segment_ids[:] = [1, 2, 3, 4]
    batch.dialogue_ids[:] = [[7, 7, 4, 4], [5, 5, 5, 5]]
    batch.pair_ids[:] = [[0, 0, 1, 1], [0, 0, 0, 0]]
    batch.chosen[:] = [[1, 0, 0, 1], [0, 0, 1, 0]]
    return batch


@pytest.mark.parametrize(
    ("field", "row", "values", "message"),
    [
        ("pair_ids", 0, [0, 0, 1, -1], r"pair_ids\[0, 3\]: expected an id for each segment"),
        ("pair_ids", 0, [0, 0, 0, 1], r"pair_ids\[0, 3\]: expected another ending beside it"),
        ("chosen", 1, [0, 0, 0, 0], r"chosen\[1, 0\]: expected one of a group"),
        ("chosen", 0, [1, 1, 0, 1], r"chosen\[0, 0\]: expected one of a group"),
    ],
)
def test_each_broken_group_is_named(field, row, values, message):
    check(example())
    check(empty_batch(2, 4, 2, pairs=True, reference=True))
    batch = example()
    getattr(batch, field)[row] = values
    with pytest.raises(ValueError, match=message):
        check(batch)


def test_a_field_of_another_type_is_named():
    batch = example()._replace(reference_log_probs=np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"reference_log_probs: float64\[2, 4\], expected float32"):
        check(batch)
