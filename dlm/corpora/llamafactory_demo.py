"""The demo sets of LLaMA-Factory: conversations with tool calls, and two of preferences.

`toolcall`, 300 conversations in ShareGPT form: `function_call` is a `call`, `observation` its
`tool` result, as published text; `tools` are the dialogue's, where it has some (191).

`dpo`, 300 pairs in the same form: `messages` is the history, which ends with the user, `chosen` and
`rejected` are two replies to it. `kto`, 300 conversations, the last reply of each wanted or not:
its `label`.

No split is published: conversations fall to train, validation and test, eight to one to one, by the
hash of their first message of the user, so repeated ones are on one side.

Source: Zheng et al.: LlamaFactory: Unified Efficient Fine-Tuning of 100+ Language Models, ACL 2024,
arXiv:2403.13372; files of its repository.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dlm.core.config import parse
from dlm.corpora import splits
from dlm.corpora.published import find_files, read_records, root_of
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tables import check_counts, reader_digest
from dlm.corpora.tfds_store import build
from dlm.dialogue import formats
from dlm.dialogue.checks import check_choice
from dlm.dialogue.formats import from_sharegpt
from dlm.dialogue.schema import Dialogue, from_json

FILES = {
    "toolcall": "data/glaive_toolcall_en_demo.json",
    "dpo": "data/dpo_en_demo.json",
    "kto": "data/kto_en_demo.json",
}
SHAREGPT = ("toolcall", "dpo")  # the other is in our format already
COUNT = 300  # measured, of each
SPLITS = ("train", "validation", "test")
CARD = Card(
    task="tools; preferences",
    description="LLaMA-Factory's demos: tool calls (toolcall), pairs (dpo), labels (kto).",
    citation=(
        "Yaowei Zheng, Richong Zhang, Junhao Zhang, Yanhan Ye, Zheyan Luo: LlamaFactory: Unified "
        "Efficient Fine-Tuning of 100+ Language Models, ACL 2024 (demonstrations)"
    ),
    licence="Apache-2.0 (the repository; origin of each file not stated)",
    counts={"train": 240, "validation": 24, "test": 36},
    folder="llamafactory-demo",
    files=tuple(FILES.values()),
    remedy=(
        "take the folder data of the GitHub repository hiyouga/LLaMA-Factory, and name the folder "
        "that holds it in data.options.path, or put it at $DLM_DATA_DIR/llamafactory-demo"
    ),
    missing="no split is published: 8:1:1 by hash",
)


@dataclass(frozen=True)
class Options:
    """Options of the corpus.

    Attributes:
      set: toolcall, dpo or kto.
      path: folder of the published files; empty: `$DLM_DATA_DIR/llamafactory-demo`.
    """

    set: str = "toolcall"
    path: str = ""


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens one set.

    Raises:
      UserError: no such set, or a file that is absent, damaged or not of this format.
    """
    config = parse(Options, options, "data.options")
    check_choice(config.set, tuple(FILES), "", "data.options.set")
    root = root_of(CARD, config.path)
    [path] = find_files(CARD, root, [FILES[config.set]])
    return build(
        "llamafactory_demo",
        reader_digest(config, root, [path], sys.modules[__name__], splits, formats),
        {split: partial(_read_split, config, path, split) for split in SPLITS},
        data_dir,
        card=CARD,
    )


def read_file(path: Path, chosen: str) -> Iterator[Dialogue]:
    """The conversations of a set's file, in order; their ids are their numbers.

    Raises:
      UserError: a record is not of this format, or there are more or fewer than published.
    """
    records = read_records(path, CARD)
    for number, record in enumerate(records):
        where = f"{path}: record {number}"
        if chosen in SHAREGPT:
            record = from_sharegpt(record, where)
        yield replace(from_json(record, where), id=str(number))
    check_counts(path, {"records": len(records)}, {"records": COUNT}, CARD)


def _read_split(config: Options, path: Path, split: str) -> Iterator[Dialogue]:
    for dialogue in read_file(path, config.set):
        users = (message.content for message in dialogue.messages if message.role == "user")
        asked = next(users, "")
        if splits.split_of(str(asked)) == split:
            yield replace(dialogue, id=f"{split}-{dialogue.id}")
