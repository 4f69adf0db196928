"""bAbI dialog, tasks 1 to 6: booking a restaurant, with the out-of-vocabulary test sets.

The published lines

    1 hi<TAB>hello what can i help you with today          a user's turn and the bot's answer
    2 <SILENCE><TAB>api_call italian rome six cheap        the user says nothing; a call
    3 resto_x R_phone resto_x_phone                        a fact: subject, relation, value

become a user message (empty for <SILENCE>) and a `reply`, or a `call` of the tool `api_call`. The
facts after a call are its one `tool` message, facts before the dialogue are one `context`; silence
right after a result is no turn of the user: the bot's round goes on. Every bot turn is one response
unit, and `published_text` gives its text back, so response accuracy is the published per-response
accuracy.

Source: Bordes, Boureau, Weston: Learning End-to-End Goal-Oriented Dialog, ICLR 2017,
arXiv:1605.07683; files and README.txt of the release.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from dlm.core.config import parse
from dlm.core.errors import UserError
from dlm.core.files import digest, digest_file, source_digest
from dlm.corpora.published import counted, reading, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tables import file_text
from dlm.corpora.tfds_store import build
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.template import message_text

CALL = "api_call"
SILENCE = "<SILENCE>"
NO_RESULT = f"{CALL} no result"
SLOTS = ("cuisine", "location", "number", "price")
TASK_6_SLOTS = ("cuisine", "location", "price")
NAMES = ("made up", "made up of all", "known")
LENGTHS = (3, 10)  # letters of a made-up name
# Relations whose values differ between test and test_oov; all other words are shared.
OPEN_RELATIONS = ("cuisine", "location")

SPLITS = {"train": "trn", "validation": "dev", "test": "tst", "test_oov": "tst-OOV"}
# The validation dialogues with made-up names: by them one chooses what test_oov then measures.
VALIDATION_RENAMED = "validation_renamed"
# Measured on the release: task -> split -> (dialogues, bot turns).
COUNTS: dict[int, dict[str, tuple[int, int]]] = {
    task: {split: (1000, turns) for split, turns in zip(SPLITS, by_split, strict=True)}
    for task, by_split in {
        1: (6024, 6015, 5936, 6020),
        2: (9498, 9513, 9464, 9460),
        3: (9855, 9978, 10018, 9788),
        4: (3507, 3529, 3498, 3510),
        5: (18340, 18457, 18398, 18368),
    }.items()
} | {6: {"train": (1618, 14404), "validation": (500, 4159), "test": (1117, 11237)}}

CARD = Card(
    task="task dialogue",
    description="bAbI dialog tasks: booking a restaurant, five made tasks and a real one.",
    citation=(
        "Antoine Bordes, Y-Lan Boureau, Jason Weston: Learning End-to-End Goal-Oriented Dialog, "
        "ICLR 2017"
    ),
    licence="CC BY 3.0",
    counts={split: dialogues for split, (dialogues, _) in COUNTS[5].items()},
    folder="dialog-babi",
    remedy=(
        "unpack the release 'dialog-bAbI-tasks' (Bordes et al. 2017; also in the GitHub repository "
        "HLTCHKUST/Mem2Seq, folder data/dialog-bAbI-tasks) and name its folder in "
        "data.options.path, or put it at $DLM_DATA_DIR/dialog-babi"
    ),
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      task: 1 issue calls, 2 update calls, 3 show options, 4 give information, 5 whole dialogues,
        6 the same from real conversations (DSTC2).
      path: folder of the published files; empty: `$DLM_DATA_DIR/dialog-babi`.
      entities: whether the names that a dialogue speaks of are told to the tokenizer, which then
        spells known and unknown ones alike, in small pieces.
      renamed: copies of every training dialogue, in place of it, each with new names drawn for its
        cuisines and locations; with as many as the epochs to be trained, none is read twice.
      names: which names the copies get: "made up", of letters and snippets of what is said; "made
        up of all", also of whole words, and of calls and facts, so that nearly every piece of
        letters is seen in a name; or "known", those of all training dialogues, which change places
        within their kind (a name may stay), so that which restaurants a place has cannot be
        learned by heart. Those of `validation_renamed` are always "made up".
      results: the role of what a call returned: "tool", or "context" like facts known before.
    """

    task: int = 5
    path: str = ""
    entities: bool = True
    renamed: int = 0
    names: str = "made up"
    results: str = "tool"

    def __post_init__(self) -> None:
        if self.renamed < 0:
            raise ValueError(f"renamed={self.renamed} must be a number of copies, or 0")
        if self.names not in NAMES:
            raise ValueError(f"names={self.names!r} is none of {', '.join(map(repr, NAMES))}")
        if self.results not in ("tool", "context"):
            raise ValueError(f"results={self.results!r} is neither 'tool' nor 'context'")


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens one task.

    Raises:
      UserError: a task other than 1..6, a file that is absent, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    if config.task not in COUNTS:
        raise UserError(f"data.options.task: {config.task} is not a bAbI dialog task; use 1 to 6")
    files = find_files(config)
    key: dict[str, Any] = {"code": source_digest(sys.modules[__name__])}
    key |= {name: value for name, value in asdict(config).items() if name != "path"}
    key["files"] = {split: digest_file(path) for split, path in files.items()}
    copies = {"train": config.renamed}
    splits = {
        split: partial(_split, config, path, split, copies.get(split, 0))
        for split, path in files.items()
    }
    splits[VALIDATION_RENAMED] = partial(_split, config, files["validation"], "validation", 1)
    return build(
        "babi_dialog",
        digest(key),
        splits,
        data_dir,
        card=CARD,
    )


