"""Finds a corpus by name, and says what every prepared corpus looks like."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dlm.core.errors import UserError
from dlm.corpora.overlap import Contents
from dlm.dialogue.schema import Dialogue

CORPORA: dict[str, str] = {
    "api_bank": "dlm.corpora.api_bank",
    "babi_dialog": "dlm.corpora.babi_dialog",
    "banking77": "dlm.corpora.banking77",
    "camrest676": "dlm.corpora.camrest676",
    "clinc150": "dlm.corpora.clinc150",
    "clutrr": "dlm.corpora.clutrr",
    "concierge": "dlm.corpora.concierge.builder",
    "dailydialog": "dlm.corpora.dailydialog",
    "deal_or_no_deal": "dlm.corpora.deal_or_no_deal",
    "dream": "dlm.corpora.dream",
    "e2e_nlg": "dlm.corpora.e2e_nlg",
    "jsonl": "dlm.corpora.jsonl",
    "kg_small": "dlm.corpora.kg_small",
    "llamafactory_demo": "dlm.corpora.llamafactory_demo",
    "meld": "dlm.corpora.meld",
    "mixture": "dlm.corpora.mixture",
    "mts_dialog": "dlm.corpora.mts_dialog",
    "multiwoz": "dlm.corpora.multiwoz",
    "mutual": "dlm.corpora.mutual",
    "pathquestion": "dlm.corpora.pathquestion",
    "restaurants8k": "dlm.corpora.restaurants8k",
    "sgd": "dlm.corpora.sgd",
    "sgd_head": "dlm.corpora.sgd_head",
    "webnlg2017": "dlm.corpora.webnlg2017",
    "woz2": "dlm.corpora.woz2",
    "xdailydialog": "dlm.corpora.xdailydialog",
    "xdailydialog_translation": "dlm.corpora.xdailydialog_translation",
}
NON_COMMERCIAL = re.compile(
    r"\bNC\b|(?i:non-?commercial|no commercial|research (use|purposes?)( use)? only)"
)


@dataclass(frozen=True)
class Card:
    """What is said of a corpus: the constant `CARD` of its module, read by its build and by lists.

    Attributes:
      task: the kind of work, in a few words: "task dialogue", "intents", "chat", ...
      description: what it is, in a sentence.
      citation: whom to cite; may be empty.
      licence: under which it may be used; may be empty.
      counts: dialogues of each split, measured, under the default options; empty: not fixed.
      folder: where its files lie under `$DLM_DATA_DIR`; empty: it needs none.
      files: of them, those that the default options read, or some that stand for them.
      remedy: where the files come from and where they go; ends every message of an absent one.
      missing: what of the published corpus is not there, or cannot be scored.
    """

    task: str
    description: str
    citation: str = ""
    licence: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    folder: str = ""
    files: tuple[str, ...] = ()
    remedy: str = ""
    missing: str = ""

    @property
    def non_commercial(self) -> bool:
        """Whether the licence, as far as it is stated, forbids commercial use."""
        return NON_COMMERCIAL.search(self.licence) is not None


@dataclass(frozen=True)
class Prepared:
    """A corpus on disk, ready to be read.

    Attributes:
      splits: `train`, `validation`, `test` and named extra tests, those that the corpus has.
      digest: hex digest of the dialogues of all splits; the same dialogues give the same digest.
      counts: of each split, its `dialogues`, `messages` and `responses` (response units; of a
        mixture only the first); where there are any, records `rejected`, and dialogues
        `also_in_train` and `also_in_validation`, word for word.
      contents: of each split, the content hash of every dialogue, in no order of meaning.
      rejected: the file of rejected records with their reasons; None where nothing was rejected.
      parts: the corpora that a mixture is made of, by the names that it gives them.
      shares: tokens of each part -> share of the training tokens that it shall have; None where
        every dialogue comes once an epoch.
    """

    name: str
    splits: Mapping[str, Sequence[Dialogue]]
    digest: str
    card: Card
    counts: dict[str, dict[str, int]]
    contents: Contents = field(default_factory=dict)
    rejected: Path | None = None
    parts: Mapping[str, Prepared] = field(default_factory=dict)
    shares: Callable[[Mapping[str, int]], dict[str, float]] | None = None

    @property
    def corpora(self) -> Mapping[str, Prepared]:
        """The parts of a mixture, or the corpus itself, by name."""
        return self.parts or {self.name: self}


def prepare(name: str, options: Mapping[str, Any], data_dir: str | Path) -> Prepared:
    """Builds the named corpus under `data_dir`, or opens it where it is built already.

    Args:
      name: a key of CORPORA.
      options: the corpus's own options; unknown ones are refused with the nearest name.
      data_dir: where builds are kept (not where the published files lie).

    Raises:
      UserError: no such corpus, a bad option, or a file that is absent or damaged.
    """
    if name not in CORPORA:
        near = difflib.get_close_matches(name, CORPORA, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(CORPORA))}"
        raise UserError(f"data.name: no corpus {name!r}; {hint}")
    return importlib.import_module(CORPORA[name]).prepare(options, Path(data_dir).expanduser())


def cards() -> dict[str, Card]:
    """The card of every corpus, by name."""
    return {name: importlib.import_module(module).CARD for name, module in CORPORA.items()}
