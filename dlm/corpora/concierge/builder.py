"""Builds the concierge corpus: draws the dialogues of every split and hands them to the store."""

from __future__ import annotations

import hashlib
import importlib
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from dlm.core import files
from dlm.core.config import parse
from dlm.core.errors import UserError
from dlm.corpora import tfds_store
from dlm.corpora.concierge.city import build_city
from dlm.corpora.concierge.script import Script
from dlm.corpora.concierge.skills import SKILLS, write_dialogue
from dlm.corpora.concierge.world import CityWorld
from dlm.corpora.registry import Card, Prepared
from dlm.dialogue.schema import Dialogue
from dlm.dialogue.template import message_text
from dlm.reasoning import graph

SPLITS = ("train", "validation", "test", "test_unseen")

_MODULES = ("names", "city", "world", "phrases", "script", "scene", "skills", "builder")
_ATTEMPTS = 100
_LONGEST = 980  # characters of a dialogue: 512 tokens hold each


@dataclass(frozen=True)
class Options:
    """What is drawn.

    Attributes:
      skills: keys of `skills.SKILLS`; dialogues take them in turn.
      dialogues: how many in `train`.
      held_out: how many in each of `validation`, `test` and `test_unseen`.
      cities: size of the pool for `train`, `validation` and `test`.
      unseen_cities: size of the pool for `test_unseen`.
      seed: decides the dialogues; a city is decided by its id alone.
    """

    skills: tuple[str, ...] = ("booking", "question", "out_of_scope")
    dialogues: int = 12000
    held_out: int = 300
    cities: int = 350
    unseen_cities: int = 40
    seed: int = 0


CARD = Card(
    task="task dialogue, graph",
    description="Dialogues with a concierge who books places in drawn cities; made by dlm.",
    citation="dlm.corpora.concierge",
    licence="Apache-2.0",
    counts={split: Options.dialogues if split == "train" else Options.held_out for split in SPLITS},
)


def prepare(options: Mapping[str, Any], data_dir: Path) -> Prepared:
    """Builds the corpus that the options describe, or opens it where it is built already."""
    config = parse(Options, options, "data.options")
    unknown = [skill for skill in config.skills if skill not in SKILLS]
    if unknown or not config.skills:
        what = f"no skill {unknown[0]!r}" if unknown else "empty"
        raise UserError(f"data.options.skills: {what}; known: {', '.join(SKILLS)}")
    for name in ("dialogues", "held_out", "cities", "unseen_cities"):
        if getattr(config, name) < 1:
            raise UserError(f"data.options.{name}={getattr(config, name)} must be at least 1")
    package = __name__.rpartition(".")[0]
    modules = [importlib.import_module(f"{package}.{module}") for module in _MODULES]
    code = files.source_digest(*modules, graph)
    digest = files.digest({"options": asdict(config), "code": code})
    drawn = cache(lambda: draw(config))
    return tfds_store.build(
        "concierge",
        digest,
        {split: partial(_split_of, drawn, split) for split in SPLITS},
        data_dir,
        card=CARD,
    )


def _split_of(drawn: Callable[[], dict[str, list[Dialogue]]], split: str) -> list[Dialogue]:
    return drawn()[split]


def draw(config: Options) -> dict[str, list[Dialogue]]:
    """Draws all splits; no two dialogues of the corpus say the same.

    Raises:
      UserError: so many dialogues are wanted that new ones are hardly found any more.
    """
    open_world = cache(lambda city_id: CityWorld(build_city(city_id)))
    seen: set[bytes] = set()
    drawn: dict[str, list[Dialogue]] = {}
    for split in SPLITS:
        size = config.dialogues if split == "train" else config.held_out
        drawn[split] = []
        for index in range(size):
            dialogue = _draw_new(config, split, index, open_world, seen)
            drawn[split].append(dialogue)
    return drawn


def _draw_new(
    config: Options,
    split: str,
    index: int,
    open_world: Callable[[str], CityWorld],
    seen: set[bytes],
) -> Dialogue:
    """Draws dialogue number `index` of a split until it is new, and not too long."""
    skill = config.skills[index % len(config.skills)]
    unseen = split == "test_unseen"
    for attempt in range(_ATTEMPTS):
        rng = random.Random(f"{config.seed} {split} {index} {attempt}")
        number = rng.randrange(config.unseen_cities if unseen else config.cities)
        world = open_world(f"{'unseen' if unseen else 'train'}-{number}")
        world.clear()
        script = write_dialogue(skill, world, rng)
        said = [(m.role, m.channel, message_text(m)) for m in script.messages]
        content = hashlib.sha256(repr(said).encode()).digest()
        if sum(len(text) for *_, text in said) <= _LONGEST and content not in seen:
            seen.add(content)
            return _dialogue(f"{split}-{index}", skill, script)
    raise UserError(
        f"data.options: hardly any new dialogue of skill {skill!r} after {len(seen)}; "
        "ask for fewer dialogues or more cities"
    )


def _dialogue(identity: str, skill: str, script: Script) -> Dialogue:
    meta = {
        "city": script.world.city.id,
        "skill": skill,
        "entities": list(script.names),
        "end_state": script.world.state(),
    }
    return Dialogue(identity, tuple(script.messages), task=skill, meta=meta)
