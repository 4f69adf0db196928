"""XDailyDialog as translation: a conversation, utterance for utterance in another language.

The texts are parallel. The user says each utterance of a conversation in one language, the
assistant says it in the other; what was said before, in both, is there to be read:

    context    English to Italian
    user       It’s late.
    assistant  È tardi.

English is written as usual where that can be undone, as in `xdailydialog`, and nothing is learned
that stands in the validation or test files of either language.

Source: Liu et al.: XDailyDialog: A Multilingual Parallel Dialogue Corpus, ACL 2023.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dlm.core.config import parse
from dlm.core.errors import UserError
from dlm.corpora import xdailydialog
from dlm.corpora.published import find_files, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tables import check_counts, reader_digest
from dlm.corpora.tfds_store import build
from dlm.corpora.xdailydialog import COUNTS, FILES, Chat, file_names, learnable, read_evaluation
from dlm.dialogue.checks import check_choice
from dlm.dialogue.schema import Dialogue, Message

NAMES = {"en": "English", "it": "Italian", "zh": "Chinese", "de": "German"}
# Measured: training dialogues that may be learned in both languages; the same whichever is first.
LEARNED = {"en it": 7702, "en zh": 7707, "it zh": 7700}
CARD = Card(
    task="translation",
    description="XDailyDialog: everyday chat, translated utterance for utterance.",
    citation=xdailydialog.CARD.citation,
    licence=xdailydialog.CARD.licence,
    counts={"train": LEARNED["en it"], "validation": 995, "test": 996},
    folder=xdailydialog.CARD.folder,
    files=xdailydialog.CARD.files,
    remedy=xdailydialog.CARD.remedy,
    missing=xdailydialog.CARD.missing,
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      source: the language that is translated: en, it, zh, or de (no training split).
      target: the language of the replies, another one of these.
      path: folder of the published files; empty: `$DLM_DATA_DIR/xdailydialog`.
    """

    source: str = "en"
    target: str = "it"
    path: str = ""


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens one pair of languages.

    Raises:
      UserError: no such pair, a file that is absent, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    for name in ("source", "target"):
        check_choice(getattr(config, name), tuple(NAMES), "", f"data.options.{name}")
    if config.source == config.target:
        raise UserError(f"data.options.target={config.target!r} is the source; name another")
    root = root_of(CARD, config.path)
    pair = (config.source, config.target)
    names = dict.fromkeys(name for language in pair for name in file_names(language))
    paths = find_files(CARD, root, names)
    rejected: list[dict[str, str]] = []
    splits: dict[str, Callable[[], Iterator[Dialogue]]] = {}
    if "de" not in pair:
        splits["train"] = partial(_training, root, config, rejected)
    for split in FILES:
        splits[split] = partial(_evaluation, root, config, split)
    return build(
        "xdailydialog_translation",
        reader_digest(config, root, paths, sys.modules[__name__], xdailydialog),
        splits,
        data_dir,
        card=CARD,
        rejected=rejected,
    )


def translated(source: Chat, target: Chat, name: str, config: Options) -> Dialogue:
    """A conversation in one language, each utterance answered by the same in another.

    Raises:
      UserError: it has other numbers of utterances in the two.
    """
    if len(source.utterances) != len(target.utterances):
        raise UserError(
            f"{target.where}: {len(target.utterances)} utterances, {len(source.utterances)} in "
            f"{source.where}"
        )
    messages = [Message("context", f"{NAMES[config.source]} to {NAMES[config.target]}")]
    for asked, answer in zip(source.utterances, target.utterances, strict=True):
        messages.append(Message("user", _text(asked, config.source)))
        messages.append(Message("assistant", _text(answer, config.target), "reply"))
    return Dialogue(name, tuple(messages))


def _text(utterance: str, language: str) -> str:
    return xdailydialog.natural_text(utterance) if language == "en" else utterance


def _training(root: Path, config: Options, rejected: list[dict[str, str]]) -> Iterator[Dialogue]:
    """What may be learned in both languages; the rest goes to `rejected`, once."""
    refused: list[dict[str, str]] = []
    source, target = (
        dict(learnable(root, language, refused)) for language in (config.source, config.target)
    )
    rejected += {record["id"]: record for record in refused}.values()
    both = sorted(source.keys() & target.keys())
    wanted = LEARNED[" ".join(sorted((config.source, config.target)))]
    check_counts(f"{root}: train", {"dialogues": len(both)}, {"dialogues": wanted}, CARD)
    for number in both:
        yield translated(source[number], target[number], f"train-{number}", config)


def _evaluation(root: Path, config: Options, split: str) -> Iterator[Dialogue]:
    source, target = (
        read_evaluation(root, language, split) for language in (config.source, config.target)
    )
    found = {"source": len(source), "target": len(target)}
    check_counts(f"{root}: {split}", found, dict.fromkeys(found, COUNTS[split][0]), CARD)
    for number, (asked, answer) in enumerate(zip(source, target, strict=True)):
        yield translated(asked, answer, f"{split}-{number}", config)
