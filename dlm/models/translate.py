"""What the translations of configs share: reading other libraries' fields, and refusing by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlm.core.errors import UserError

REQUIRED = object()


def take(config: Mapping[str, Any], key: str, kind: type, default: Any = REQUIRED) -> Any:
    """A field of the given type; its default where it is absent or null.

    Raises:
      UserError: it is of another type, or absent without a default.
    """
    value = config.get(key)
    if value is None:
        if default is REQUIRED:
            raise UserError(f"{key} is missing")
        return default
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UserError(f"{key}={value!r} must be of type {kind.__name__}")
    return value


def only(config: Mapping[str, Any], key: str, *supported: Any) -> None:
    """Refuses a field whose value is none of the supported ones; an absent one is the first.

    Raises:
      UserError: names field, value and what is supported.
    """
    value = config.get(key, supported[0])
    if value not in supported:
        known = " or ".join(repr(one) for one in supported)
        raise UserError(f"{key}={value!r} is not supported, only {known}")
