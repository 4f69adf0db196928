from __future__ import annotations

import itertools
from collections import Counter

import jax
import numpy as np
import pytest

from dlm.core.errors import UserError
from dlm.data.batch import Batch, check
from dlm.data.pipeline import KEPT, Batches, DataConfig
from dlm.dialogue.encoding import Rejected, fit
from dlm.dialogue.policy import PolicyConfig

PIECE = 34  # tokens of a piece, at most
LENGTH = 100
ROWS = 7


@pytest.fixture
def pieces(build):
    """Some dialogues give several pieces, some none."""
    pieces = build(length=PIECE, overflow="split")
    assert pieces.counts.rejected
    assert len(pieces) > len(set(pieces.dialogue_index))
    return pieces


def batches_of(pieces, **options) -> Batches:
    return Batches(pieces, ROWS, LENGTH, **{"seed": 3, **options})


def learned(dialogue: int, tokens, weights, targets, places) -> Counter:
    """The multiset of (dialogue, place, token before, target, weight) of learned positions."""
    items = zip(tokens, weights, targets, places, strict=True)
    return Counter((dialogue, place, t, y, w) for t, w, y, place in items if w > 0)


def fitted(dialogue, template):
    try:
        return fit(dialogue, template, PolicyConfig(), PIECE, "split")
    except Rejected:
        return []


def learned_in(batch: Batch) -> Counter:
    found: Counter = Counter()
    for row, dialogues in enumerate(batch.dialogue_ids):
        for segment, dialogue in enumerate(dialogues):
            here = batch.segment_ids[row] == segment + 1
            fields = (batch.tokens, batch.loss_weights, batch.targets, batch.positions)
            found += learned(int(dialogue), *(field[row][here].tolist() for field in fields))
    return found


def equal(a: Batch, b: Batch) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_pages_are_let_go_now_and_then(pieces, monkeypatch):
    """Once in so many batches, which are the same."""
    wanted = [batches_of(pieces).batch(step) for step in range(KEPT + 2)]
    calls, let_go = [], pieces.let_go
    monkeypatch.setattr(pieces, "let_go", lambda: calls.append(1) or let_go())
    batches = batches_of(pieces)
    assert all(equal(batches.batch(step), batch) for step, batch in enumerate(wanted))
    assert len(calls) == 2


@pytest.mark.parametrize("pack", [True, False])
def test_processes_make_rows_of_their_own(pieces, pack, monkeypatch):
    """Rows dealt to three processes are those of the whole batch; each reads what it makes."""
    whole = batches_of(pieces, pack=pack)
    hands = [range(0, 2), range(2, 3), [3, 5, 4, *range(6, whole.rows)]]
    read, put = [], Batches._put
    monkeypatch.setattr(Batches, "_put", lambda *args: read.append(args[-1]) or put(*args))
    for step in (0, whole.num_steps() - 1, whole.num_steps()):
        batch = whole.batch(step)
        for rows in hands:
            read.clear()
            assert equal(
                whole.only(rows).batch(step),
                jax.tree.map(lambda array: array[list(rows)], batch),  # noqa: B023
            )
            assert read == [piece for row in rows for piece in whole.row_pieces(step)[row]]
    assert whole.only(hands[0]).rows == whole.rows


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("shuffle", [True, False])
def test_packing_loses_nothing(pieces, dialogues, template, pack, shuffle):
    """Packing loses nothing: every learned target of every dialogue once an epoch, tail included.

    The oracle encodes the dialogues anew, without cache, plan or batch.
    """
    batches = batches_of(pieces, pack=pack, shuffle=shuffle)
    wanted: Counter = Counter()
    for index, dialogue in enumerate(dialogues):
        for piece in fitted(dialogue, template):
            fields = (piece.tokens, piece.loss_weights, piece.targets, np.arange(len(piece.tokens)))
            wanted += learned(index, *(field.tolist() for field in fields))
    epochs = (0, 1) if shuffle else (0,)
    for epoch in epochs:
        first = epoch * batches.num_steps()
        steps = range(first, first + batches.num_steps())
        assert sum((learned_in(batches.batch(step)) for step in steps), Counter()) == wanted


@pytest.mark.parametrize("pack", [True, False])
def test_batches_keep_the_contract(pieces, pack):
    """Boundaries come from the packer, and padding is nothing, in every batch of an epoch."""
    batches = batches_of(pieces, pack=pack)
    for step in range(batches.num_steps()):
        batch = check(batches.batch(step))
        assert batch.tokens.shape == (batches.rows, LENGTH)
        assert batch.dialogue_ids.shape == (batches.rows, batches.segments)
        padding = batch.segment_ids == 0
        assert not batch.tokens[padding].any()
        assert not batch.targets[padding].any()
        assert not batch.loss_weights[padding].any()
        assert not batch.positions[padding].any()
        assert (batch.channel_ids[padding] == -1).all()
        assert (batch.turn_ids[padding] == -1).all()


