from __future__ import annotations

import numpy as np
import pytest

from dlm.data.batch import Batch, check, empty_batch


def example() -> Batch:
    """The batch drawn in the docstring of Batch."""
    u, a, x, y, b, end = 1, 2, 3, 4, 5, 6
    return Batch(
        tokens=np.array([[u, a, x, y, u, b, 0, 0]], np.int32),
        targets=np.array([[a, x, y, end, b, end, 0, 0]], np.int32),
        loss_weights=np.array([[0, 1, 1, 1, 0, 1, 0, 0]], np.float32),
        segment_ids=np.array([[1, 1, 1, 1, 2, 2, 0, 0]], np.int32),
        positions=np.array([[0, 1, 2, 3, 0, 1, 0, 0]], np.int32),
        channel_ids=np.array([[2, 10, 10, 10, 2, 10, -1, -1]], np.int32),
        turn_ids=np.array([[0, 0, 0, 0, 0, 0, -1, -1]], np.int32),
        dialogue_ids=np.array([[7, 4]], np.int32),
        task_ids=np.array([[0, 0]], np.int32),
    )


def broken(**cells: tuple[int, float]) -> Batch:
    """The example with one cell of each named array changed."""
    batch = example()
    for name, (column, value) in cells.items():
        getattr(batch, name)[0, column] = value
    return batch


def test_example_and_padding_keep_the_contract():
    check(example())
    check(empty_batch(3, 8, 2))
    empty = empty_batch(3, 8, 2)
    assert empty.tokens.shape == (3, 8)
    assert empty.task_ids.shape == (3, 2)
    assert (empty.dialogue_ids == -1).all()
    assert (empty.loss_weights == 0).all()


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"loss_weights": (6, 1.0)}, r"loss_weights\[0, 6\]: expected 0 on padding"),
        ({"loss_weights": (1, -1.0)}, r"loss_weights\[0, 1\]: expected a finite weight >= 0"),
        ({"loss_weights": (1, np.nan)}, r"loss_weights\[0, 1\]"),
        ({"segment_ids": (2, 3)}, r"segment_ids\[0, 2\]: expected 0..2"),
        ({"segment_ids": (0, 2)}, r"segment_ids\[0, 0\]: expected the next segment"),
        ({"segment_ids": (4, 1)}, r"positions\[0, 5\]: expected 0 at a segment's first position"),
        ({"segment_ids": (3, 0)}, r"segment_ids\[0, 4\]: expected padding at the end only"),
        ({"positions": (4, 4)}, r"positions\[0, 4\]: expected 0 at a segment's first position"),
        ({"positions": (3, 5)}, r"positions\[0, 3\]: expected one more than before it"),
        ({"targets": (1, 8)}, r"targets\[0, 1\]: expected the next token"),
        ({"dialogue_ids": (1, -1)}, r"dialogue_ids\[0, 1\]: expected an id for each segment"),
    ],
)
def test_each_broken_cell_is_named(cells, message):
    with pytest.raises(ValueError, match=message):
        check(broken(**cells))


def test_boundaries_are_free():
    """The last token of a dialogue need not, and does not, predict the first of the next."""
    batch = example()
    assert batch.targets[0, 3] != batch.tokens[0, 4]
    check(batch)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("tokens", np.zeros((1, 8), np.int64), r"batch.tokens: int64\[1, 8\], expected int32"),
        ("positions", np.zeros((1, 7), np.int32), r"batch.positions: int32\[1, 7\]"),
        ("task_ids", np.zeros((1, 3), np.int32), r"batch.task_ids: int32\[1, 3\]"),
    ],
)
def test_shape_and_dtype_are_checked(name, array, message):
    with pytest.raises(ValueError, match=message):
        check(example()._replace(**{name: array}))
