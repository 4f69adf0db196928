"""A page that paints every token of some rows: its weight, channel, segment, and why so."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, StrictUndefined

from dlm.data.pipeline import Batches
from dlm.data.store import Pieces
from dlm.dialogue.encoding import CHANNEL_NAMES
from dlm.dialogue.endings import alternatives, completed
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.schema import CHANNELS, Dialogue, response_units
from dlm.dialogue.tokenizer import Tokenizer

PAGE = Path(__file__).with_name("audit_page.html")
WHY = {
    "learned": "learned: the model is taught to write it",
    "role": "read: somebody else's message",
    "header": "read: opens a message, or is the first token, which nothing precedes",
    "channel": "read: policy.channels leaves its channel out",
    "turn": "read: policy.turns leaves its turn out",
    "weight": "read: its message has weight 0 in the corpus",
    "history": "read: history of a later turn or of an ending; itself learned elsewhere, if at all",
    "padding": "padding: no token, nothing is computed from it",
}


class Token(NamedTuple):
    """A token as it is painted.

    Attributes:
      text: what it says; a character of several tokens stands at its last.
      why: a key of `WHY`.
      title: all that is known of it.
      control: it is no text.
    """

    text: str
    why: str
    title: str
    control: bool


class Said(NamedTuple):
    """A message: its channel or role, turn (-1 before the first) and largest weight."""

    name: str
    turn: int
    weight: float
    tokens: list[Token]


@dataclass(frozen=True)
class Segment:
    """A piece of a dialogue in its row; `number` from 1."""

    number: int
    dialogue: str
    task: str
    said: list[Said]


@dataclass(frozen=True)
class Row:
    """A row of the batch; `padding` positions at its end hold no token."""

    number: int
    segments: list[Segment]
    padding: int


def audit_rows(
    batches: Batches,
    source: Sequence[Dialogue],
    tokenizer: Tokenizer,
    policy: PolicyConfig,
    rows: int,
) -> list[Row]:
    """The first rows of the first batch, token by token, as the model is given them.

    Args:
      batches: of the split.
      source: its dialogues.
      tokenizer: that encoded them.
      policy: that they were encoded by (`PolicyConfig.scored` in evaluation).
      rows: at most so many.
    """
    batch = batches.batch(0)
    found = []
    for row, members in enumerate(batches.row_pieces(0)[:rows]):
        if not members:
            break
        segments = []
        for number, index in enumerate(members, 1):
            here = batch.segment_ids[row] == number
            dialogue = _read(batches.pieces, index, source)
            columns = Columns(
                tokens=batch.tokens[row][here],
                targets=batch.targets[row][here],
                weights=batch.loss_weights[row][here],
                channels=batch.channel_ids[row][here],
                turns=batch.turn_ids[row][here],
                units=batches.pieces.piece(index).unit_ids,
            )
            said = list(_messages(columns, number, dialogue, tokenizer, policy))
            segments.append(Segment(number, dialogue.id, dialogue.task, said))
        found.append(Row(row, segments, int((batch.segment_ids[row] == 0).sum())))
    return found


def _read(pieces: Pieces, index: int, source: Sequence[Dialogue]) -> Dialogue:
    """The dialogue of a piece, with its ending."""
    dialogue = source[int(pieces.dialogue_index[index])]
    if not pieces.grouped:
        return completed(dialogue)
    first = int(np.searchsorted(pieces.dialogue_index, pieces.dialogue_index[index]))
    return alternatives(dialogue)[index - first].dialogue


class Columns(NamedTuple):
    """A segment's arrays of a batch, each [n], and `Encoded.unit_ids`."""

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    channels: np.ndarray
    turns: np.ndarray
    units: np.ndarray


def reasons(columns: Columns, dialogue: Dialogue, policy: PolicyConfig) -> list[str]:
    """Why each target is learned, or only read: [n] keys of `WHY`."""
    units, weights = response_units(dialogue), policy.weights(dialogue)

    def why(weight: float, channel: str, unit: int) -> str:
        if weight > 0:
            return "learned"
        if channel not in CHANNELS:
            return "role"
        if unit < 0:
            return "header"
        if channel not in policy.channels:
            return "channel"
        (index,) = (i for i in units[unit] if dialogue.messages[i].channel == channel)
        if dialogue.messages[index].weight == 0:
            return "weight"
        return "history" if weights[index] else "turn"

    rows = zip(columns.weights, columns.channels, columns.units, strict=True)
    return [why(float(w), CHANNEL_NAMES[channel], int(unit)) for w, channel, unit in rows]


def audit_page(title: str, rows: Sequence[Row], counts: str) -> str:
    """One HTML file that fetches nothing; every text in it is escaped by the template engine.

    Args:
      title: of the page.
      rows: what is painted.
      counts: a table of the splits, as plain text.
    """
    tokens = [t for row in rows for segment in row.segments for s in segment.said for t in s.tokens]
    seen = Counter(token.why for token in tokens)
    seen["padding"] = sum(row.padding for row in rows)
    engine = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    legend = [(why, text, seen[why]) for why, text in WHY.items() if seen[why]]
    page = engine.from_string(PAGE.read_text(encoding="utf-8"))
    return page.render(title=title, rows=rows, counts=counts, legend=legend, total=seen.total())


def _messages(
    columns: Columns, segment: int, dialogue: Dialogue, tokenizer: Tokenizer, policy: PolicyConfig
) -> Iterator[Said]:
    """The tokens of a segment, message by message; the first stands for itself, then targets."""
    whys = ["header", *reasons(columns, dialogue, policy)]
    ids = [int(columns.tokens[0]), *columns.targets.tolist()]
    weights = [0.0, *columns.weights.tolist()]
    names = [CHANNEL_NAMES[i] for i in (columns.channels[0], *columns.channels)]
    turns = [int(turn) for turn in (columns.turns[0], *columns.turns)]
    begins = np.diff(columns.units < 0, prepend=True) & (columns.units < 0)
    message = np.cumsum([0, *begins])
    texts = _texts(ids, tokenizer)
    for (name, turn, _), places in groupby(
        range(len(ids)), key=lambda t: (names[t], turns[t], message[t])
    ):
        at = list(places)
        tokens = [
            Token(
                texts[t],
                whys[t],
                f"{WHY[whys[t]]}\nweight {weights[t]:g}, channel {name}, turn {turn}, "
                f"segment {segment}, position {t}, id {ids[t]}",
                tokenizer.control_name(ids[t]) is not None,
            )
            for t in at
        ]
        yield Said(name, turn, max(weights[t] for t in at), tokens)


def _texts(ids: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """What each token says; what would not be seen is escaped, a line break has a sign."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    texts = []
    for token in ids:
        name = tokenizer.control_name(token)
        text = name or decoder.decode(tokenizer.token_bytes(token))
        shown = ("↵\n" if c == "\n" else c if c.isprintable() else repr(c)[1:-1] for c in text)
        texts.append("".join(shown) or "‥")
    return texts
