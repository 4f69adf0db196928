"""MuTual and MuTual-plus: which of four replies follows from a conversation.

    {"answers": "B", "options": ["f : ..", ..], "article": "m : hi . f : ..", "id": "train_1"}

Two people talk; the assistant is the one whose reply is looked for. The other's turns are the
user's, the assistant's earlier turns have weight 0: only the reply, the right option, is learned.
`candidates` are the four options, without the mark of who speaks (`f : `), `answer` is the index
of the right one. So it is learned as a choice, or by cross-entropy as text. A reply to one's own
turn stands behind an empty message of the user. In 20 records of each set an option has the other
one's mark; the assistant is then the one who speaks in most options.

The published answers of `test` are withheld: it has candidates and no answer, ends with the user,
and nothing in it is learned or scored; `validation` is what is scored.

Source: Cui et al.: MuTual: A Dataset for Multi-Turn Dialogue Reasoning, ACL 2020,
arXiv:2004.04494.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mode
from typing import Any

from dlm.core.config import parse
from dlm.core.files import read_json
from dlm.corpora.published import find_files, reading, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tables import reader_digest
from dlm.corpora.tfds_store import build
from dlm.dialogue.checks import check_choice
from dlm.dialogue.schema import Dialogue, Message

SETS = ("mutual", "mutual_plus")
LETTERS = "ABCD"
# Who speaks: `m : ` in mutual, `M: ` in mutual_plus; in four records `m ; f : ` and `M;F: `.
MARK = re.compile(r"(?:^|(?<=\s))(?:[mM] ?; ?)?([mfMF]) ?:(?=\s|$)")
OPTION = re.compile(r"\s*([mfMF]) ?:\s*(.*?)\s*", re.DOTALL)
FOLDERS = {"train": "train", "validation": "dev", "test": "test"}

CARD = Card(
    task="choice",
    description="MuTual: which of four replies follows from a conversation.",
    citation=(
        "Leyang Cui, Yu Wu, Shujie Liu, Yue Zhang, Ming Zhou: MuTual: A Dataset for Multi-Turn "
        "Dialogue Reasoning, ACL 2020"
    ),
    licence="not stated",
    counts={"train": 7088, "validation": 886, "test": 886},
    folder="mutual",
    files=("data/mutual/train/train_1.txt", "data/mutual/dev/dev_1.txt"),
    remedy=(
        "take the folder data of the GitHub repository Nealcly/MuTual, and name the folder that "
        "holds it in data.options.path, or put it at $DLM_DATA_DIR/mutual"
    ),
    missing="the answers of test are withheld: score on validation",
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      set: mutual (lower case, tokenised), or mutual_plus, where one option is a safe reply.
      path: folder of the published files; empty: `$DLM_DATA_DIR/mutual`.
    """

    set: str = "mutual"
    path: str = ""


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens one set.

    Raises:
      UserError: no such set, or a file that is absent or not of this format.
    """
    config = parse(Options, options, "data.options")
    check_choice(config.set, SETS, "", "data.options.set")
    root = root_of(CARD, config.path)
    paths = {
        split: find_files(
            CARD,
            root,
            (
                f"data/{config.set}/{folder}/{folder}_{number}.txt"
                for number in range(1, CARD.counts[split] + 1)
            ),
        )
        for split, folder in FOLDERS.items()
    }
    every = [path for found in paths.values() for path in found]
    return build(
        "mutual",
        reader_digest(config, root, every, sys.modules[__name__]),
        {split: partial(read_files, found) for split, found in paths.items()},
        data_dir,
        card=CARD,
    )


def read_files(paths: Iterable[Path]) -> Iterator[Dialogue]:
    """The dialogues of the files, one in each.

    Raises:
      UserError: a file is not of this format.
    """
    for path in paths:
        record = read_json(path)
        with reading(path, CARD):
            dialogue = parse_record(record)
        yield dialogue


def parse_record(record: Mapping[str, Any]) -> Dialogue:
    """A record as a dialogue; see the module.

    Raises:
      ValueError: a text without a mark of who speaks, other than four options, or an answer that
        is none of them.
    """
    _, *turns = MARK.split(record["article"].strip())
    options = [OPTION.fullmatch(option) for option in record["options"]]
    marked = [option for option in options if option]
    answer = LETTERS.find(record["answers"])
    if not turns or len(marked) != len(LETTERS) or len(options) != len(LETTERS):
        raise ValueError("expected turns and four options, each behind 'm :' or 'f :'")
    if answer < 0 and record["answers"].strip():
        raise ValueError(f"answer {record['answers']!r} is none of {LETTERS}")
    assistant = mode(option[1].lower() for option in marked)
    messages: list[Message] = []
    for speaker, text in zip(turns[::2], turns[1::2], strict=True):
        mine = speaker.lower() == assistant
        if mine and (not messages or messages[-1].role == "assistant"):
            messages.append(Message("user", ""))
        said = text.strip()
        messages.append(
            Message("assistant", said, "reply", weight=0.0) if mine else Message("user", said)
        )
    candidates = tuple(option[2] for option in marked)
    if messages[-1].role == "assistant":
        messages.append(Message("user", ""))
    if answer < 0:
        return Dialogue(record["id"], tuple(messages), candidates=candidates)
    messages.append(Message("assistant", candidates[answer], "reply"))
    return Dialogue(record["id"], tuple(messages), candidates=candidates, answer=answer)
