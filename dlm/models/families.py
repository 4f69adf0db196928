"""The families by name: published shapes, and where others keep the weights of a config."""

from __future__ import annotations

import difflib
from types import ModuleType

from dlm.core.errors import UserError
from dlm.models import gpt2, llama
from dlm.models.config import ModelConfig
from dlm.models.table import Layout, Weight, expand

FAMILIES = {gpt2.NAME: gpt2, llama.NAME: llama}
PRESETS = gpt2.PRESETS | llama.PRESETS


def preset(name: str) -> ModelConfig:
    """The published shape of that name; change it by `dataclasses.replace`.

    Raises:
      UserError: no such preset; names the nearest.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(PRESETS)}"
        raise UserError(f"unknown model preset {name!r}; {hint}")
    return PRESETS[name]


def named(name: str) -> ModuleType:
    """The family of that name, as files of others spell it.

    Raises:
      UserError: there is no such family here.
    """
    if name not in FAMILIES:
        raise UserError(f"architecture {name!r} is not supported, only {' and '.join(FAMILIES)}")
    return FAMILIES[name]


def family_of(config: ModelConfig) -> ModuleType:
    """The family whose parts a config has.

    Raises:
      UserError: it mixes the parts of several.
    """
    for family in FAMILIES.values():
        if all(getattr(config, name) == value for name, value in family.PARTS.items()):
            return family
    parts = ", ".join(f"{name}={getattr(config, name)!r}" for name in llama.PARTS)
    raise UserError(f"no family that others can read has the parts {parts}")


def weight_table(config: ModelConfig, layout: Layout) -> list[Weight]:
    """Where each leaf of a config's parameters lies in the tensors of a layout.

    Raises:
      UserError: the config belongs to no family.
    """
    family = family_of(config)
    rows = [row for row in family.TABLE if not (config.tied and row.path == "head/kernel")]
    transposed = family.TRANSPOSED[layout]
    return expand([row.weight(layout, transposed=transposed) for row in rows], config.num_layers)
