"""The pieces of a few dialogues as flat arrays: what is encoded and handed over at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from dlm.data.recipe import Recipe
from dlm.dialogue.encoding import CHANNEL_NAMES, Encoded, Rejected, fit_many
from dlm.dialogue.endings import ENDINGS, PREFERRED, completed, has_endings
from dlm.dialogue.schema import Dialogue, turn_of_messages
from dlm.dialogue.template import Template

TOKEN_ARRAYS = {
    "tokens": np.int32,
    "targets": np.int32,
    "loss_weights": np.float32,
    "channel_ids": np.int32,
    "turn_ids": np.int32,
    "unit_ids": np.int32,
}
PIECE_ARRAYS = {
    "lengths": np.int32,
    "dialogue_index": np.int32,
    "task_id": np.int32,
    "ending": np.int32,
}


@dataclass
class Counts:
    """What a split holds, and what of it is not in the pieces.

    Attributes:
      dialogues: in the split.
      endings: of them with several endings to compare.
      turns: in the split, rejected dialogues included; of several endings with the preferred one.
      tokens: read by the model, over all pieces.
      supervised: by channel, positions of weight > 0.
      dropped_turns: turns of kept dialogues that are in no piece.
      rejected: by reason, dialogues that are in no piece.
    """

    dialogues: int = 0
    endings: int = 0
    turns: int = 0
    tokens: int = 0
    supervised: dict[str, int] = field(default_factory=dict)
    dropped_turns: int = 0
    rejected: dict[str, int] = field(default_factory=dict)

    def add(self, other: Counts) -> None:
        """Adds those of other dialogues of the split."""
        for name in ("dialogues", "endings", "turns", "tokens", "dropped_turns"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("supervised", "rejected"):
            known = getattr(self, name)
            for key, count in getattr(other, name).items():
                known[key] = known.get(key, 0) + count

    def summary(self) -> str:
        """One line on what was left out."""
        reasons = "; ".join(f"{count} rejected: {why}" for why, count in self.rejected.items())
        return f"{self.dialogues} dialogues, {self.dropped_turns} turns dropped" + (
            f"; {reasons}" if reasons else ""
        )


class Block(NamedTuple):
    """The pieces of neighbouring dialogues.

    Attributes:
      arrays: the fields of `Encoded`, each [sum of lengths], piece after piece; and of each piece
        `lengths`, `dialogue_index`, `task_id` and `ending`, [pieces].
      task_names: what `task_id` is an index into.
      counts: of these dialogues.
      rejected: of each rejected dialogue its `dialogue` (index), `id` and `reason`.
    """

    arrays: dict[str, np.ndarray]
    task_names: list[str]
    counts: Counts
    rejected: list[dict[str, Any]]


def encode_block(
    source: Sequence[Dialogue], span: range, template: Template, recipe: Recipe
) -> Block:
    """Encodes the dialogues of `source` in `span`; see `fit_many` for what it raises."""
    dialogues = source[span.start : span.stop]
    encoded = fit_many(
        dialogues,
        template,
        recipe.policy,
        recipe.length,
        overflow=recipe.overflow,
        evaluation=recipe.evaluation,
        groups=recipe.groups,
    )
    counts, rejected = Counts(len(dialogues)), list[dict[str, Any]]()
    pieces: list[Encoded] = []
    rows: list[tuple[int, int]] = []
    tasks: dict[str, int] = {}
    for index, dialogue, found in zip(span, dialogues, encoded, strict=True):
        turns = 1 + max(turn_of_messages(completed(dialogue)), default=-1)
        counts.endings += has_endings(dialogue)
        counts.turns += turns
        if isinstance(found, Rejected):
            counts.rejected[found.reason] = counts.rejected.get(found.reason, 0) + 1
            rejected.append({"dialogue": index, "id": dialogue.id, "reason": str(found)})
            continue
        counts.dropped_turns += turns  # those that are present are taken off below
        pieces += found
        rows += [(index, tasks.setdefault(dialogue.task, len(tasks)))] * len(found)
    arrays = {
        name: np.concatenate([np.zeros(0, kind), *(getattr(piece, name) for piece in pieces)])
        for name, kind in TOKEN_ARRAYS.items()
    }
    arrays["lengths"] = np.array([len(piece.tokens) for piece in pieces], np.int32)
    arrays["dialogue_index"] = np.array([index for index, _ in rows], np.int32)
    arrays["task_id"] = np.array([task for _, task in rows], np.int32)
    arrays["ending"] = np.array([ENDINGS.index(piece.ending) for piece in pieces], np.int32)
    counts.tokens = len(arrays["tokens"])
    counts.dropped_turns -= _present_turns(arrays)
    learned = np.bincount(arrays["channel_ids"][arrays["loss_weights"] > 0])
    counts.supervised = {CHANNEL_NAMES[i]: int(learned[i]) for i in np.flatnonzero(learned)}
    return Block(arrays, list(tasks), counts, rejected)


def _present_turns(arrays: dict[str, np.ndarray]) -> int:
    """How many turns of all dialogues are in some piece; of several endings, of the preferred."""
    dialogues = np.repeat(arrays["dialogue_index"].astype(np.int64), arrays["lengths"])
    preferred = np.array([ending in PREFERRED for ending in ENDINGS])[arrays["ending"]]
    turns = arrays["turn_ids"]
    counted = np.repeat(preferred, arrays["lengths"]) & (turns >= 0)
    places = dialogues[counted] * (1 + turns.max(initial=0)) + turns[counted]
    return len(np.unique(places))