def find_files(config: Options) -> dict[str, Path]:
    """The published file of each split.

    Raises:
      UserError: one is absent; the message names it and says where it comes from.
    """
    root = root_of(CARD, config.path)
    folders = [root, root / "dialog-bAbI-tasks"]
    found = {}
    for split in COUNTS[config.task]:
        name = f"dialog-babi-task{config.task}{SPLITS[split]}.txt"
        paths = [folder / name for folder in folders if (folder / name).is_file()]
        if not paths:
            raise UserError(f"{root}: no file {name}; {CARD.remedy}")
        found[split] = paths[0]
    return found


def _split(config: Options, path: Path, split: str, copies: int = 0) -> Iterator[Dialogue]:
    """The dialogues of a file, as the options ask for them; or so many renamed copies of each."""
    known: list[list[str]] = []
    of_all = split == "train" and config.names == "made up of all"
    if copies and split == "train" and config.names == "known":
        known = known_names(read_dialogues(path, config.task, split))
    dialogues = read_dialogues(path, config.task, split)
    for dialogue in counted(dialogues, COUNTS[config.task][split], path, CARD):
        renamed = [rename(dialogue, n, known, of_all=of_all) for n in range(copies)]
        for told in renamed or [dialogue]:
            if config.results == "context":
                told = replace(told, messages=tuple(map(_as_context, told.messages)))
            yield told if config.entities else replace(told, meta={})


def known_names(dialogues: Iterable[Dialogue]) -> list[list[str]]:
    """The words of the names of each open relation; one that is of two is with the first."""
    found: dict[str, set[str]] = {relation: set() for relation in OPEN_RELATIONS}
    for dialogue in dialogues:
        for relation, words in dialogue.meta["names"].items():
            found[relation].update(words)
    cuisines, locations = found.values()
    return [sorted(cuisines), sorted(locations - cuisines)]


def rename(
    dialogue: Dialogue, number: int, known: Sequence[Sequence[str]] = (), *, of_all: bool = False
) -> Dialogue:
    """A copy with new names for cuisines and locations, each the same wherever one stands.

    They are drawn by the id of the dialogue and the number of the copy; `meta.names` is left out.

    Args:
      dialogue: of this corpus.
      number: of the copy.
      known: lists of words, which change places within their list; () = made-up words.
      of_all: whether made-up words may hold whole words, also those of calls and facts.
    """
    entities = dialogue.meta["entities"]
    rng = random.Random(f"{dialogue.id}/{number}")
    if known:
        other = {
            a: b for kind in known for a, b in zip(kind, rng.sample(kind, len(kind)), strict=True)
        }
        names = {entity: other.get(entity, entity) for entity in entities}
    else:
        told = [m for m in dialogue.messages if of_all or m.role == "user" or m.channel == "reply"]
        said = " ".join(map(message_text, told))
        others = sorted({*re.findall("[a-z]+", said)} - {*entities})
        made = _made_up(rng, len(entities), others, of_all=of_all)
        names = dict(zip(entities, made, strict=True))
    words = "|".join(map(re.escape, names)) or "(?!)"
    pattern = re.compile(rf"(?<![a-z])({words})(?![a-z])")

    def new(text: str) -> str:
        return pattern.sub(lambda found: names[found[0]], text)

    messages = (
        replace(
            message,
            content=new(message_text(message)) if message.channel != "call" else "",
            arguments=message.arguments and {k: new(v) for k, v in message.arguments.items()},
        )
        for message in dialogue.messages
    )
    return replace(
        dialogue,
        id=f"{dialogue.id}-renamed-{number}",
        messages=tuple(messages),
        meta={"entities": sorted(names.values())},
    )


def _made_up(
    rng: random.Random, count: int, words: Sequence[str], *, of_all: bool = False
) -> list[str]:
    """So many different names, put together of single letters and snippets of the words.

    What is copied should look like any name: of syllables alone a model learns to copy syllables.
    `of_all`: half of the snippets are whole words, as far as the length of the name allows.
    """
    names: dict[str, None] = {}
    while len(names) < count:
        length, name = rng.randint(*LENGTHS), ""
        while len(name) < length:
            word = rng.choice(words or ascii_lowercase)
            start = rng.randrange(len(word))
            snippet = word[start : start + rng.randint(1, 4)]
            if of_all and rng.random() < 0.5:
                snippet = word
            name += rng.choice([snippet, rng.choice(ascii_lowercase)])
        if name[:length] not in words:
            names[name[:length]] = None
    return list(names)


