"""PathQuestion (PQ, PQL) and WorldCup2014: questions answered over paths of a knowledge graph.

    what is the nation of ann 's couple ?<TAB>uk(uk/)<TAB>ann#spouse#bob#nationality#uk#<end>#uk

The user asks; the assistant writes the gold path as its `reason` (`ann > spouse > bob > nationality
> uk`, a line each where a question has two) and its end, the answer, as its `reply`. All answers
of a question are its `meta.answers`. `triples` is the graph that a set is asked of; every step
of every path is in it.

There is no published split (the paper splits 8:1:1 at random): a question falls on the side that
the hash of its text and `seed` say, so a question that stands there several times, with other
paths or answers (PQL, WorldCup2014), is on one side.

Source: Zhou, Huang, Zhu: An Interpretable Reasoning Network for Multi-Relation Question Answering,
COLING 2018, arXiv:1801.04726; files of its repository.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dlm.core.config import parse
from dlm.core.errors import UserError
from dlm.corpora import splits
from dlm.corpora.published import find_files, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tables import check_counts, reader_digest, text_lines
from dlm.corpora.tfds_store import build
from dlm.dialogue.checks import check_choice
from dlm.dialogue.schema import Dialogue, Message
from dlm.reasoning.graph import Triple

END = "<end>"
SPLITS = ("train", "validation", "test")


class Set(NamedTuple):
    """A published set: its files, and what was measured on them."""

    file: str
    graph: str
    questions: int
    several: int  # questions with more than one answer
    triples: int


SETS = {
    "PQ-2H": Set("PathQuestion/PQ-2H.txt", "PathQuestion/2H-kb.txt", 1908, 150, 1211),
    "PQ-3H": Set("PathQuestion/PQ-3H.txt", "PathQuestion/3H-kb.txt", 5198, 858, 2839),
    "PQL-2H": Set("PathQuestion/PQL-2H.txt", "PathQuestion/PQL2-KB.txt", 1594, 570, 4247),
    "PQL-3H": Set("PathQuestion/PQL-3H.txt", "PathQuestion/PQL3-KB.txt", 1031, 134, 5597),
    "PQL-3H_more": Set("PathQuestion/PQL-3H_more.txt", "PathQuestion/PQL3-KB.txt", 2062, 268, 5597),
    "WC-P1": Set("WC2014/WC-P1.txt", "WC2014/WC2014.txt", 6482, 2342, 6482),
    "WC-P2": Set("WC2014/WC-P2.txt", "WC2014/WC2014.txt", 1472, 719, 6482),
    "WC-P": Set("WC2014/WC-P.txt", "WC2014/WC2014.txt", 7954, 3061, 6482),
    "WC-C": Set("WC2014/WC-C.txt", "WC2014/WC2014.txt", 2208, 1637, 6482),
}
CARD = Card(
    task="question answering",
    description="PathQuestion: questions answered over paths of a knowledge graph.",
    citation=(
        "Mantong Zhou, Minlie Huang, Xiaoyan Zhu: An Interpretable Reasoning Network for "
        "Multi-Relation Question Answering, COLING 2018"
    ),
    licence="not stated",
    counts={"train": 1530, "validation": 193, "test": 185},
    folder="pathquestion",
    files=(SETS["PQ-2H"].file, SETS["PQ-2H"].graph),
    remedy=(
        "take the folders PathQuestion and WC2014 (its WC2014.zip) of the GitHub repository "
        "zmtkeke/IRN, and name the folder that holds both in data.options.path, or put it at "
        "$DLM_DATA_DIR/pathquestion"
    ),
    missing="no split is published: 8:1:1 by hash",
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      set: a key of `SETS`: PathQuestion with 2 or 3 hops, the same on a large graph (PQL), and
        WorldCup2014 with 1 hop, 2 hops, both, or two paths that meet (WC-C).
      seed: of the split.
      path: folder of the published files; empty: `$DLM_DATA_DIR/pathquestion`.
    """

    set: str = "PQ-2H"
    seed: int = 0
    path: str = ""


class Question(NamedTuple):
    """A question, its gold paths (names and relations in turn), and its answers, the gold first."""

    text: str
    paths: list[list[str]]
    answers: list[str]


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens one set.

    Raises:
      UserError: no such set, a file that is absent or damaged, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    check_choice(config.set, tuple(SETS), "", "data.options.set")
    root = root_of(CARD, config.path)
    paths = find_files(CARD, root, SETS[config.set][:2])
    return build(
        "pathquestion",
        reader_digest(config, root, paths, sys.modules[__name__], splits),
        {split: partial(_read_split, config, paths[0], split) for split in SPLITS},
        data_dir,
        card=CARD,
    )


def triples(config: Options) -> list[Triple]:
    """The graph that a set is asked of, in the order of its file.

    Raises:
      UserError: the file is absent, a line is no triple, or there are others than published.
    """
    chosen = SETS[config.set]
    [path] = find_files(CARD, root_of(CARD, config.path), [chosen.graph])
    found: list[Triple] = []
    for where, line in text_lines(path):
        fields = line.split("\t")
        if len(fields) != 3:
            raise UserError(f"{where}: {len(fields)} fields, not subject, relation and object")
        found.append((fields[0], fields[1], fields[2]))
    check_counts(path, {"triples": len(found)}, {"triples": chosen.triples}, CARD)
    return found


def read_questions(path: Path, chosen: Set) -> list[Question]:
    """The questions of a file.

    Raises:
      UserError: a line is no question, or counts unlike the published.
    """
    questions = [_question(line, where) for where, line in text_lines(path)]
    several = sum(len(question.answers) > 1 for question in questions)
    found = {"questions": len(questions), "of several answers": several}
    wanted = {"questions": chosen.questions, "of several answers": chosen.several}
    check_counts(path, found, wanted, CARD)
    return questions


def dialogue(question: Question, name: str) -> Dialogue:
    """Question, path and answer as messages."""
    messages = (
        Message("user", question.text),
        Message("assistant", "\n".join(" > ".join(path) for path in question.paths), "reason"),
        Message("assistant", question.answers[0], "reply"),
    )
    return Dialogue(name, messages, meta={"answers": question.answers})


def _read_split(config: Options, path: Path, split: str) -> Iterator[Dialogue]:
    for number, question in enumerate(read_questions(path, SETS[config.set])):
        if splits.split_of(question.text, config.seed) == split:
            yield dialogue(question, f"{split}-{number}")


def _question(line: str, where: str) -> Question:
    """Reads the three columns of PQ and PQL, or the first four of WorldCup2014's five or six."""
    fields = line.split("\t")
    if len(fields) not in (3, 5, 6):
        raise UserError(f"{where}: {len(fields)} fields, not question, answers and path")
    paths = [_path(part, where) for part in fields[2].strip().split("*")]
    gold = paths[0][-1]
    answers = fields[3] if len(fields) > 3 else fields[1].removeprefix(f"{gold}(")[:-1]
    listed = answers.removesuffix("/").split("/")
    if gold not in listed or any(path[-1] != gold for path in paths):
        raise UserError(f"{where}: the path ends with {gold!r:.60}, which is no answer")
    rest = [answer for answer in listed if answer != gold]
    return Question(fields[0].strip(), paths, [gold, *dict.fromkeys(rest)])


def _path(text: str, where: str) -> list[str]:
    names = text.split("#")
    path = names[: names.index(END)] if END in names else names
    if len(path) < 3 or len(path) % 2 == 0:
        raise UserError(f"{where}: {text!r:.60} is no path 'subject#relation#object...'")
    return path
