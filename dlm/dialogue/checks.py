"""Checks of single values of a record: text, parts, names, JSON, tools."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dlm.core.errors import UserError

PART_TYPES = ("text", "image", "audio")

_NAME = re.compile(r"[^\x00-\x1f\x7f]+")
_ESCAPED_NULL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


class RecordError(UserError):
    """A record that is no dialogue: where it stands, the field, what is wrong and the remedy."""

    def __init__(self, where: str, field: str, problem: str) -> None:
        super().__init__(": ".join(part for part in (where, field, problem) if part))
        self.where = where
        self.field = field
        self.problem = problem


def kind(value: Any) -> str:
    """Names the JSON type of a value, for messages: `a string`, `null`, ..."""
    return _KINDS.get(type(value), f"a Python {type(value).__name__}")


def check_text(value: Any, where: str, field: str) -> None:
    """Requires a string that UTF-8 can hold, without a null byte."""
    if not isinstance(value, str):
        raise RecordError(where, field, f"expected a string, got {kind(value)}")
    if "\0" in value:
        raise RecordError(where, field, "holds a null byte; remove it")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            problem = f"holds half a surrogate pair at character {error.start}; remove it"
            raise RecordError(where, field, problem) from None


def check_choice(value: Any, choices: Sequence[str], where: str, field: str) -> None:
    """Requires one of a few strings; the error offers the nearest."""
    if isinstance(value, str) and value in choices:
        return
    near = difflib.get_close_matches(value, choices, 1) if isinstance(value, str) else []
    shown = repr(value[:40]) if isinstance(value, str) else kind(value)
    hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(choices)}"
    raise RecordError(where, field, f"unknown value {shown}; {hint}")


def check_name(value: Any, where: str, field: str) -> None:
    """Requires a name: one line of text, not empty."""
    check_text(value, where, field)
    if not _NAME.fullmatch(value):
        raise RecordError(where, field, "a name is one line of text, not empty")


def check_json(value: Any, where: str, field: str) -> None:
    """Requires a value that JSON can hold, its strings like those of `check_text`."""
    if value is None or value == {}:
        return
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:
        raise RecordError(where, field, "holds half a surrogate pair; remove it") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise RecordError(where, field, f"not JSON: {str(error)[:100]}") from None
    if _ESCAPED_NULL.search(text):
        raise RecordError(where, field, "holds a null byte; remove it")


def check_object(value: Any, where: str, field: str) -> None:
    """Requires a JSON object."""
    if not isinstance(value, Mapping):
        raise RecordError(where, field, f"expected an object, got {kind(value)}")
    check_json(value, where, field)


def check_content(value: Any, where: str, field: str) -> None:
    """Requires text, or a tuple of text, image and audio parts."""
    if isinstance(value, str):
        return check_text(value, where, field)
    if not isinstance(value, tuple):
        raise RecordError(where, field, f"expected a string or a list of parts, got {kind(value)}")
    for index, part in enumerate(value):
        name = f"{field}[{index}]"
        check_object(part, where, name)
        check_choice(part.get("type"), PART_TYPES, where, f"{name}.type")
        if part["type"] == "text":
            check_text(part.get("text"), where, f"{name}.text")
        elif isinstance(part.get("data"), str) == isinstance(part.get("path"), str):
            raise RecordError(where, name, "give either path (of a file) or data (a data: URI)")
        elif "data" in part and not part["data"].startswith("data:"):
            raise RecordError(where, f"{name}.data", "no data URI; it begins with 'data:'")


def check_tool(value: Any, where: str, field: str) -> None:
    """Requires `{"name", "description"?, "parameters"?}`; more fields are allowed."""
    check_object(value, where, field)
    check_name(value.get("name"), where, f"{field}.name")
    check_text(value.get("description", ""), where, f"{field}.description")
    check_object(value.get("parameters", {}), where, f"{field}.parameters")