def _as_context(message: Message) -> Message:
    return Message("context", message.content) if message.role == "tool" else message


def read_dialogues(path: str | Path, task: int, split: str) -> Iterator[Dialogue]:
    """Reads one published file; ids are `task5-train-17`, counted from 0.

    Raises:
      UserError: a line that is neither a turn nor a fact, with its number; a call of other slots.
    """
    text = file_text(Path(path))
    lines = [(f"{path}:{n}", line) for n, line in enumerate(text.split("\n"), start=1)]
    blocks = groupby(lines, key=lambda line: bool(line[1].strip()))
    for index, block in enumerate(block for filled, block in blocks if filled):
        with reading(f"{path}: dialogue {index}", CARD):
            dialogue = parse_dialogue(block, f"task{task}-{split}-{index}", task)
        yield dialogue


def parse_dialogue(lines: Iterable[tuple[str, str]], id: str, task: int) -> Dialogue:
    """Turns the lines of one dialogue, each with its place for errors, into messages.

    `meta.entities` are the words of the cuisines and locations spoken of, `meta.names` the same by
    relation: `test_oov` has others, and the names of its restaurants are made of them, so a
    tokenizer should spell them in small pieces.
    """
    messages: list[Message] = []
    names: dict[str, set[str]] = {relation: set() for relation in OPEN_RELATIONS}
    fields = (_fields(line, where) for where, line in lines)
    for is_turn, group in groupby(fields, key=lambda line: len(line) == 2):
        if is_turn:
            for user, bot in group:
                messages += _turn_messages(user, bot, task, messages[-1:])
                _note_names((messages[-1].arguments or {}).items(), names)
        else:
            facts = list(group)
            after_call = bool(messages) and messages[-1].channel == "call"
            messages.append(_facts_message(facts, after_call=after_call))
            _note_names(((relation, value) for _, relation, value in facts), names)
    entities = sorted(set().union(*names.values()))
    meta = {"entities": entities, "names": {k: sorted(words) for k, words in names.items()}}
    return Dialogue(id=id, messages=tuple(messages), task=f"task{task}", meta=meta)


def published_text(message: Message, task: int) -> str:
    """The bot's words in the published file, from a `call` or `reply` message."""
    if message.channel != "call":
        return message_text(message)
    arguments = message.arguments or {}
    return " ".join([CALL, *(arguments.get(slot, f"R_{slot}") for slot in _slots(task))])


def _slots(task: int) -> tuple[str, ...]:
    return TASK_6_SLOTS if task == 6 else SLOTS


def _note_names(pairs: Iterable[tuple[str, str]], names: Mapping[str, set[str]]) -> None:
    """Adds the words of open relations' values; pairs are relation and value."""
    for relation, value in pairs:
        if relation in names:
            names[relation].update(value.split("_"))


def _fields(line: str, where: str) -> tuple[str, ...]:
    """Splits `N user<TAB>bot` into (user, bot), `N subject R_relation value` into three fields."""
    number, _, rest = line.partition(" ")
    turn, fact = rest.split("\t"), rest.split(" ")
    if number.isdigit() and len(turn) == 2:
        return tuple(turn)
    if number.isdigit() and len(fact) == 3 and (fact[1].startswith("R_") or rest == NO_RESULT):
        return (fact[0], fact[1].removeprefix("R_"), fact[2])
    raise UserError(f"{where}: neither 'N user<TAB>bot' nor 'N subject R_relation value'")


def _turn_messages(user: str, bot: str, task: int, last: list[Message]) -> list[Message]:
    """The user's message, unless silence follows a result, and the bot's call or reply.

    A slot that the user left open (`R_cuisine`) is no argument.
    """
    said = [] if user == SILENCE and last and last[0].role == "tool" else [user]
    messages = [Message(role="user", content="" if text == SILENCE else text) for text in said]
    if not bot.startswith(f"{CALL} "):
        return [*messages, Message(role="assistant", channel="reply", content=bot)]
    pairs = zip(_slots(task), bot.split(" ")[1:], strict=True)
    arguments = {slot: value for slot, value in pairs if value != f"R_{slot}"}
    call = Message(role="assistant", channel="call", content="", name=CALL, arguments=arguments)
    return [*messages, call]


def _facts_message(facts: list[tuple[str, ...]], *, after_call: bool) -> Message:
    """All facts as text: a line a subject, `resto_x phone resto_x_phone cuisine thai ...`."""
    if facts == [tuple(NO_RESULT.split(" "))]:
        text = "no result"
    else:
        text = "\n".join(
            " ".join([subject, *(word for fact in group for word in fact[1:])])
            for subject, group in groupby(facts, key=lambda fact: fact[0])
        )
    if after_call:
        return Message(role="tool", name=CALL, content=text)
    return Message(role="context", content=text)
