"""What decides how a split is encoded: the key of its cache."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import chain
from pathlib import Path

import dlm.dialogue
from dlm.core.files import digest
from dlm.dialogue.policy import PolicyConfig

STORE = ("block", "recipe", "store", "workers", "writer")


@dataclass(frozen=True)
class Recipe:
    """All that decides a split's pieces; two equal recipes give equal arrays, bit for bit.

    Attributes:
      split: name of the split.
      data: digest of the corpus.
      tokenizer: digest of the tokenizer.
      template: digest of how dialogues are written out.
      policy: what is learned.
      length: most tokens of a piece.
      overflow: what happens to longer dialogues in training.
      evaluation: every message is scored once.
      groups: a dialogue gives a piece for each of its endings.
      code: digest of the source that prepares.
    """

    split: str
    data: str
    tokenizer: str
    template: str
    policy: PolicyConfig
    length: int
    overflow: str
    evaluation: bool
    groups: bool
    code: str

    @property
    def key(self) -> str:
        """64 hex digits: the name of the cache."""
        return digest(asdict(self))


def preparing_code() -> str:
    """Digest of what makes pieces: the room of dialogues, the store, the tokenizers library."""
    rooms = (Path(folder).glob("*.py") for folder in dlm.dialogue.__path__)
    store = (Path(__file__).with_name(f"{name}.py") for name in STORE)
    sources = [path.read_text(encoding="utf-8") for path in (*sorted(chain(*rooms)), *store)]
    return digest([metadata.version("tokenizers"), *sources])
