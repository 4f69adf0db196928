"""The one batch type: packed and unpacked rows, training and evaluation."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

Array: TypeAlias = Any  # of numpy on the host, of JAX on a device


class Batch(NamedTuple):
    """B rows of T positions; a row packs up to U pieces of dialogues, its segments.

    `targets[t]` is the token after `tokens[t]`, shifted once, in encoding. One row (T = 8, U = 2)
    that packs dialogues 7, "u a x y .", and 4, "u b .", of which "x y ." and "." are learned, and
    ends in two positions of padding:

        tokens         u a x y u b 0 0
        targets        a x y . b . 0 0
        loss_weights   0 1 1 1 0 1 0 0
        segment_ids    1 1 1 1 2 2 0 0
        positions      0 1 2 3 0 1 0 0
        dialogue_ids   7 4

    Attributes:
      tokens: [B, T] int32.
      targets: [B, T] int32, the next token of the same segment.
      loss_weights: [B, T] float32 >= 0; 0 = only read, or padding.
      segment_ids: [B, T] int32; 0 = padding, 1..U = place of the dialogue in its row.
      positions: [B, T] int32; restart at 0 in each segment.
      channel_ids: [B, T] int32, role or channel of `targets`; -1 none.
      turn_ids: [B, T] int32, turn of `targets` in the original dialogue; -1 none.
      dialogue_ids: [B, U] int32, index into the corpus; -1 none.
      task_ids: [B, U] int32; -1 none.
      pair_ids: [B, U] int32, which group of endings of its row the segment belongs to; -1 none.
        None, as the next two, where no endings are compared.
      chosen: [B, U] bool, the ending that is preferred, one of each group.
      reference_log_probs: [B, U] float32, log probability of the segment's supervised targets under
        the model that training began with; None where no loss reads it.
    """

    tokens: Array
    targets: Array
    loss_weights: Array
    segment_ids: Array
    positions: Array
    channel_ids: Array
    turn_ids: Array
    dialogue_ids: Array
    task_ids: Array
    pair_ids: Array = None
    chosen: Array = None
    reference_log_probs: Array = None


TOKEN_FIELDS = Batch._fields[:7]
PAIR_FIELDS = ("pair_ids", "chosen")
PADDING = dict.fromkeys(("channel_ids", "turn_ids", "dialogue_ids", "task_ids", "pair_ids"), -1)
DTYPES = {"loss_weights": np.float32, "chosen": np.bool_, "reference_log_probs": np.float32}


def empty_batch(
    rows: int, length: int, segments: int, *, pairs: bool = False, reference: bool = False
) -> Batch:
    """A batch of padding: [rows, length] and [rows, segments] numpy arrays.

    Args:
      rows: B.
      length: T.
      segments: U.
      pairs: with `pair_ids` and `chosen`.
      reference: with `reference_log_probs`.
    """

    def array(name: str) -> np.ndarray:
        shape = (rows, length if name in TOKEN_FIELDS else segments)
        return np.full(shape, PADDING.get(name, 0), DTYPES.get(name, np.int32))

    without = {*(() if pairs else PAIR_FIELDS), *(() if reference else ("reference_log_probs",))}
    return Batch(**{name: array(name) for name in Batch._fields if name not in without})


def check(batch: Batch) -> Batch:
    """Returns the batch if it keeps its contract.

    Raises:
      ValueError: naming the array, the row and the position that break it.
    """
    arrays = Batch(*(array if array is None else np.asarray(array) for array in batch))
    shape = arrays.tokens.shape
    segments = arrays.dialogue_ids.shape
    for name, array in arrays._asdict().items():
        if array is None:
            continue
        wanted = shape if name in TOKEN_FIELDS else segments
        dtype = DTYPES.get(name, np.int32)
        if array.ndim != 2 or array.shape != wanted or array.dtype != dtype:
            raise ValueError(
                f"batch.{name}: {array.dtype}{list(array.shape)}, expected "
                f"{np.dtype(dtype)}{list(wanted)}"
            )
    if segments[0] != shape[0]:
        raise ValueError(f"batch.dialogue_ids: {segments[0]} rows, batch.tokens has {shape[0]}")
    weights, ids = arrays.loss_weights, arrays.segment_ids
    previous = np.concatenate([np.zeros_like(ids[:, :1]), ids[:, :-1]], axis=1)
    same = (ids == previous) & (ids > 0)
    starts = (ids != previous) & (ids > 0)
    first = np.arange(shape[1]) == 0
    _require("loss_weights", np.isfinite(weights) & (weights >= 0), "a finite weight >= 0")
    _require("segment_ids", (ids >= 0) & (ids <= segments[1]), f"0..{segments[1]}")
    _require("segment_ids", (previous > 0) | first | (ids == 0), "padding at the end only")
    _require("segment_ids", (ids - previous == 1) | ~starts, "the next segment")
    _require("positions", (arrays.positions == 0) | ~starts, "0 at a segment's first position")
    steps = np.diff(arrays.positions, axis=1, prepend=0)
    _require("positions", (steps == 1) | ~same, "one more than before it")
    following = arrays.targets[:, :-1] == arrays.tokens[:, 1:]
    _require("targets", following | ~same[:, 1:], "the next token")
    _require("loss_weights", (weights == 0) | (ids > 0), "0 on padding")
    present = np.arange(1, segments[1] + 1)[None, :] <= ids.max(axis=1, initial=0)[:, None]
    _require("dialogue_ids", (arrays.dialogue_ids >= 0) == present, "an id for each segment")
    if arrays.pair_ids is not None:
        _check_groups(arrays.pair_ids, arrays.chosen, present)
    return batch


def _check_groups(ids: np.ndarray, chosen: np.ndarray, present: np.ndarray) -> None:
    same = (ids[:, :, None] == ids[:, None, :]) & present[:, :, None]
    _require("pair_ids", (ids >= 0) == present, "an id for each segment")
    _require("pair_ids", (same.sum(2) > 1) | ~present, "another ending beside it")
    _require("chosen", ((same & chosen[:, None]).sum(2) == 1) | ~present, "one of a group")


def _require(name: str, holds: np.ndarray, wanted: str) -> None:
    if not holds.all():
        row, column = np.argwhere(~holds)[0]
        raise ValueError(f"batch.{name}[{row}, {column}]: expected {wanted}")
