"""Teacher-forced scores: from per-token losses and argmax hits to the figures of a report.

Every figure is a sum divided by a sum over the whole split, so batches, packing and the number of
devices do not enter (a mean of means would). Tokens are the supervised targets: content, the
channel token in front of it and the end token behind it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dlm.core.mean import Mean
from dlm.dialogue.encoding import CHANNEL_NAMES, Encoded

# Metrics that count whole messages of one channel.
MESSAGE_METRICS = {"call": "call_accuracy", "state": "state_accuracy"}


@dataclass
class _Dialogue:
    """What is known of one dialogue so far: its task and whether each response is right."""

    task: int
    responses: dict[int, bool] = field(default_factory=dict)


class Scores:
    """Adds up pieces of dialogues, in any order; the same pieces give the same means.

    Metrics, each a share in 0..1 but the first:

        loss                 weighted nats per supervised token
        token_accuracy       tokens that are the argmax
        response_accuracy    response units whose every token is the argmax: what greedy generation
                             from the gold history writes exactly
        dialogue_accuracy    dialogues whose every response is right
        call_accuracy        `call` messages whose every token is right
        state_accuracy       `state` messages whose every token is right

    A dialogue that was cut into several pieces counts once, and is right if all of them are.

    Args:
      task_names: name of each task id; a task without a name has no figures of its own.
    """

    def __init__(self, task_names: Sequence[str] = ()):
        self._task_names = task_names
        self._sums: dict[str, Mean] = {}
        self._dialogues: dict[int, _Dialogue] = {}

    def add(
        self, piece: Encoded, losses: np.ndarray, correct: np.ndarray, *, dialogue: int, task: int
    ) -> None:
        """Adds one piece; every supervised token of a split is in exactly one piece.

        Args:
          piece: the encoded piece, n positions.
          losses: [n] float, nats of each target; read where the piece's weight is positive.
          correct: [n] bool, whether the target is the argmax; read likewise.
          dialogue: the dialogue's index in its split.
          task: its task id.

        Raises:
          ValueError: the arrays are not of the piece's length.
        """
        if not len(losses) == len(correct) == len(piece.targets):
            raise ValueError(
                f"dialogue {dialogue}: {len(piece.targets)} targets, {len(losses)} losses, "
                f"{len(correct)} hits"
            )
        kept = np.flatnonzero(piece.loss_weights > 0)
        weights = np.asarray(piece.loss_weights, np.float64)[kept]
        nats = np.asarray(losses, np.float64)[kept]
        hits = np.asarray(correct, bool)[kept]
        channels, units = np.asarray(piece.channel_ids)[kept], np.asarray(piece.unit_ids)[kept]

        scopes = self._task_scopes(task)
        for prefix in scopes:
            self._add_tokens(prefix, nats, weights, hits)
        for channel in np.unique(channels):
            here, name = channels == channel, CHANNEL_NAMES[channel]
            self._add_tokens(f"channel:{name}/", nats[here], weights[here], hits[here])
            if name in MESSAGE_METRICS:
                right = _messages(kept[here], hits[here])
                for prefix in scopes:
                    _add(self._sums, prefix + MESSAGE_METRICS[name], sum(right), len(right))
        for unit in np.unique(units[units >= 0]):
            known = self._dialogues.setdefault(dialogue, _Dialogue(task)).responses
            known[int(unit)] = known.get(int(unit), True) and bool(hits[units == unit].all())

    def means(self) -> dict[str, Mean]:
        """All figures as totals and counts: `METRIC`, `task:NAME/METRIC`, `channel:NAME/METRIC`."""
        means = dict(self._sums)
        for dialogue in self._dialogues.values():
            right = list(dialogue.responses.values())
            for prefix in self._task_scopes(dialogue.task):
                _add(means, f"{prefix}response_accuracy", sum(right), len(right))
                _add(means, f"{prefix}dialogue_accuracy", all(right), 1)
        return dict(sorted(means.items()))

    def _task_scopes(self, task: int) -> list[str]:
        """Prefixes of the figures that a dialogue of this task enters."""
        named = 0 <= task < len(self._task_names) and self._task_names[task]
        return ["", f"task:{self._task_names[task]}/"] if named else [""]

    def _add_tokens(
        self, prefix: str, nats: np.ndarray, weights: np.ndarray, hits: np.ndarray
    ) -> None:
        _add(self._sums, f"{prefix}loss", weights @ nats, weights.sum())
        _add(self._sums, f"{prefix}token_accuracy", hits.sum(), len(hits))


def _add(sums: dict[str, Mean], name: str, total: float, count: float) -> None:
    sums[name] = sums.get(name, Mean(0.0, 0.0)).plus(Mean(float(total), float(count)))


def _messages(positions: np.ndarray, hits: np.ndarray) -> list[bool]:
    """Whether each message is right: a message is a run of neighbouring supervised positions."""
    starts = np.flatnonzero(np.diff(positions, prepend=-2) != 1)
    return [bool(right) for right in np.logical_and.reduceat(hits, starts)]


def figures(means: Mapping[str, Mean], split: str) -> dict[str, float]:
    """Divides once: `{SPLIT/METRIC: value}`, with `perplexity` = exp(loss) beside each `loss`.

    Beside each `token_accuracy` stands what it counted, `supervised_tokens`.

    A mean of nothing has no figure. A loss beyond what exp can hold gives an infinite perplexity.
    """
    flat: dict[str, float] = {}
    for name, mean in means.items():
        if not mean.count:
            continue
        flat[f"{split}/{name}"] = mean.value
        if name.endswith("loss"):
            flat[f"{split}/{name.removesuffix('loss')}perplexity"] = perplexity(mean.value)
        if name.endswith("token_accuracy"):
            flat[f"{split}/{name.removesuffix('token_accuracy')}supervised_tokens"] = mean.count
    return flat


def perplexity(loss: float) -> float:
    """exp(loss), the loss in nats a supervised token."""
    return math.exp(loss) if loss < 709 else math.inf
