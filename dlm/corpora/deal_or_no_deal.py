"""Deal or No Deal: two people share out books, hats and balls that each values otherwise.

    <input> 1 4 4 1 1 2 </input> <dialogue> THEM: i want the hats . <eos> YOU: deal <eos> THEM:
    <selection> </dialogue> <output> item0=1 item1=0 item2=1 item0=0 item1=4 item2=0 </output>
    <partner_input> 1 0 4 2 1 2 </partner_input>          (all of it one line)

The assistant is YOU. Its `context` is how many there are and what one of them is worth to it:

    1 book worth 4; 4 hat worth 1; 1 ball worth 2

THEM is the user, and YOU's utterances are replies. A negotiation ends with `<selection>` by one of
them: the user's is a message of that word, the assistant's own is none. What the assistant then
takes is its `act`: `select(book=1, hat=0, ball=1)`, or `disagree` (what the two chose does not add
up), `no_agreement` or `disconnect`. `meta.partner` are the other's values; `meta.points`, where
they agreed, those of the assistant and of the partner.

A negotiation stands there twice, line after line, once from each side; both views are in one
split, as published, and have its number in their ids. Of 327 negotiations in train, 37 in
validation and 38 in test, one view is there.

Source: Lewis et al.: Deal or No Deal? End-to-End Learning for Negotiation Dialogues, EMNLP 2017,
arXiv:1706.05125.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dlm.core.config import parse
from dlm.core.errors import UserError
from dlm.corpora.published import find_files, reading, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tables import check_counts, reader_digest, text_lines
from dlm.corpora.tfds_store import build
from dlm.dialogue import slots
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.slots import Act, spell_acts

ITEMS = ("book", "hat", "ball")
OTHER = {"YOU": "THEM", "THEM": "YOU"}
SELECTION = "<selection>"
OUTCOMES = {f"<{name}>": Act(name) for name in ("disagree", "no_agreement", "disconnect")}
LINE = re.compile(
    r"<input> (\d+(?: \d+){5}) </input> <dialogue> (.+) </dialogue> <output> (\S+(?: \S+){5}) "
    r"</output> <partner_input> (\d+(?: \d+){5}) </partner_input>\s*"
)
FILES = {
    "train": "negotiate/train.txt",
    "validation": "negotiate/val.txt",
    "test": "negotiate/test.txt",
}
COUNTS = {  # measured on the release
    "train": {"views": 10095, "without their mirror": 327},
    "validation": {"views": 1087, "without their mirror": 37},
    "test": {"views": 1052, "without their mirror": 38},
}
CARD = Card(
    task="negotiation",
    description="Deal or No Deal: two people share out things that each values otherwise.",
    citation=(
        "Mike Lewis, Denis Yarats, Yann N. Dauphin, Devi Parikh, Dhruv Batra: Deal or No Deal? "
        "End-to-End Learning for Negotiation Dialogues, EMNLP 2017"
    ),
    licence="CC BY-NC 4.0",
    counts={split: counts["views"] for split, counts in COUNTS.items()},
    folder="deal-or-no-deal",
    files=tuple(FILES.values()),
    remedy=(
        "take the folder src/data/negotiate of the GitHub repository "
        "facebookresearch/end-to-end-negotiator, and name the folder that holds it in "
        "data.options.path, or put it at $DLM_DATA_DIR/deal-or-no-deal"
    ),
    missing="the other side's view of 402 negotiations",
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      path: folder of the published files; empty: `$DLM_DATA_DIR/deal-or-no-deal`.
    """

    path: str = ""


class View(NamedTuple):
    """A negotiation from one side: (count, worth) of each item, (who, text) turns, and the end."""

    items: tuple[int, ...]
    turns: tuple[tuple[str, str], ...]
    output: tuple[str, ...]
    partner: tuple[int, ...]

    def mirror(self) -> View:
        """The same from the other side."""
        turns = tuple((OTHER[who], text) for who, text in self.turns)
        return View(self.partner, turns, self.output[3:] + self.output[:3], self.items)


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens the corpus.

    Raises:
      UserError: a file that is absent or damaged, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    root = root_of(CARD, config.path)
    paths = dict(zip(FILES, find_files(CARD, root, FILES.values()), strict=True))
    return build(
        "deal_or_no_deal",
        reader_digest(config, root, paths.values(), sys.modules[__name__], slots),
        {split: partial(read_split, path, split) for split, path in paths.items()},
        data_dir,
        card=CARD,
    )


def read_split(path: Path, split: str) -> Iterator[Dialogue]:
    """The views of a file; ids are `train-17-first`, of the side that speaks first, and `-second`.

    Raises:
      UserError: a line is no negotiation, or counts unlike the published.
    """
    lines = list(text_lines(path))
    views = [parse_line(line, where) for where, line in lines]
    number = alone = index = 0
    while index < len(views):
        pair = views[index : index + 2]
        if len(pair) < 2 or pair[0].mirror() != pair[1]:
            del pair[1:]
            alone += 1
        for (where, _), view in zip(lines[index : index + len(pair)], pair, strict=True):
            side = "first" if view.turns[0][0] == "YOU" else "second"
            with reading(where, CARD):
                found = dialogue(view, f"{split}-{number}-{side}")
            yield found
        number, index = number + 1, index + len(pair)
    counts = {"views": len(views), "without their mirror": alone}
    check_counts(path, counts, COUNTS[split], CARD)


def parse_line(line: str, where: str) -> View:
    """Reads a line.

    Raises:
      UserError: it is no negotiation.
    """
    found = LINE.fullmatch(line)
    turns = [turn.partition(": ") for turn in found[2].split(" <eos> ")] if found else []
    if not found or not all(who in OTHER and text for who, _, text in turns):
        raise UserError(
            f"{where}: no '<input> 6 numbers </input> <dialogue> YOU: .. <eos> THEM: .."
        )
    if turns[-1][2] != SELECTION:
        raise UserError(f"{where}: the negotiation does not end with {SELECTION}")
    with reading(where, CARD):
        return View(
            tuple(map(int, found[1].split())),
            tuple((who, text) for who, _, text in turns),
            tuple(found[3].split()),
            tuple(map(int, found[4].split())),
        )


def dialogue(view: View, name: str) -> Dialogue:
    """A view as messages; see the module."""
    shown = "; ".join(
        f"{count} {item} worth {worth}"
        for item, count, worth in zip(ITEMS, view.items[::2], view.items[1::2], strict=True)
    )
    messages = [Message("context", shown)]
    if view.turns[0][0] == "YOU":
        messages.append(Message("user", ""))
    for who, text in view.turns:
        if who == "THEM":
            messages.append(Message("user", text))
        elif text != SELECTION:
            messages.append(Message("assistant", text, "reply"))
    meta: dict[str, Any] = {"partner": dict(zip(ITEMS, view.partner[1::2], strict=True))}
    if view.output[0] in OUTCOMES:
        act = OUTCOMES[view.output[0]]
    else:
        taken = [int(item.partition("=")[2]) for item in view.output]
        act = Act("select", tuple(zip(ITEMS, map(str, taken[:3]), strict=True)))
        meta["points"] = [_points(taken[:3], view.items), _points(taken[3:], view.partner)]
    messages.append(Message("assistant", spell_acts([act]), "act"))
    return Dialogue(name, tuple(messages), meta=meta)


def _points(taken: list[int], items: tuple[int, ...]) -> int:
    return sum(count * worth for count, worth in zip(taken, items[1::2], strict=True))
