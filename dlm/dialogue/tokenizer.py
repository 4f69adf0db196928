"""Pieces of text and control tokens: two kinds of ids, and no text can spell the second.

The pieces are a `tokenizers` model without added tokens: a byte-level BPE learned here, or a
checkpoint's. The control tokens exist only beside it: encoding cannot give them, whatever the text
says.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from dlm.core import files
from dlm.core.errors import UserError
from dlm.dialogue.cuts import cut_of
from dlm.dialogue.pieces import leading_bytes, spelled_bytes

CONTROL = (
    *("<|pad|>", "<|end|>", "<|system|>", "<|context|>", "<|user|>", "<|assistant|>", "<|tool|>"),
    *("<|tools|>", "<|intent|>", "<|state|>", "<|reason|>", "<|call|>", "<|act|>", "<|reply|>"),
)

_BYTES = 256  # every byte is in the text vocabulary, so any UTF-8 text can be spelled
# What is encoded apart, so that repeats cost little: in every vocabulary that is learned here, and
# in a checkpoint's whose cut of words is known.
_CHUNK = re.compile(r"\s*\S+|\s+")
_THEIR_CHUNK = re.compile(
    r"\s*\S+(?:(?! )\s+\S*)*|\s+"
)  # behind a letter or mark, a space begins one
_CACHED = 300_000  # chunks whose ids are remembered
_FED = 2_000_000  # pieces that the trainer counts
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class TokenizerConfig:
    """How text becomes tokens.

    Attributes:
      kind: "bpe", byte-level pairs learned from the training texts.
      vocab_size: size of the vocabulary, the control tokens included; an upper bound where the
        texts are too few to learn that many.
      join_spaces: whether a lower-case word or a mark carries the space before it. Fewer tokens,
        but such a word is spelled otherwise after a space than after a quote; set it to False
        where names are in lower case.
      path: a directory that `Tokenizer.save` wrote or that holds a checkpoint's tokenizer; read
        instead of training.
    """

    kind: str = "bpe"
    vocab_size: int = 1024
    join_spaces: bool = True
    path: str = ""


@dataclass(frozen=True)
class Pretrained:
    """What a checkpoint says of its tokenizer.

    Attributes:
      file: the content of its `tokenizer.json`.
      special: the tokens of its special roles, such as `bos_token`.
      chat_template: Jinja text; "" where it has none.
      adds_bos: whether a sequence begins with `bos_token` even if its template does not say so.
    """

    file: Mapping[str, Any]
    special: Mapping[str, str]
    chat_template: str
    adds_bos: bool


class Tokenizer:
    """Text to ids and back, and control tokens by name.

    Args:
      text: the model of text, without added tokens.
      own: control tokens of ours; their ids follow all others.
      theirs: a checkpoint's control tokens and their ids.
      pretrained: what a checkpoint says; None where the pieces were learned here.

    Attributes:
      text_size: ids from it on are our own control tokens; below it a checkpoint's may stand.
      vocab_size: ids in all.
      pretrained: see above.
      space_before: where a checkpoint puts a space before a text: "never", "first" (at the very
        beginning) or "always" (behind every control token too). Left to the template.
    """

    def __init__(
        self,
        text: tokenizers.Tokenizer,
        own: Sequence[str] = CONTROL,
        theirs: Mapping[str, int] = MappingProxyType({}),
        pretrained: Pretrained | None = None,
    ) -> None:
        self._text = text
        self._own = [name for name in own if name not in theirs]
        self.pretrained = pretrained
        self.space_before = _space_before(pretrained.file) if pretrained else "never"
        last = max(chain(text.get_vocab().values(), theirs.values()), default=-1)
        self.text_size = last + 1
        self.vocab_size = self.text_size + len(self._own)
        self._control = {**theirs} | {name: self.text_size + i for i, name in enumerate(self._own)}
        self._theirs = dict(theirs)
        self._ids: dict[str, list[int]] = {}  # of chunks

    def __getstate__(self) -> dict[str, Any]:
        """All but what is remembered of texts."""
        return {**self.__dict__, "_ids": {}}

    @cached_property
    def digest(self) -> str:
        """Hex; equal exactly where every text gets equal ids."""
        said = [json.loads(self._text.to_str()), self._own]
        return files.digest([*said, self._theirs] if self._theirs else said)

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text; never a control token."""
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text; faster for many texts than one by one."""
        chunks = [self._chunks(text) for text in texts]
        if len(self._ids) > _CACHED:
            self._ids = {}
        known = self._ids
        new = list({chunk: None for text in chunks for chunk in text if chunk not in known})
        encodings = self._text.encode_batch_fast(new, add_special_tokens=False) if new else ()
        for chunk, encoding in zip(new, encodings, strict=True):
            known[chunk] = encoding.ids
        return [list(chain.from_iterable(map(known.__getitem__, text))) for text in chunks]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ids; control tokens are left out, broken UTF-8 becomes U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, token: int) -> bytes:
        """Returns the UTF-8 bytes that a token stands for; none for a control token."""
        return self._bytes.get(token, b"")

    def control(self, name: str) -> int:
        """Returns the id of a control token such as `<|user|>`; KeyError where there is none."""
        return self._control[name]

    def control_name(self, token: int) -> str | None:
        """Returns the name of a control token, None for a piece of text."""
        return self._control_names.get(token)

    def token_id(self, name: str) -> int:
        """Returns the id of one token, given as a control token's name or as a piece of text.

        Raises:
          UserError: the text is not exactly one token.
        """
        if name in self._control:
            return self._control[name]
        ids = self.encode(name)
        if len(ids) != 1:
            pieces = ", ".join(repr(self.decode([token])) for token in ids)
            raise UserError(f"{name!r} is not one token of this tokenizer but {len(ids)}: {pieces}")
        return ids[0]

    def with_control(self, names: Sequence[str]) -> Tokenizer:
        """Returns the same with those of more control tokens that it lacks behind the others."""
        more = [name for name in names if name not in self._control]
        return Tokenizer(self._text, [*self._own, *more], self._theirs, self.pretrained)

    def special_id(self, role: str) -> int | None:
        """Returns the id of a checkpoint's token of a role such as `eos_token`; None without."""
        name = self.pretrained.special.get(role) if self.pretrained else None
        return None if name is None else self._control.get(name)

    @property
    def pad_id(self) -> int:
        """The id that fills what nobody reads."""
        special = self.pretrained.special if self.pretrained else {}
        names = ("<|pad|>", special.get("pad_token"), special.get("eos_token"))
        return next((self._control[name] for name in names if name in self._control), 0)

    def save(self, directory: str | Path) -> None:
        """Writes `tokenizer.json` and `control.json` into a directory, for `load`.

        `tokenizer.json` is that of the text, or a checkpoint's own with `tokenizer_config.json`;
        `control.json` lists our control tokens.
        """
        folder = Path(directory)
        if self.pretrained is None:
            files.write_atomic(folder / "tokenizer.json", self._text.to_str(pretty=True))
        else:
            files.write_json(folder / "tokenizer.json", self.pretrained.file)
            files.write_json(folder / "tokenizer_config.json", self._config(self.pretrained))
        files.write_json(folder / "control.json", self._own)

    def save_pretrained(self, directory: str | Path, chat_template: str) -> None:
        """Writes the files that the transformers library loads, for a model that is given away.

        `tokenizer.json` has our control tokens among its added ones; `tokenizer_config.json` holds
        the chat template.
        """
        ours = Pretrained(
            file={**json.loads(self._text.to_str()), "added_tokens": []},
            special={"pad_token": "<|pad|>", "eos_token": "<|end|>"},
            chat_template="",
            adds_bos=False,
        )
        saved = self.pretrained or ours
        more = [added_token(self._control[name], name, special=True) for name in self._own]
        file = {**saved.file, "added_tokens": [*saved.file["added_tokens"], *more]}
        config = self._config(replace(saved, chat_template=chat_template))
        files.write_json(Path(directory) / "tokenizer.json", file)
        files.write_json(Path(directory) / "tokenizer_config.json", config)

    @staticmethod
    def _config(pretrained: Pretrained) -> dict[str, Any]:
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "add_bos_token": pretrained.adds_bos,
            **pretrained.special,
            "chat_template": pretrained.chat_template,
        }

    @staticmethod
    def load(directory: str | Path) -> Tokenizer:
        """Reads what `save` wrote of a tokenizer that was learned here; `pretrained.load` all.

        Raises:
          UserError: a file is missing or damaged, or the text vocabulary has added tokens, which
            text could spell.
        """
        path = Path(directory) / "tokenizer.json"
        control = files.read_json(Path(directory) / "control.json")
        try:
            text = tokenizers.Tokenizer.from_str(json.dumps(files.read_json(path)))
        except Exception as error:  # the library raises plain Exception
            raise UserError(f"{path}: not a tokenizer: {error}") from None
        if text.get_added_tokens_decoder():
            raise UserError(f"{path}: has added tokens, which text could spell; save it with dlm")
        return Tokenizer(text, control)

    def _chunks(self, text: str) -> list[str]:
        if self.pretrained is None:
            return _CHUNK.findall(text)
        if self._missing and not self._missing.isdisjoint(text.encode()):
            text = "".join("\ufffd" if c.encode()[0] in self._missing else c for c in text)
        if self._known_cut:
            return _THEIR_CHUNK.findall(text)
        return [text] if text else []

    @cached_property
    def _known_cut(self) -> bool:
        return cut_of(json.loads(self._text.to_str())) is not None

    @cached_property
    def _missing(self) -> set[int]:
        """Bytes that begin a character and for which the checkpoint has no piece."""
        return leading_bytes() - {piece[0] for piece in self._bytes.values() if len(piece) == 1}

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        return spelled_bytes(self._text)

    @cached_property
    def _control_names(self) -> dict[int, str]:
        return {token: name for name, token in self._control.items()}


