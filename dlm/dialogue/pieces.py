"""The bytes that the pieces of a vocabulary stand for."""

from __future__ import annotations

import json
import re

import tokenizers

SPACE = "\u2581"  # stands for a space in sentencepiece vocabularies

_BYTES = 256


def leading_bytes() -> set[int]:
    """Returns the bytes that begin a character of UTF-8."""
    return {*range(0x80), *range(0xC2, 0xF5)}


def trailing_bytes() -> set[int]:
    """Returns the bytes that go on with a character of UTF-8."""
    return {*range(0x80, 0xC0)}


def _is_byte_level(text: tokenizers.Tokenizer) -> bool:
    return '"ByteLevel"' in json.dumps(json.loads(text.to_str())["pre_tokenizer"])


def spelled_bytes(text: tokenizers.Tokenizer) -> dict[int, bytes]:
    """Returns the bytes of every piece: of byte-level symbols, or text with `<0x0A>` for bytes."""
    pieces = {i: piece for piece, i in text.get_vocab().items()}
    if _is_byte_level(text):
        table = _byte_of_symbol()
        return {i: bytes(table[symbol] for symbol in piece) for i, piece in pieces.items()}
    return {i: _unescaped(piece) for i, piece in pieces.items()}


def _unescaped(piece: str) -> bytes:
    byte = re.fullmatch(r"<0x([0-9A-F]{2})>", piece)
    return bytes.fromhex(byte[1]) if byte else piece.replace(SPACE, " ").encode()


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
