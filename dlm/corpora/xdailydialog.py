"""XDailyDialog: everyday chat of two people in English, Italian and Chinese, German for tests only.

A dialogue is a line of utterances, with a topic of the whole and an act and an emotion of each:

    Can I help you ? __eou__ Yes , please .<TAB>1<TAB>2 1<TAB>0 0

Two people chat, so each dialogue becomes two views, in one split: each speaker once the assistant.
`train-17-second` learns the second speaker's utterances, `train-17-first` the first one's, who
speaks unasked: its first user message is empty. An utterance that nobody answers is left out of the
view that would only read it; it is learned in the other. The assistant's act is its `act`; emotions
(and the user's acts) stand in the messages' meta, the topic in the dialogue's.

English is published with a space before each mark (`driver ’ s`). It is written as usual where that
can be undone, and left as it is elsewhere: 0.4 % of utterances, such as "p . m ." or "? !".
`published_text` gives every utterance back as it was published.

Left out of training, and listed in the build's `rejected.jsonl`: dialogues with more labels than
utterances, and those that stand in the validation or test file of their language or, as the
original, of English. Texts are compared by their letters alone.

Source: Liu et al.: XDailyDialog: A Multilingual Parallel Dialogue Corpus, ACL 2023; English, acts,
emotions and topics of Li et al.: DailyDialog, IJCNLP 2017, arXiv:1710.03957.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dlm.core.config import parse
from dlm.core.errors import UserError
from dlm.core.files import digest, digest_file, source_digest
from dlm.corpora.published import find_files, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tables import check_counts, file_text
from dlm.corpora.tfds_store import build
from dlm.dialogue.schema import Dialogue, Message

END = "__eou__"
ACTS = ("inform", "question", "directive", "commissive")  # numbered from 1
EMOTIONS = ("none", "anger", "disgust", "fear", "happiness", "sadness", "surprise")  # from 0
TOPICS = (  # numbered from 1
    *("ordinary life", "school life", "culture and education", "attitude and emotion"),
    *("relationship", "tourism", "health", "work", "politics", "finance"),
)
SPEAKERS = {"second": 1, "first": 0}  # the views, by who of the two is the assistant
LANGUAGES = ("en", "it", "zh", "de")
TRAIN = "data-560899d"  # the folder of the training files, German excepted
FILES = {"validation": "dev", "test": "test"}

# Measured on the release: split -> (dialogues, utterances), the same in every language.
COUNTS = {"train": (8096, 62142), "validation": (995, 8025), "test": (996, 7716)}
# Of the training dialogues: more labels than utterances; of the others, those kept out of training.
LABELS = 62
LEAKED = {"en": 325, "it": 332, "zh": 327}

CARD = Card(
    task="chat with acts",
    description="XDailyDialog: everyday chat of two people in four languages.",
    citation=(
        "Zeming Liu et al.: XDailyDialog: A Multilingual Parallel Dialogue Corpus, ACL 2023; "
        "Yanran Li et al.: DailyDialog: A Manually Labelled Multi-turn Dialogue Dataset, "
        "IJCNLP 2017"
    ),
    licence="CC BY-NC-SA 4.0 (the repository: Apache-2.0)",
    counts={  # both views
        split: 2 * (dialogues - (LABELS + LEAKED["en"] if split == "train" else 0))
        for split, (dialogues, _) in COUNTS.items()
    },
    folder="xdailydialog",
    files=("data/en_test_human.txt", f"{TRAIN}/dialogues_text_En.txt"),
    remedy=(
        "take the folder data of the GitHub repository liuzeming01/XDailyDialog, and that of its "
        f"commit 560899d as {TRAIN}, and name the folder that holds both in data.options.path, or "
        "put it at $DLM_DATA_DIR/xdailydialog"
    ),
    missing="German has validation and test only",
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      language: en, it, zh, or de, which has validation and test only.
      acts: whether the assistant writes the act of an utterance before it.
      path: folder of the published files; empty: `$DLM_DATA_DIR/xdailydialog`.
    """

    language: str = "en"
    acts: bool = True
    path: str = ""