def train(texts: Iterable[str], entities: Collection[str], config: TokenizerConfig) -> Tokenizer:
    """Learns byte pairs from texts, deterministically.

    Entities are names that a model must copy, not remember: their words are cut out of the texts,
    so that known and unknown names are spelled alike, in small pieces. Capitalised words never
    carry the space before them, digits and marks stand alone; so a name is spelled the same in
    running text and inside JSON.

    Args:
      texts: the training texts, as the model will see them.
      entities: strings; of a name of several words, the lower-case ones (of, the) are not cut.
      config: size of the vocabulary, and whether spaces are joined.

    Raises:
      UserError: the vocabulary cannot hold the bytes and the control tokens, or the kind is
        unknown.
    """
    size = config.vocab_size - len(CONTROL)
    if config.kind != "bpe":
        raise UserError(f"tokenizer.kind={config.kind!r} is unknown; did you mean 'bpe'?")
    if size < _BYTES:
        least = _BYTES + len(CONTROL)
        raise UserError(f"tokenizer.vocab_size={config.vocab_size} must be at least {least}")
    spelling = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_pattern(config.join_spaces)), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    text = tokenizers.Tokenizer(models.BPE())
    text.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text.train_from_iterator(_repeated(_pieces(texts, entities, spelling)), trainer)
    text.pre_tokenizer = spelling
    return Tokenizer(text)


