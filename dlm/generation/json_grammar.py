"""JSON as `json.dumps(value, ensure_ascii=False)` writes it, one byte at a time, after a schema.

A state is a stack of frames (a tuple, the innermost last); a byte replaces the innermost frame by
those that must follow it. States are immutable, so a state may be tried with many bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

MAX_DEPTH = 8

_NUMBER = re.compile(rb"-?(0|[1-9]\d{0,14})(\.\d{1,14})?")
_NUMBER_START = re.compile(rb"-?((0|[1-9]\d{0,14})(\.\d{0,14})?)?")
_INTEGER = re.compile(rb"-?(0|[1-9]\d{0,14})")
_INTEGER_START = re.compile(rb"-?(0|[1-9]\d{0,14})?")
_ANY_TYPE = ("string", "number", "boolean", "null", "array", "object")


class Frame(Protocol):
    """One unfinished piece of text."""

    @property
    def may_end(self) -> bool:
        """Whether the piece is whole as it stands."""

    def step(self, byte: int) -> State | None:
        """Returns the frames that follow after this byte; None where the byte does not fit."""


State = tuple[Frame, ...]


def advance(state: State, byte: int) -> State | None:
    """Returns the state after a byte, or None where it cannot stand here."""
    while state:
        frames = state[-1].step(byte)
        if frames is not None:
            return state[:-1] + frames
        if not state[-1].may_end:
            return None
        state = state[:-1]
    return None


def advance_all(state: State, text: bytes) -> State | None:
    """`advance` over the bytes of a token."""
    for byte in text:
        following = advance(state, byte)
        if following is None:
            return None
        state = following
    return state


def complete(state: State) -> bool:
    """Whether the text so far is whole."""
    return all(frame.may_end for frame in state)


def call(parameters: Mapping[str, Mapping[str, Any]]) -> State:
    """The start of `{"name": NAME, "arguments": OBJECT}`.

    Args:
      parameters: JSON schema of the arguments, by tool name. Empty: any name and any arguments.
    """
    if not parameters:
        return (
            _Literal(b"}"),
            _Value({"type": "object"}),
            _Literal(b', "arguments": '),
            _String(),
            _Literal(b'{"name": "'),
        )
    names = tuple(
        (_dumps(name) + b', "arguments": ', (_Literal(b"}"), _Value({**schema, "type": "object"})))
        for name, schema in parameters.items()
    )
    return (_Options(names), _Literal(b'{"name": '))


def text() -> State:
    """The start of plain content: well-formed UTF-8 without a null byte."""
    return (_Text(),)


def _dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


@dataclass(frozen=True)
class _Literal:
    """These bytes and no others."""

    rest: bytes
    may_end: ClassVar[bool] = False

    def step(self, byte: int) -> State | None:
        if byte != self.rest[0]:
            return None
        return (_Literal(self.rest[1:]),) if len(self.rest) > 1 else ()


@dataclass(frozen=True)
class _Options:
    """One of several byte strings; each names the frames that follow it."""

    options: tuple[tuple[bytes, State], ...]

    @property
    def may_end(self) -> bool:
        return any(not rest and not then for rest, then in self.options)

    def step(self, byte: int) -> State | None:
        left = tuple((rest[1:], then) for rest, then in self.options if rest[:1] == bytes([byte]))
        if len(left) == 1 and not left[0][0]:
            return left[0][1]
        return (_Options(left),) if left else None


Ranges = tuple[tuple[int, int], ...]
_TAIL = (0x80, 0xBF)


def utf8(pending: Ranges, byte: int) -> Ranges | None:
    """One byte of well-formed UTF-8 (Unicode 15, table 3-7).

    Args:
      pending: ranges of the bytes still owed to the current character.
      byte: the next one.

    Returns:
      what is owed after it, or None where it cannot stand.
    """
    if pending:
        low, high = pending[0]
        return pending[1:] if low <= byte <= high else None
    if byte < 0x80:
        return ()
    if 0xC2 <= byte <= 0xDF:
        return (_TAIL,)
    if 0xE0 <= byte <= 0xEF:
        return ({0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F)}.get(byte, _TAIL), _TAIL)
    if 0xF0 <= byte <= 0xF4:
        return ({0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}.get(byte, _TAIL), _TAIL, _TAIL)
    return None


@dataclass(frozen=True)
class _Text:
    """See `text`; may end between characters."""

    pending: Ranges = ()

    @property
    def may_end(self) -> bool:
        return not self.pending

    def step(self, byte: int) -> State | None:
        pending = utf8(self.pending, byte) if byte else None
        return None if pending is None else (_Text(pending),)


@dataclass(frozen=True)
class _String:
    """A JSON string after its opening quote, with the escapes that `json.dumps` writes."""

    pending: Ranges = ()
    escaped: bool = False
    may_end: ClassVar[bool] = False

    def step(self, byte: int) -> State | None:
        if self.escaped:
            return (_String(),) if byte in b'"\\bfnrt' else None
        if byte == 0x22 and not self.pending:
            return ()
        if byte == 0x5C and not self.pending:
            return (_String(escaped=True),)
        pending = utf8(self.pending, byte) if byte >= 0x20 else None
        return None if pending is None else (_String(pending),)


@dataclass(frozen=True)
class _Number:
    """A number without exponent, at most 15 digits before the point and 14 after it."""

    text: bytes = b""
    integer: bool = False

    @property
    def may_end(self) -> bool:
        return bool((_INTEGER if self.integer else _NUMBER).fullmatch(self.text))

    def step(self, byte: int) -> State | None:
        text = self.text + bytes([byte])
        fits = (_INTEGER_START if self.integer else _NUMBER_START).fullmatch(text)
        return (_Number(text, self.integer),) if fits else None


@dataclass(frozen=True)
class _Value:
    """Any value its schema allows by `type`, `enum`, `const`, `properties`, `items`, `required`.

    Other words of a schema are left to validation.
    """

    schema: Mapping[str, Any]
    depth: int = 0
    may_end: ClassVar[bool] = False

    def step(self, byte: int) -> State | None:
        schema = self.schema if isinstance(self.schema, Mapping) else {}
        if "const" in schema or "enum" in schema:
            values = [schema["const"]] if "const" in schema else schema["enum"]
            return _Options(tuple((_dumps(value), ()) for value in values)).step(byte)
        types = schema.get("type", _ANY_TYPE)
        types = (types,) if isinstance(types, str) else types
        match chr(byte):
            case '"' if "string" in types:
                return (_String(),)
            case "t" | "f" if "boolean" in types:
                return _Options(((b"true", ()), (b"false", ()))).step(byte)
            case "n" if "null" in types:
                return _Literal(b"null").step(byte)
            case "[" if "array" in types and self.depth < MAX_DEPTH:
                return (_Items(schema.get("items", {}), self.depth + 1, first=True),)
            case "{" if "object" in types and self.depth < MAX_DEPTH:
                return (_Members(schema, self.depth + 1),)
        if "number" in types or "integer" in types:
            return _Number(integer="number" not in types).step(byte)
        return None


@dataclass(frozen=True)
class _Items:
    """An array after its bracket (`first`) or after a value."""

    schema: Mapping[str, Any]
    depth: int
    first: bool = False
    may_end: ClassVar[bool] = False

    def step(self, byte: int) -> State | None:
        if byte == ord("]"):
            return ()
        following, value = _Items(self.schema, self.depth), _Value(self.schema, self.depth)
        if not self.first:
            return (following, value, _Literal(b" ")) if byte == ord(",") else None
        frames = value.step(byte)
        return None if frames is None else (following, *frames)


@dataclass(frozen=True)
class _Members:
    """An object after its brace (nothing seen yet) or after a value.

    Where the schema names properties, only these are keys, each at most once, and the object
    cannot close before every required one is there.
    """

    schema: Mapping[str, Any]
    depth: int
    seen: frozenset[str] = frozenset()
    first: bool = True
    may_end: ClassVar[bool] = False

    def step(self, byte: int) -> State | None:
        if byte == ord("}"):
            return () if self.seen.issuperset(self.schema.get("required", ())) else None
        if self.first:
            return self._key() if byte == ord('"') else None
        keys = self._key() if byte == ord(",") else None
        return None if keys is None else (*keys, _Literal(b' "'))

    def _key(self) -> State | None:
        """The frames of a key after its opening quote, and of the value it takes."""
        if "properties" not in self.schema:
            following = _Members({}, self.depth, first=False)
            return (following, _Value({}, self.depth), _Literal(b": "), _String())
        unseen = {k: v for k, v in self.schema["properties"].items() if k not in self.seen}
        options = tuple(
            (
                _dumps(key)[1:] + b": ",
                (
                    _Members(self.schema, self.depth, self.seen | {key}, first=False),
                    _Value(schema, self.depth),
                ),
            )
            for key, schema in unseen.items()
        )
        return (_Options(options),) if options else None