class Chat(NamedTuple):
    """A dialogue as published: its place for errors, utterances, and labels by number."""

    where: str
    utterances: list[str]
    topic: str
    acts: list[str]
    emotions: list[str]


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens one language.

    Raises:
      UserError: an unknown language, a file that is absent, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    language = config.language
    if language not in LANGUAGES:
        known = ", ".join(LANGUAGES)
        raise UserError(f"data.options.language={language!r} is none of: {known}")
    root = root_of(CARD, config.path)
    paths = find_files(CARD, root, file_names(language))
    rejected: list[dict[str, str]] = []
    key: dict[str, Any] = {
        "options": [language, config.acts],
        "code": source_digest(sys.modules[__name__]),
    }
    key["files"] = {str(path.relative_to(root)): digest_file(path) for path in paths}
    splits: dict[str, Callable[[], Iterator[Dialogue]]] = {}
    if language != "de":
        splits["train"] = partial(_training_views, root, config, rejected)
    for split in FILES:
        splits[split] = partial(_views, root, config, split)
    return build(
        "xdailydialog",
        digest(key),
        splits,
        data_dir,
        card=CARD,
        rejected=rejected,
    )


def file_names(language: str) -> list[str]:
    """The published files that a language is made of."""
    names = [
        f"data/{name}_{file}_human.txt" for name in (language, "en") for file in FILES.values()
    ]
    if language != "de":
        labels = ("action", "emotion", "topic")
        texts = [f"text_{name.capitalize()}" for name in (language, "en")]
        names += [f"{TRAIN}/dialogues_{name}.txt" for name in (*labels, *texts)]
    return list(dict.fromkeys(names))


def read_evaluation(root: Path, language: str, split: str) -> list[Chat]:
    """The dialogues of a validation or test file.

    Raises:
      UserError: a line without its four fields, or with more or fewer labels than utterances.
    """
    path = root / f"data/{language}_{FILES[split]}_human.txt"
    chats = []
    for number, line in enumerate(_lines(path), start=1):
        where, fields = f"{path}:{number}", line.split("\t")
        if len(fields) != 4:
            raise UserError(f"{where}: {len(fields)} fields, not text, topic, acts and emotions")
        chat = Chat(where, utterances(fields[0]), fields[1], fields[2].split(), fields[3].split())
        if not is_labelled(chat):
            raise UserError(f"{where}: {len(chat.acts)} acts of {len(chat.utterances)} utterances")
        chats.append(chat)
    return chats


def read_training(root: Path, language: str) -> list[Chat]:
    """The dialogues of the training files, wrongly labelled ones included.

    Raises:
      UserError: the files have different numbers of lines.
    """
    names = (f"text_{language.capitalize()}", "topic", "action", "emotion")
    paths = [root / TRAIN / f"dialogues_{name}.txt" for name in names]
    columns = [_lines(path) for path in paths]
    if len({len(column) for column in columns}) > 1:
        counts = ", ".join(f"{p.name} {len(c)}" for p, c in zip(paths, columns, strict=True))
        raise UserError(
            f"{root / TRAIN}: files of different numbers of lines: {counts}; {CARD.remedy}"
        )
    return [
        Chat(f"{paths[0]}:{number}", utterances(text), topic, acts.split(), emotions.split())
        for number, (text, topic, acts, emotions) in enumerate(zip(*columns, strict=True), start=1)
    ]


def letters(chat: Chat) -> str:
    """What dialogues are compared by: their letters, in lower case."""
    return "".join(filter(str.isalpha, "".join(chat.utterances).lower()))


def natural_text(text: str) -> str:
    """English as it is usually written: no space before a mark or round an apostrophe."""
    return re.sub(r" ([.,?!;:%])(?=\s|$)", r"\1", text).replace(" ’ ", "’")


def published_text(message: Message, language: str) -> str:
    """An utterance as it was published."""
    text = message.meta.get("published", message.content)
    return _spaced(text) if language == "en" and "published" not in message.meta else text


def views(chat: Chat, name: str, config: Options) -> Iterator[Dialogue]:
    """The two views of a chat; see the module.

    Raises:
      UserError: a label that has no meaning.
    """
    topic = _meaning(chat.topic.strip(), TOPICS, 1, "topic", chat.where)
    meta = {"topic": topic, "language": config.language}
    for view, assistant in SPEAKERS.items():
        yield Dialogue(f"{name}-{view}", view_messages(chat, assistant, config), meta=meta)