def _pieces(
    texts: Iterable[str], entities: Collection[str], spelling: pre_tokenizers.PreTokenizer
) -> Counter[str]:
    """Counts the words of the texts, as byte-level symbols, without the words of entities."""
    chunks: Counter[str] = Counter()
    for text in texts:
        chunks.update(_CHUNK.findall(text))
    cut: set[str] = set()
    for entity in entities:
        words = _WORD.findall(entity)
        one = len(entity.split()) == 1
        cut.update(word for word in words if one or not word[0].islower())
    parts: Counter[str] = Counter()
    for chunk, count in chunks.items():
        kept = _WORD.sub(lambda word: "\0" if word[0] in cut else word[0], chunk)
        for part in kept.split("\0"):
            parts[part] += count
    pieces: Counter[str] = Counter()
    for part, count in parts.items():
        for piece, _ in spelling.pre_tokenize_str(part):
            pieces[piece] += count
    return pieces


def _repeated(pieces: Counter[str]) -> Iterator[str]:
    """Yields each piece as often as it counts; many counts are scaled down, none to nothing."""
    scale = -(-pieces.total() // _FED)
    for piece, count in sorted(pieces.items()):
        yield f"{piece} " * -(-count // scale)


def _pattern(join_spaces: bool) -> str:
    """Returns the regular expression whose matches are the words that pairs never cross."""
    space = " ?" if join_spaces else ""
    gap = r"\s+(?!\S)|\s+" if join_spaces else r"\s+"
    lower, capital = r"(?![\p{Lu}\p{Lt}])[\p{L}\p{M}]+", r"[\p{L}\p{M}]+"
    return rf"{space}{lower}|{capital}|\p{{N}}|{space}[^\s\p{{L}}\p{{M}}\p{{N}}]|{gap}"


def _space_before(file: Mapping[str, Any]) -> str:
    steps = json.dumps([file.get("normalizer"), file.get("pre_tokenizer")])
    if '"type": "Prepend"' in steps or '"prepend_scheme": "always"' in steps:
        return "always"
    return "first" if '"prepend_scheme": "first"' in steps else "never"


def added_token(identity: int, content: str, *, special: bool) -> dict[str, Any]:
    """An entry of `added_tokens` in a `tokenizer.json`: the token is found as it stands."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": identity, "content": content, **flags, "special": special}
