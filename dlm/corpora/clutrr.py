"""CLUTRR: who is who to whom in a family, by a story that says it step by step.

The story is `context`, as published (names in brackets). The user asks "Who is Dorothy to
Donald?"; the assistant derives it, its `reason`, a step a line, from what the story says on,

    Donald father Michael, Michael sister Dorothy > Donald aunt Dorothy

(Donald's father is Michael, ...) and names the relation, its `reply`: `aunt`. `meta.facts` are the
story's facts that the derivation rests on, as triples; the task is the number of them, `k2`, ...

Six sets: two ask for more steps than training shows (tests `test_k2` to `test_k10`), four train on
two and three steps with one kind of facts beside the needed ones (clean, supporting, irrelevant,
disconnected) and test on that kind (`test_k2`, `test_k3`) and on the others (`test_clean_k3`, ...).
A tenth of the training file, by the hash of story and question, is `validation`: repeated ones
are on one side.

Source: Sinha et al.: CLUTRR: A Diagnostic Benchmark for Inductive Reasoning from Text, EMNLP 2019,
arXiv:1908.06177.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dlm.core.config import parse
from dlm.core.errors import UserError
from dlm.corpora import splits
from dlm.corpora.published import MALFORMED_LITERAL, find_files, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tables import check_counts, csv_rows, reader_digest
from dlm.corpora.tfds_store import build
from dlm.dialogue.checks import check_choice
from dlm.dialogue.schema import Dialogue, Message
from dlm.reasoning.graph import Triple

KINDS = {"1": "clean", "2": "supporting", "3": "irrelevant", "4": "disconnected"}
COLUMNS = ("story", "query", "target", "proof_state", "task_name")
VALIDATION = 0.1

# Measured on the release: set -> file -> rows. A file's name says its kinds and steps: `1.2`.
COUNTS = {
    "089907f8": {"1.2,1.3_train": 10094}
    | dict(
        zip(
            (f"1.{k}_test" for k in range(2, 11)),
            (38, 105, 190, 174, 107, 144, 150, 119, 119),
            strict=True,
        )
    ),
    "db9b8f04": {"1.2,1.3,1.4_train": 15083}
    | dict(
        zip(
            (f"1.{k}_test" for k in range(2, 11)),
            (38, 107, 77, 185, 105, 155, 135, 124, 122),
            strict=True,
        )
    ),
    "7c5b0e70": {
        **{"1.2,1.3_train": 10124, "1.2_test": 38, "1.3_test": 108},
        **{"2.3_test": 101, "3.3_test": 100, "4.3_test": 100},
    },
    "06b8f2a1": {
        **{"2.2,2.3_train": 10154, "2.2_test": 38, "2.3_test": 107},
        **{"1.3_test": 101, "3.3_test": 101, "4.3_test": 100},
    },
    "523348e6": {
        **{"3.2,3.3_train": 10099, "3.2_test": 38, "3.3_test": 105},
        **{"1.3_test": 100, "2.3_test": 100, "4.3_test": 101},
    },
    "d83ecc3e": {
        **{"4.2,4.3_train": 10100, "4.2_test": 38, "4.3_test": 106},
        **{"1.3_test": 100, "2.3_test": 100, "3.3_test": 101},
    },
}
CARD = Card(
    task="reasoning",
    description="CLUTRR: family relations that a story implies.",
    citation=(
        "Koustuv Sinha, Shagun Sodhani, Jin Dong, Joelle Pineau, William L. Hamilton: CLUTRR: A "
        "Diagnostic Benchmark for Inductive Reasoning from Text, EMNLP 2019"
    ),
    licence="MIT",
    counts={"train": 9078, "validation": 1016}
    | {f"test_k{k}": COUNTS["089907f8"][f"1.{k}_test"] for k in range(2, 11)},
    folder="clutrr",
    files=("data_089907f8/1.2,1.3_train.csv",),
    remedy=(
        "take the folder data/clutrr-emnlp of the GitHub repository uclnlp/ctp, and name it in "
        "data.options.path, or put it at $DLM_DATA_DIR/clutrr"
    ),
    missing="no validation split is published: a tenth of train by hash",
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      set: a key of `COUNTS`, as published. 089907f8 trains on 2 and 3 steps, db9b8f04 on 2 to 4;
        7c5b0e70 clean, 06b8f2a1 supporting, 523348e6 irrelevant, d83ecc3e disconnected facts.
      path: folder of the published files; empty: `$DLM_DATA_DIR/clutrr`.
    """

    set: str = "089907f8"
    path: str = ""


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens one set.

    Raises:
      UserError: no such set, a file that is absent or damaged, or counts unlike the published.
    """
    config = parse(Options, options, "data.options")
    check_choice(config.set, tuple(COUNTS), "", "data.options.set")
    root = root_of(CARD, config.path)
    counts = COUNTS[config.set]
    paths = find_files(CARD, root, (f"data_{config.set}/{name}.csv" for name in counts))
    training, *tests = zip(paths, counts.values(), strict=True)
    own = paths[0].name[0]
    found: dict[str, Callable[[], Iterator[Dialogue]]] = {
        split: partial(_training, *training, split) for split in ("train", "validation")
    }
    for path, count in tests:
        kind, _, steps = path.name.removesuffix("_test.csv").partition(".")
        split = f"test_k{steps}" if kind == own else f"test_{KINDS[kind]}_k{steps}"
        found[split] = partial(_read, path, count, split)
    return build(
        "clutrr",
        reader_digest(config, root, paths, sys.modules[__name__], splits),
        found,
        data_dir,
        card=CARD,
    )


def derivation(proof: Mapping[Triple, list[Triple]], goal: Triple) -> tuple[list[Triple], list]:
    """The facts that a goal rests on, in their order, and the steps to it, premises first.

    Args:
      proof: triple -> the triples that it follows from.
      goal: a key of it.

    Returns:
      Facts, and steps (triple, its premises); the goal's is the last one.

    Raises:
      RecursionError: a triple follows from itself.
    """
    facts: list[Triple] = []
    steps: list[tuple[Triple, list[Triple]]] = []
    for premise in proof[goal]:
        if premise in proof:
            before = derivation(proof, premise)
            facts += before[0]
            steps += before[1]
        else:
            facts.append(premise)
    return facts, [*steps, (goal, proof[goal])]


def parse_row(row: Mapping[str, str], where: str, name: str) -> Dialogue:
    """A row as a dialogue.

    Raises:
      UserError: query or proof are no such Python literals, or the proof is not of the query.
    """
    try:
        first, second = ast.literal_eval(row["query"])
        proof = {
            head: body
            for rule in ast.literal_eval(row["proof_state"])
            for head, body in rule.items()
        }
        facts, steps = derivation(proof, (first, row["target"], second))
        lines = [
            f"{', '.join(' '.join(premise) for premise in body)} > {' '.join(head)}"
            for head, body in steps
        ]
    except MALFORMED_LITERAL as error:
        problem = f"query and proof_state do not prove a relation: {error!r}"
        raise UserError(f"{where}: {problem[:200]}") from None
    messages = (
        Message("context", row["story"]),
        Message("user", f"Who is {second} to {first}?"),
        Message("assistant", "\n".join(lines), "reason"),
        Message("assistant", row["target"], "reply"),
    )
    task = f"k{row['task_name'].rpartition('.')[2]}"
    meta = {"answers": [row["target"]], "facts": [list(fact) for fact in facts]}
    return Dialogue(name, messages, task=task, meta=meta)


def _read(path: Path, count: int, split: str) -> Iterator[Dialogue]:
    """All rows of a file; held against its count."""
    number = -1
    for number, (where, row) in enumerate(csv_rows(path, COLUMNS)):
        yield parse_row(row, where, f"{split}-{number}")
    check_counts(path, {"rows": number + 1}, {"rows": count}, CARD)


def _training(path: Path, count: int, split: str) -> Iterator[Dialogue]:
    """The rows of the training file that fall to `train` or `validation`."""
    for dialogue in _read(path, count, split):
        asked = "\n".join(str(message.content) for message in dialogue.messages[:2])
        if (splits.share_of(asked) < VALIDATION) == (split == "validation"):
            yield dialogue
