"""The published shapes by name, of all families."""

from __future__ import annotations

import difflib

from dlm.core.errors import UserError
from dlm.models import gpt2, llama
from dlm.models.config import ModelConfig

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
