"""Tokenizers of checkpoints: a Hugging Face folder, GGUF metadata, a llama2.c vocabulary.

Each becomes the content of a `tokenizer.json`, of which `tokenizer.Tokenizer` takes the pieces of
text and the control tokens apart. Only byte-pair vocabularies that can spell every text are taken.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from dlm.core import files
from dlm.core.errors import UserError
from dlm.dialogue.cuts import find_cut, pre_tokenizer
from dlm.dialogue.pieces import SPACE, spelled_bytes, trailing_bytes
from dlm.dialogue.tokenizer import (
    Pretrained,
    Tokenizer,
    TokenizerConfig,
    added_token,
    train,
)

SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
_VOCABULARIES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
CONTROL_TYPE, USER_DEFINED_TYPE = 3, 4  # of tokens, in GGUF


def make(texts: Iterable[str], entities: Collection[str], config: TokenizerConfig) -> Tokenizer:
    """Returns the tokenizer that a config asks for: read from `path`, or trained."""
    return load(config.path) if config.path else train(texts, entities, config)


def load(directory: str | Path) -> Tokenizer:
    """Reads what `Tokenizer.save` wrote, or the tokenizer files of a checkpoint.

    Raises:
      UserError: a file is missing, damaged, or of a kind that we cannot use.
    """
    control = Path(directory) / "control.json"
    if not control.exists():
        return from_directory(directory)
    if (Path(directory) / "tokenizer_config.json").exists():
        return from_directory(directory, own=files.read_json(control))
    return Tokenizer.load(directory)


def from_directory(directory: str | Path, own: Sequence[str] = ()) -> Tokenizer:
    """Reads the tokenizer files of a checkpoint.

    These are `tokenizer.json`, or a vocabulary with its merges as GPT-2's; where they exist
    `tokenizer_config.json`, `special_tokens_map.json` and `chat_template.jinja`.

    Raises:
      UserError: there is none, it is damaged, or of a kind that we cannot use.
    """
    folder = Path(directory)
    try:
        pretrained = _read_directory(folder)
        return build(pretrained, str(folder), own)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise UserError(f"{folder}: its tokenizer files are damaged ({problem})") from None


def _read_directory(folder: Path) -> Pretrained:
    config = _read_optional(folder / "tokenizer_config.json")
    path = folder / "tokenizer.json"
    file = files.read_json(path) if path.exists() else _from_vocabulary(folder)
    named = {**_read_optional(folder / "special_tokens_map.json"), **config}
    special = {
        name: text
        for name, value in named.items()
        if name in SPECIAL and isinstance(text := _content(value), str)
    }
    added = {token["content"] for token in file.get("added_tokens", ())}
    for identity, token in config.get("added_tokens_decoder", {}).items():
        if token["content"] not in added:
            flags = {"special": bool(token["special"])}
            file["added_tokens"].append(added_token(int(identity), token["content"], **flags))
    adds_bos = config.get("add_bos_token")
    return Pretrained(
        file=file,
        special=special,
        chat_template=_chat_template(folder, config),
        adds_bos=_begins(file, special.get("bos_token")) if adds_bos is None else adds_bos,
    )


def build(pretrained: Pretrained, where: str, own: Sequence[str] = ()) -> Tokenizer:
    """Takes a checkpoint's pieces of text and its control tokens apart.

    An added token is a piece of text if it is not special and the pairs alone spell it; else it is
    control, and no text gives it. A space that the checkpoint puts before every text is left to
    the template (`Tokenizer.space_before`), so that the ids of a text do not depend on its place.

    Raises:
      UserError: the vocabulary is not of byte pairs, or cannot spell every text.
    """
    file = {**pretrained.file, "added_tokens": [], "post_processor": None}
    if file["model"]["type"] != "BPE":
        raise UserError(f"{where}: a tokenizer of kind {file['model']['type']}; only BPE is known")
    file["normalizer"] = _without_prefix(file["normalizer"])
    file["pre_tokenizer"] = _without_prefix(file["pre_tokenizer"])
    added = pretrained.file["added_tokens"]
    perhaps = [token for token in added if not token["special"]]
    whole = _parsed(file, where) if perhaps else None
    pieces = [t for t in perhaps if whole and whole.encode(t["content"]).ids == [t["id"]]]
    theirs = {token["content"]: token["id"] for token in added if token not in pieces}
    model = file["model"]
    vocabulary = {piece: i for piece, i in model["vocab"].items() if piece not in theirs}
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
    merges = [pair for pair in pairs if not theirs.keys() & {*pair, "".join(pair)}]
    text = _parsed({**file, "model": {**model, "vocab": vocabulary, "merges": merges}}, where)
    spelled = set(spelled_bytes(text).values())
    if not all(bytes([byte]) in spelled for byte in trailing_bytes()):
        raise UserError(f"{where}: a tokenizer that cannot spell most texts; take one of bytes")
    return Tokenizer(text, own, theirs, pretrained)


def _parsed(file: Mapping[str, Any], where: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(file))
    except Exception as error:  # the library raises plain Exception
        raise UserError(f"{where}: not a tokenizer: {error}") from None


def _without_prefix(step: Any) -> Any:
    """A step of normalising or cutting, without the space that it puts before a text."""
    if not isinstance(step, dict):
        return step
    kept = {
        name: [_without_prefix(one) for one in value if one.get("type") != "Prepend"]
        if name in ("normalizers", "pretokenizers")
        else value
        for name, value in step.items()
    }
    changes = {"prepend_scheme": "never", "add_prefix_space": False}
    kept |= {name: value for name, value in changes.items() if name in kept}
    return None if kept["type"] == "Prepend" else kept


def from_gguf(metadata: Mapping[str, Any], where: str) -> Tokenizer:
    """Rebuilds the tokenizer that the metadata of a GGUF file describe.

    Args:
      metadata: fields by name, those of `tokenizer.*` are read; arrays as lists.
      where: the file, for errors.

    Raises:
      UserError: it is of a kind that we do not know.
    """

    def field(name: str, otherwise: Any = None) -> Any:
        return metadata.get(f"tokenizer.ggml.{name}", otherwise)

    tokens, kind = field("tokens"), field("model")
    if not tokens:
        raise UserError(f"{where}: holds no tokenizer (no tokenizer.ggml.tokens)")
    types = field("token_type") or [1] * len(tokens)
    added = [
        added_token(i, tokens[i], special=kind_of_token == CONTROL_TYPE)
        for i, kind_of_token in enumerate(types)
        if kind_of_token in (CONTROL_TYPE, USER_DEFINED_TYPE)
    ]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if kind == "gpt2":
        merges = [merge.split(" ") for merge in field("merges", ())]
        file = _byte_level(vocabulary, merges, added, find_cut(field("pre", "gpt-2"), where))
    elif kind == "llama":
        file = _scored(vocabulary, field("scores"), added, field("add_space_prefix", True))
    else:
        raise UserError(f"{where}: tokenizer of kind {kind!r} is unknown; known: gpt2, llama")
    ids = {name: field(f"{name}_token_id") for name in ("bos", "eos", "unknown", "padding")}
    names = {"unknown": "unk", "padding": "pad"}
    return build(
        Pretrained(
            file=file,
            special={
                f"{names.get(name, name)}_token": tokens[i]
                for name, i in ids.items()
                if i is not None
            },
            chat_template=metadata.get("tokenizer.chat_template", ""),
            adds_bos=bool(field("add_bos_token", kind == "llama")),
        ),
        where,
    )


def from_llama2c(path: str | Path) -> Tokenizer:
    """Reads a llama2.c vocabulary: the longest piece, then score, length and bytes of each.

    Its control tokens are the first three: unknown, beginning and end.

    Raises:
      UserError: the file is damaged.
    """
    data, at = Path(path).read_bytes(), 4
    tokens, scores = [], []
    try:
        while at < len(data):
            score, size = struct.unpack_from("<fi", data, at)
            at += 8 + size
            tokens.append(data[at - size : at].decode().replace(" ", SPACE))
            scores.append(score)
    except (struct.error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged at byte {at}: {error}") from None
    tokens[:3] = ["<unk>", "<s>", "</s>"]
    added = [added_token(i, tokens[i], special=True) for i in range(3)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    special = dict(zip(("unk_token", "bos_token", "eos_token"), tokens, strict=False))
    file = _scored(vocabulary, scores, added, space_before=True)
    return build(Pretrained(file, special, "", adds_bos=True), str(path))


def _from_vocabulary(folder: Path) -> dict[str, Any]:
    for vocabulary, merges in _VOCABULARIES:
        if (folder / vocabulary).exists() and (folder / merges).exists():
            known = files.read_json(folder / vocabulary)
            lines = (folder / merges).read_text(encoding="utf-8").splitlines()
            pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
            end = "<|endoftext|>"
            added = [added_token(known[end], end, special=True)] if end in known else []
            return _byte_level(known, pairs, added, {})
    raise UserError(
        f"{folder}: no tokenizer.json, nor vocab.json with merges.txt; save the checkpoint's "
        "tokenizer with the transformers library first"
    )


def _byte_level(
    vocabulary: Mapping[str, int],
    merges: Sequence[Sequence[str]],
    added: list[dict[str, Any]],
    cut: Mapping[str, Any],
) -> dict[str, Any]:
    """The `tokenizer.json` of pairs of bytes; see `cuts.CUTS`."""
    model = {
        "type": "BPE",
        "vocab": dict(vocabulary),
        "merges": [list(pair) for pair in merges],
        "ignore_merges": cut.get("ignore_merges", False),
    }
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": cut.get("normalizer"),
        "pre_tokenizer": pre_tokenizer(cut),
        "post_processor": None,
        "decoder": pre_tokenizer({})["pretokenizers"][-1],
        "model": model,
    }


def _scored(
    vocabulary: Mapping[str, int],
    scores: Sequence[float],
    added: list[dict[str, Any]],
    space_before: bool,
) -> dict[str, Any]:
    """The `tokenizer.json` of a sentencepiece vocabulary: the better a piece, the sooner merged."""
    pairs = []
    for piece, i in vocabulary.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocabulary and right in vocabulary:
                pairs.append((-scores[i], vocabulary[left], vocabulary[right], left, right))
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = [{"type": "Prepend", "prepend": SPACE}] if space_before else []
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if space_before else []
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [*prepend, replace]},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip],
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": dict(vocabulary),
            "merges": [[left, right] for *_, left, right in sorted(pairs)],
        },
    }


def _begins(file: Mapping[str, Any], bos: str | None) -> bool:
    """Whether the file's post-processor puts the token of the beginning before a text."""
    return bos is not None and bos in json.dumps(
        (file.get("post_processor") or {}), ensure_ascii=False
    )


def _content(value: Any) -> Any:
    return value.get("content") if isinstance(value, dict) else value


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str:
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    found = config.get("chat_template") or ""
    if isinstance(found, list):
        found = next((item["template"] for item in found if item["name"] == "default"), "")
    return found


def _read_optional(path: Path) -> dict[str, Any]:
    return files.read_json(path) if path.exists() else {}
