"""Several corpora as one: each is prepared as itself, and is a task of the mixture.

    data.name = "mixture"
    data.options = {"parts": {"booking": {"name": "concierge", "weight": 3.0},
                              "chat": {"name": "xdailydialog", "options": {"language": "en"},
                                       "weight": 1.0}}}

Of the tokens that training reads, part i of n_i tokens gets the share

    weights given       s_i = weight_i / sum_j weight_j
    none given          s_i = n_i^(1/temperature) / sum_j n_j^(1/temperature)

`dlm/data/mixture.py` draws by these shares. Tokens read are counted, not learned ones, so that two
policies of an ablation see the same dialogues.

Source: temperature-scaled mixing, Raffel et al. 2020, section 3.5.2, arXiv:1910.10683.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np

from dlm.core import files
from dlm.core.config import parse
from dlm.core.errors import UserError
from dlm.corpora import registry
from dlm.corpora.overlap import also_in
from dlm.corpora.registry import Card, Prepared
from dlm.dialogue.schema import Dialogue

NAME = re.compile(r"[\w-]+")
CARD = Card(
    task="any",
    description="Several of the corpora as one; data.options.parts names them.",
)
SPLITS = ("train", "validation", "test")  # extra tests follow by name


@dataclass(frozen=True)
class Part:
    """A corpus of the mixture.

    Attributes:
      name: the corpus, a key of `dlm.corpora.registry.CORPORA`.
      options: its own options.
      weight: its share of the training tokens beside the others' weights; 0 = it has no training
        split, and is only evaluated. Give it to every part or to none.
      at_most: dialogues of its training split that are taken, those of the lowest content hashes,
        so that a smaller number takes some of the same; 0 = all.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    weight: float | None = None
    at_most: int = 0

    def __post_init__(self) -> None:
        if self.weight is not None and not 0 <= self.weight < float("inf"):
            raise ValueError(f"weight={self.weight} must be a number of at least 0")
        if self.at_most < 0:
            raise ValueError(f"at_most={self.at_most} must be a number of dialogues, or 0 for all")


@dataclass(frozen=True)
class Options:
    """Options of the mixture.

    Attributes:
      parts: corpora by the names that they have here, which are the tasks of their dialogues.
      temperature: without weights: 1 = every dialogue once an epoch; the higher, the more equal
        the shares.
    """

    parts: Mapping[str, Part]
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name, part in self.parts.items():
            if not NAME.fullmatch(name):
                raise ValueError(f"part {name!r}: name it with letters, digits, - and _ alone")
            if part.name == "mixture":
                raise ValueError(f"part {name} is a mixture itself; name its parts here")
        if not self.parts:
            raise ValueError("parts is empty; name at least one corpus")
        if not 1 <= self.temperature < float("inf"):
            raise ValueError(f"temperature={self.temperature} must be a number of at least 1")
        given = [name for name, part in self.parts.items() if part.weight is not None]
        if given and len(given) < len(self.parts):
            bare = sorted(self.parts.keys() - set(given))[0]
            raise ValueError(f"part {given[0]} has a weight and {bare} has none; weigh all or none")
        if given and self.temperature != 1:
            raise ValueError(f"temperature={self.temperature} and weights exclude each other")
        if given and not any(part.weight for part in self.parts.values()):
            raise ValueError("every part has weight 0; nothing would be learned")


class Mixed(Sequence[Dialogue]):
    """One split of a mixture, read from its parts when asked.

    Their dialogues come in turn, one of each part as long as it has any: the first few of a split
    are of every part.

    Args:
      parts: the split of each part, by the part's name.
    """

    def __init__(self, parts: Mapping[str, Sequence[Dialogue]]):
        self._names, self._sources = list(parts), list(parts.values())
        sizes = [len(source) for source in self._sources]
        part = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        index = np.concatenate([np.arange(size) for size in sizes])
        turn = np.lexsort((part, index))
        self._part, self._index = part[turn], index[turn]

    def __len__(self) -> int:
        return len(self._index)

    @overload
    def __getitem__(self, index: int) -> Dialogue: ...

    @overload
    def __getitem__(self, index: slice) -> list[Dialogue]: ...

    def __getitem__(self, index: int | slice) -> Dialogue | list[Dialogue]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        part = self._part[index]
        name, dialogue = self._names[part], self._sources[part][int(self._index[index])]
        return replace(dialogue, id=f"{name}/{dialogue.id}", task=name)


