"""A checkpoint's tokenizer as the metadata of a GGUF file."""

from __future__ import annotations

from typing import Any

from dlm.dialogue.cuts import cut_of
from dlm.dialogue.pretrained import CONTROL_TYPE, USER_DEFINED_TYPE
from dlm.dialogue.tokenizer import Tokenizer

_NORMAL, _UNUSED = 1, 5  # token types of GGUF
_NAMES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


def to_gguf(tokenizer: Tokenizer, chat_template: str, num_rows: int) -> dict[str, Any] | None:
    """The fields `tokenizer.*` that llama.cpp reads; `pretrained.from_gguf` inverts it.

    Args:
      tokenizer: a checkpoint's, our own control tokens among the special ones.
      chat_template: Jinja text; "" for none.
      num_rows: V, rows of the embedding; those without a token are called unused.

    Returns:
      None where llama.cpp has no name for the way the tokenizer cuts text: one that was learned
      here, or a checkpoint's that is not of pairs of bytes.
    """
    said = tokenizer.pretrained
    cut = cut_of(said.file) if said is not None else None
    if said is None or cut is None:
        return None
    texts = [f"[PAD{i}]" for i in range(num_rows)]
    types = [_UNUSED] * num_rows
    for text, i in said.file["model"]["vocab"].items():
        texts[i], types[i] = text, _NORMAL
    for token in said.file["added_tokens"]:
        kind = CONTROL_TYPE if token["special"] else USER_DEFINED_TYPE
        texts[token["id"]], types[token["id"]] = token["content"], kind
    for i in range(tokenizer.text_size, tokenizer.vocab_size):
        texts[i], types[i] = tokenizer.control_name(i) or texts[i], CONTROL_TYPE
    pairs = said.file["model"]["merges"]
    fields: dict[str, Any] = {
        "model": "gpt2",
        "pre": cut,
        "tokens": texts,
        "token_type": types,
        "merges": [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs],
        "add_bos_token": said.adds_bos,
    }
    ids = {text: i for i, text in enumerate(texts)}
    for name, role in _NAMES.items():
        if (i := ids.get(said.special.get(role, ""))) is not None:
            fields[f"{name}_token_id"] = i
    whole = {f"tokenizer.ggml.{name}": value for name, value in fields.items()}
    return whole | ({"tokenizer.chat_template": chat_template} if chat_template else {})
