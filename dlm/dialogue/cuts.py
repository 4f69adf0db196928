"""How byte-level tokenizers cut text into words before they merge bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlm.core.errors import UserError

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_MARKS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# How llama.cpp names the ways to cut text into words; the expressions are the checkpoints' own.
# With each, a space behind another character than white space begins a word.
CUTS: dict[str, dict[str, Any]] = {
    "gpt-2": {},
    "smollm": {"digits": True},
    "llama-bpe": {"pattern": rf"{_WORDS}|\p{{N}}{{1,3}}{_MARKS}", "ignore_merges": True},
    "qwen2": {"pattern": rf"{_WORDS}|\p{{N}}{_MARKS}", "normalizer": {"type": "NFC"}},
}


def find_cut(name: str, where: str) -> Mapping[str, Any]:
    """Returns the cut of a name.

    Raises:
      UserError: it is unknown; `where` it was asked for.
    """
    if name not in CUTS:
        known = ", ".join(CUTS)
        raise UserError(f"{where}: words are cut as {name!r}, which is unknown; known: {known}")
    return CUTS[name]


def pre_tokenizer(cut: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a cut as a `tokenizer.json` writes it."""
    pattern = cut.get("pattern")
    steps: list[dict[str, Any]] = []
    if pattern:
        split = {"pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        steps.append({"type": "Split", **split})
    if cut.get("digits"):
        steps.append({"type": "Digits", "individual_digits": True})
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "type": "Sequence",
        "pretokenizers": [*steps, {**byte_level, "use_regex": not pattern}],
    }


def cut_of(file: Mapping[str, Any]) -> str | None:
    """How llama.cpp names the cut and the normalising of a `tokenizer.json`; None if it does not.

    Inverts what `pretrained.from_gguf` makes of `tokenizer.ggml.pre`.
    """
    steps = file.get("pre_tokenizer") or {}
    steps = steps if steps.get("type") == "Sequence" else {"pretokenizers": [steps]}
    for name, cut in CUTS.items():
        wanted = pre_tokenizer(cut)["pretokenizers"]
        if steps["pretokenizers"] == wanted and file.get("normalizer") == cut.get("normalizer"):
            return name
    return None