def test_segments_are_the_pieces(pieces):
    """A segment is one piece, whatever ids it holds: a terminator inside it does not split it."""
    batches = batches_of(pieces)
    batch = batches.batch(0)
    for row, members in enumerate(batches.row_pieces(0)):
        for segment, index in enumerate(members):
            here = batch.segment_ids[row] == segment + 1
            piece = pieces.piece(index)
            for name in ("tokens", "targets", "loss_weights", "channel_ids", "turn_ids"):
                np.testing.assert_array_equal(getattr(batch, name)[row][here], getattr(piece, name))
            assert batch.dialogue_ids[row, segment] == pieces.dialogue_index[index]
            assert batch.task_ids[row, segment] == pieces.task_id[index]


@pytest.mark.parametrize("start", [0, 1, 4, 9])
@pytest.mark.parametrize("pack", [True, False])
def test_resume_gives_the_same_batches(pieces, start, pack):
    """Resume is bitwise: batches from step k on are those of a run that was never stopped.

    The steps reach over two ends of epochs.
    """
    stop = 2 * batches_of(pieces).num_steps() + 2
    whole = list(batches_of(pieces, pack=pack).iterate(0, stop))
    resumed = list(batches_of(pieces, pack=pack).iterate(start, stop))
    assert len(resumed) == stop - start
    assert all(equal(a, b) for a, b in zip(whole[start:], resumed, strict=True))


def test_order_does_not_depend_on_threads(pieces):
    """One thread, many threads and plain indexing give the same batches in the same order."""
    batches = batches_of(pieces)
    one = list(batches.iterate(2, 12, threads=1, buffer=1))
    many = list(batches.iterate(2, 12, threads=8, buffer=16))
    direct = [batches.batch(step) for step in range(2, 12)]
    assert all(equal(a, b) and equal(a, c) for a, b, c in zip(one, many, direct, strict=True))


def test_packed_and_unpacked_steps_hold_the_same_dialogues(pieces):
    """Unpacked rows are the same plan unfolded: step n holds the same dialogues, one a row."""
    packed, unpacked = batches_of(pieces), batches_of(pieces, pack=False)
    assert unpacked.rows % packed.rows == 0  # what divides the ones divides the others
    assert packed.num_steps() == unpacked.num_steps()
    for step in range(2 * packed.num_steps()):
        assert packed.dialogues(step) == unpacked.dialogues(step)
        assert all(len(row) <= 1 for row in unpacked.row_pieces(step))
        assert learned_in(packed.batch(step)) == learned_in(unpacked.batch(step))


def test_order_is_decided_by_seed_epoch_and_corpus(build):
    pieces = build(length=PIECE)
    steps = range(batches_of(pieces).num_steps())

    def order(pieces, seed=3, epoch=0):
        batches = batches_of(pieces, seed=seed)
        return [batches.dialogues(step + epoch * len(steps)) for step in steps]

    assert order(pieces) == order(pieces)
    assert order(pieces) != order(pieces, seed=4)
    assert order(pieces) != order(pieces, epoch=1)
    assert order(pieces) != order(build(length=PIECE, data_digest="d2"))


def test_two_policies_share_their_order(build):
    """Two variants of an ablation that differ in supervision see the same data order."""
    other = build(length=PIECE, policy=PolicyConfig(channels=("reply",)))
    base = build(length=PIECE)
    assert other.folder != base.folder
    steps = range(batches_of(base).num_steps())
    assert all(batches_of(base).dialogues(s) == batches_of(other).dialogues(s) for s in steps)


def test_evaluation_order(pieces):
    """Unshuffled: each piece once, one epoch, in the order of each row's first piece."""
    batches = batches_of(pieces, shuffle=False)
    rows = [row for step in range(batches.num_steps()) for row in batches.row_pieces(step)]
    assert sorted(itertools.chain(*rows)) == list(range(len(pieces)))
    assert [row[0] for row in rows if row] == sorted(row[0] for row in rows if row)
    assert len(list(batches.iterate(0))) == batches.num_steps()
    for step in (batches.num_steps(), -1):
        with pytest.raises(IndexError, match="no step"):
            batches.batch(step)


def test_last_batch_of_an_epoch_is_filled_with_empty_rows(pieces):
    batches = batches_of(pieces)
    rows = [row for step in range(batches.num_steps()) for row in batches.row_pieces(step)]
    assert len(rows) == batches.num_steps() * ROWS
    assert 0 < sum(not row for row in rows) < ROWS
    assert not any(row == [] for row in rows[: -ROWS + 1])


def test_no_dialogue_is_an_error_that_names_the_split(build):
    with pytest.raises(UserError, match="train: no dialogue to read"):
        batches_of(build(source=[]))


def test_file_options_go_to_the_corpus():
    """What is set, and nothing else, so that a corpus without such an option refuses it."""
    config = DataConfig(path="a.jsonl", on_bad_record="skip", options={"validation_share": 0.2})
    assert config.corpus_options() == {
        "path": "a.jsonl",
        "on_bad_record": "skip",
        "validation_share": 0.2,
    }
    assert DataConfig(name="concierge", options={"skills": ("booking",)}).corpus_options() == {
        "skills": ("booking",)
    }


@pytest.mark.parametrize("name", ["length", "rows"])
def test_sizes_are_positive(name):
    with pytest.raises(UserError, match=rf"data\.{name}=0 must be at least 1"):
        DataConfig(**{name: 0})
