"""A byte-level BPE for text, and control tokens that no text can spell.

The vocabulary is that of the text (a `tokenizers` model without added tokens) followed by the
control tokens, which exist only here: encoding cannot give them, whatever the text says.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from dlm.core import files
from dlm.core.errors import UserError

CONTROL = (
    *("<|pad|>", "<|end|>", "<|system|>", "<|context|>", "<|user|>", "<|assistant|>", "<|tool|>"),
    *("<|tools|>", "<|intent|>", "<|state|>", "<|reason|>", "<|call|>", "<|act|>", "<|reply|>"),
)

_BYTES = 256  # every byte is in the text vocabulary, so any UTF-8 text can be spelled
_CHUNK = re.compile(r"\s*\S+|\s+")  # encoded apart from one another, so that repeats cost little
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
      path: a directory that `Tokenizer.save` wrote; read instead of training.
    """

    kind: str = "bpe"
    vocab_size: int = 1024
    join_spaces: bool = True
    path: str = ""


class Tokenizer:
    """Text to ids and back; ids from `text_size` on are control tokens.

    Attributes:
      text_size: ids below it are pieces of text.
      vocab_size: ids in all.
      digest: hex; equal exactly where every text gets equal ids.
    """

    def __init__(self, text: tokenizers.Tokenizer, control: Sequence[str] = CONTROL) -> None:
        self._text = text
        self._control = {name: text.get_vocab_size() + i for i, name in enumerate(control)}
        self.text_size = text.get_vocab_size()
        self.vocab_size = self.text_size + len(control)
        self.digest = files.digest([json.loads(text.to_str()), list(control)])
        self._ids: dict[str, list[int]] = {}  # of chunks

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text; never a control token."""
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each text; faster for many texts than one by one."""
        chunks = [_CHUNK.findall(text) for text in texts]
        if len(self._ids) > _CACHED:
            self._ids = {}
        known = self._ids
        new = list({chunk: None for text in chunks for chunk in text if chunk not in known})
        for chunk, encoding in zip(
            new, self._text.encode_batch_fast(new, add_special_tokens=False), strict=True
        ):
            known[chunk] = encoding.ids
        return [list(chain.from_iterable(map(known.__getitem__, text))) for text in chunks]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of ids; control tokens are left out, broken UTF-8 becomes U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, token: int) -> bytes:
        """Returns the UTF-8 bytes that a token stands for; none for a control token."""
        return self._bytes[token] if token < self.text_size else b""

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

    def save(self, directory: str | Path) -> None:
        """Writes `tokenizer.json` (the text vocabulary) and `control.json` into a directory."""
        files.write_atomic(Path(directory) / "tokenizer.json", self._text.to_str(pretty=True))
        files.write_json(Path(directory) / "control.json", list(self._control))

    @staticmethod
    def load(directory: str | Path) -> Tokenizer:
        """Reads what `save` wrote.

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

    @cached_property
    def _bytes(self) -> list[bytes]:
        table = _byte_of_symbol()
        pieces = sorted(self._text.get_vocab().items(), key=lambda item: item[1])
        return [bytes(table[symbol] for symbol in piece) for piece, _ in pieces]

    @cached_property
    def _control_names(self) -> dict[int, str]:
        return {token: name for name, token in self._control.items()}


def make(texts: Iterable[str], entities: Collection[str], config: TokenizerConfig) -> Tokenizer:
    """Returns the tokenizer that a config asks for: read from `path`, or trained."""
    return Tokenizer.load(config.path) if config.path else train(texts, entities, config)


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


def _byte_of_symbol() -> dict[str, int]:
    """Returns the byte of each character of the byte-level alphabet.

    Printable bytes of Latin-1 stand for themselves, the others for U+0100 and on, in order.

    Source: Radford et al. 2019, `bytes_to_unicode` of the released code.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(_BYTES) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + index): byte for index, byte in enumerate(others)
    }