def view_messages(chat: Chat, assistant: int, config: Options) -> tuple[Message, ...]:
    """The messages of a chat in which speaker 0 or 1 is the assistant.

    Raises:
      UserError: a label that has no meaning.
    """
    messages = [Message("user", "")] if assistant == 0 else []
    for index, utterance in enumerate(chat.utterances):
        act = _meaning(chat.acts[index], ACTS, 1, "act", chat.where)
        emotion = _meaning(chat.emotions[index], EMOTIONS, 0, "emotion", chat.where)
        messages += _messages(utterance, index % 2 == assistant, act, emotion, config)
    if messages[-1].role == "user":
        messages.pop()
    return tuple(messages)


def _messages(
    utterance: str, is_assistant: bool, act: str, emotion: str, config: Options
) -> list[Message]:
    """One utterance as the assistant's act and reply, or as the user's message."""
    english = config.language == "en"
    text = natural_text(utterance) if english else utterance
    meta = {"act": act, "emotion": emotion}
    if english and _spaced(text) != utterance:
        text, meta["published"] = utterance, utterance
    if not is_assistant:
        return [Message("user", text, meta=meta)]
    said = Message("assistant", text, "reply", meta=meta)
    return [Message("assistant", act, "act"), said] if config.acts else [said]


def _views(root: Path, config: Options, split: str) -> Iterator[Dialogue]:
    chats = _counted(read_evaluation(root, config.language, split), split, root)
    for number, chat in enumerate(chats):
        yield from views(chat, f"{split}-{number}", config)


def _training_views(
    root: Path, config: Options, rejected: list[dict[str, str]]
) -> Iterator[Dialogue]:
    for number, chat in learnable(root, config.language, rejected):
        yield from views(chat, f"train-{number}", config)


def learnable(
    root: Path, language: str, rejected: list[dict[str, str]]
) -> Iterator[tuple[int, Chat]]:
    """The training dialogues that may be learned, each behind its number.

    The others go to `rejected`, with a reason.

    Raises:
      UserError: there are more or fewer of either than in the release.
    """
    chats = _counted(read_training(root, language), "train", root)
    leaked = _stand_in(root, language, chats) | _stand_in(root, "en", read_training(root, "en"))
    counts = {"labels": 0, "leaked": 0}
    for number, chat in enumerate(chats):
        if not is_labelled(chat):
            reason, detail = "labels", f"{len(chat.acts)} acts of {len(chat.utterances)} utterances"
        elif number in leaked:
            reason, detail = "leaked", "stands in the validation or the test file"
        else:
            yield number, chat
            continue
        counts[reason] += 1
        rejected.append({"id": f"train-{number}", "where": chat.where, "reason": detail})
    wanted = {"labels": LABELS, "leaked": LEAKED[language]}
    check_counts(f"{root}: left out of training", counts, wanted, CARD)


def _stand_in(root: Path, language: str, chats: list[Chat]) -> set[int]:
    """Numbers of the training dialogues that stand in an evaluation file of the language."""
    seen = {letters(chat) for split in FILES for chat in read_evaluation(root, language, split)}
    return {number for number, chat in enumerate(chats) if letters(chat) in seen}


def _counted(chats: list[Chat], split: str, root: Path) -> list[Chat]:
    """The dialogues, held against the measured counts of the release."""
    found = {"dialogues": len(chats), "utterances": sum(len(chat.utterances) for chat in chats)}
    wanted = dict(zip(found, COUNTS[split], strict=True))
    check_counts(f"{root}: {split}", found, wanted, CARD)
    return chats


def _lines(path: Path) -> list[str]:
    return file_text(path).removesuffix("\n").split("\n")


def utterances(text: str) -> list[str]:
    """The utterances of a line of text."""
    return [part.strip() for part in text.strip().removesuffix(END).split(END)]


def is_labelled(chat: Chat) -> bool:
    """Whether every utterance has an act and an emotion."""
    return len(chat.utterances) == len(chat.acts) == len(chat.emotions)


def _meaning(label: str, names: tuple[str, ...], first: int, kind: str, where: str) -> str:
    known = {str(number): name for number, name in enumerate(names, start=first)}
    if label not in known:
        last = first + len(names) - 1
        raise UserError(f"{where}: {kind} {label!r:.60} is none of {first} to {last}")
    return known[label]


def _spaced(text: str) -> str:
    """Inverts `natural_text`, where it can be inverted."""
    return re.sub(r"(?<=[^\s.])([.,?!;:%])(?=\s|$)", r" \1", text).replace("’", " ’ ")
