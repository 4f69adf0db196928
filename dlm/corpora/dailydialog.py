"""DailyDialog, its official validation and test splits: everyday chat in English.

Files are `validation/dialogues_validation.txt`, `..._act_...` and `..._emotion_...`, a dialogue a
line, and likewise of test. Acts, emotions, views and spelling are those of `xdailydialog`, which
says them; topics are not published here. All dialogues stand in the English validation
and test files of XDailyDialog, whose training split keeps them out: train there, score here.
As published, 11 dialogues stand in both splits.

Source: Li et al.: DailyDialog: A Manually Labelled Multi-turn Dialogue Dataset, IJCNLP 2017,
arXiv:1710.03957.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dlm.core.config import parse
from dlm.core.errors import UserError
from dlm.corpora import xdailydialog
from dlm.corpora.published import find_files, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tables import check_counts, reader_digest, text_lines
from dlm.corpora.tfds_store import build
from dlm.corpora.xdailydialog import SPEAKERS, Chat, view_messages
from dlm.dialogue.schema import Dialogue

COUNTS = {  # measured on the release
    "validation": {"dialogues": 1000, "utterances": 8069},
    "test": {"dialogues": 1000, "utterances": 7740},
}
FILES = {
    split: [f"{split}/dialogues_{kind}{split}.txt" for kind in ("", "act_", "emotion_")]
    for split in COUNTS
}
CARD = Card(
    task="chat with acts",
    description="DailyDialog: everyday chat of two people in English, to be scored on.",
    citation=(
        "Yanran Li, Hui Su, Xiaoyu Shen, Wenjie Li, Ziqiang Cao, Shuzi Niu: DailyDialog: A "
        "Manually Labelled Multi-turn Dialogue Dataset, IJCNLP 2017"
    ),
    licence="CC BY-NC-SA 4.0",
    counts={split: 2 * counts["dialogues"] for split, counts in COUNTS.items()},
    folder="dailydialog-valtest",
    files=tuple(name for names in FILES.values() for name in names),
    remedy=(
        "take the folders validation and test of the release (also in the GitHub repository "
        "HoeYeungHo/DailyDialog), and name the folder that holds both in data.options.path, or "
        "put it at $DLM_DATA_DIR/dailydialog-valtest"
    ),
    missing="no training split: train on xdailydialog",
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      acts: whether the assistant writes the act of an utterance before it.
      path: folder of the published files; empty: `$DLM_DATA_DIR/dailydialog-valtest`.
    """

    acts: bool = True
    path: str = ""


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens the corpus.

    Raises:
      UserError: a file that is absent or damaged, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    root = root_of(CARD, config.path)
    paths = {split: find_files(CARD, root, names) for split, names in FILES.items()}
    every = [path for found in paths.values() for path in found]
    return build(
        "dailydialog",
        reader_digest(config, root, every, sys.modules[__name__], xdailydialog),
        {split: partial(_counted_views, found, split, config) for split, found in paths.items()},
        data_dir,
        card=CARD,
    )


def read_chats(paths: list[Path]) -> Iterator[Chat]:
    """The dialogues of a split's three files.

    Raises:
      UserError: the files have different numbers of lines, or a line other numbers of labels.
    """
    columns = [list(text_lines(path)) for path in paths]
    if len({len(column) for column in columns}) > 1:
        counts = ", ".join(f"{p.name} {len(c)}" for p, c in zip(paths, columns, strict=True))
        raise UserError(f"{paths[0].parent}: files of different numbers of lines: {counts}")
    for (where, text), (_, acts), (_, emotions) in zip(*columns, strict=True):
        chat = Chat(where, xdailydialog.utterances(text), "", acts.split(), emotions.split())
        if not xdailydialog.is_labelled(chat):
            raise UserError(
                f"{where}: {len(chat.utterances)} utterances have {len(chat.acts)} acts and "
                f"{len(chat.emotions)} emotions"
            )
        yield chat


def views(chats: Iterable[Chat], split: str, config: Options) -> Iterator[Dialogue]:
    """The two views of each chat; ids are `test-17-second`, ...

    Raises:
      UserError: a label that has no meaning.
    """
    options = xdailydialog.Options(acts=config.acts)
    for number, chat in enumerate(chats):
        for view, assistant in SPEAKERS.items():
            yield Dialogue(f"{split}-{number}-{view}", view_messages(chat, assistant, options))


def _counted_views(paths: list[Path], split: str, config: Options) -> Iterator[Dialogue]:
    chats = list(read_chats(paths))
    found = {
        "dialogues": len(chats),
        "utterances": sum(len(chat.utterances) for chat in chats),
    }
    check_counts(paths[0], found, COUNTS[split], CARD)
    yield from views(chats, split, config)