class Chosen(Sequence[Dialogue]):
    """Some dialogues of a split: those at `indices`, [n] integers, in this order."""

    def __init__(self, source: Sequence[Dialogue], indices: np.ndarray):
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Dialogue: ...

    @overload
    def __getitem__(self, index: slice) -> list[Dialogue]: ...

    def __getitem__(self, index: int | slice) -> Dialogue | list[Dialogue]:
        if isinstance(index, slice):
            return [self._source[place] for place in self._indices[index].tolist()]
        return self._source[int(self._indices[index])]


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds or opens every part as itself, and lays their splits together.

    Raises:
      UserError: a bad option, what a part's own corpus raises, or a part that shall be trained on
        and has no training split.
    """
    config = parse(Options, options, "data.options")
    parts = {name: _prepare(name, config.parts[name], data_dir) for name in sorted(config.parts)}
    holders = {split: _holders(parts, split) for split in _splits(parts)}
    contents = {
        split: np.concatenate([part.contents[split] for part in held.values()])
        for split, held in holders.items()
    }
    counts = also_in(contents)
    for split, held in holders.items():
        counts[split]["dialogues"] = len(contents[split])
        if refused := sum(part.counts[split].get("rejected", 0) for part in held.values()):
            counts[split]["rejected"] = refused
    return Prepared(
        name="mixture",
        splits={
            split: Mixed({name: _ordered(part, split) for name, part in held.items()})
            for split, held in holders.items()
        },
        digest=files.digest(["by hash", {name: part.digest for name, part in parts.items()}]),
        card=CARD,
        counts=counts,
        contents=contents,
        parts=parts,
        shares=_shares(config),
    )


def _prepare(name: str, part: Part, data_dir: Path) -> Prepared:
    """The part's corpus, its training split cut to `at_most` dialogues; none at weight 0."""
    try:
        corpus = registry.prepare(part.name, part.options, data_dir)
    except UserError as error:
        raise UserError(f"part {name}: {error}") from None
    if part.weight and "train" not in corpus.splits:
        raise UserError(f"part {name} has no training split; give it weight 0")
    hashes = corpus.contents.get("train", np.empty(0, np.uint64))
    most = 0 if part.weight == 0 else part.at_most or len(hashes)
    if most >= len(hashes):
        return corpus
    splits, contents = dict(corpus.splits), dict(corpus.contents)
    if most:
        chosen = np.sort(np.argsort(hashes, kind="stable")[:most])
        splits["train"], contents["train"] = Chosen(splits["train"], chosen), hashes[chosen]
    else:
        del splits["train"], contents["train"]
    digest = files.digest([corpus.digest, most])
    return replace(corpus, splits=splits, contents=contents, digest=digest)


def _ordered(part: Prepared, split: str) -> Sequence[Dialogue]:
    """A split of a part; what is held out comes by its content hash.

    So the first ones are a fair sample, also of a file that is sorted by its labels.
    """
    dialogues = part.splits[split]
    if split == "train":
        return dialogues
    return Chosen(dialogues, np.argsort(part.contents[split], kind="stable"))


def _splits(parts: Mapping[str, Prepared]) -> list[str]:
    """The splits that some part has, the usual ones first."""
    names = {split for part in parts.values() for split in part.splits}
    return [*(split for split in SPLITS if split in names), *sorted(names.difference(SPLITS))]


def _holders(parts: Mapping[str, Prepared], split: str) -> dict[str, Prepared]:
    return {name: part for name, part in parts.items() if split in part.splits}


def _shares(config: Options) -> Callable[[Mapping[str, int]], dict[str, float]] | None:
    weights = {name: part.weight for name, part in config.parts.items() if part.weight is not None}
    if weights:
        return partial(weighted, weights)
    return None if config.temperature == 1 else partial(tempered, config.temperature)


def weighted(weights: Mapping[str, float], sizes: Mapping[str, int]) -> dict[str, float]:
    """The share of each part by its weight; the equation of the module.

    Args:
      weights: of every part.
      sizes: training tokens of the parts that have any.

    Raises:
      UserError: a part has a weight and no tokens.
    """
    for name in weights:
        if weights[name] and not sizes.get(name):
            raise UserError(f"part {name} has nothing to learn from; give it weight 0")
    total = sum(weights.values())
    return {name: weights[name] / total for name in sizes}


def tempered(temperature: float, sizes: Mapping[str, int]) -> dict[str, float]:
    """The share of each part by its size, in tokens; the equation of the module."""
    powers = {name: size ** (1 / temperature) for name, size in sizes.items()}
    return {name: power / sum(powers.values()) for name, power in powers.items()}
