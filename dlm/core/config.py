"""The config border: files and command lines come in, frozen dataclasses go on.

An option's dataclass lives beside the code that reads it. `defaults` turns a tree of such classes
into the `ConfigDict` that a config file changes, `load` reads a file and the command line's
overrides, and `parse` turns the outcome back into checked, frozen dataclasses. Every failure is a
`UserError` that names the dotted key, the place and, for a misspelt name, the nearest one.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import traceback
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ml_collections import ConfigDict, FieldReference

from dlm.core.errors import UserError

C = TypeVar("C")


def defaults(cls: type) -> ConfigDict:
    """Builds the config of a frozen dataclass from its defaults, sections nested.

    Sections are locked, so that a misspelt key fails on its own line of a config file; fields that
    are mappings stay open. A field whose type allows None can be set back to None; a field
    without a default is None until a file sets it.
    """
    config = ConfigDict()
    kinds = typing.get_type_hints(cls)
    is_open = []
    for field in dataclasses.fields(cls):
        kind, value = kinds[field.name], _default(field)
        if dataclasses.is_dataclass(value):
            config[field.name] = _of_instance(value)
        elif isinstance(value, Mapping):
            config[field.name] = ConfigDict(dict(value))
            is_open.append(field.name)
        elif value is None or _is_optional(kind):
            config[field.name] = FieldReference(value, field_type=_plain_type(kind))
        else:
            config[field.name] = value
    config.lock()
    for name in is_open:
        config[name].unlock()
    return config


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _of_instance(section: Any) -> ConfigDict:
    """The config of a nested section, whose values may differ from its class's own defaults."""
    config = defaults(type(section))
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        config[field.name] = _of_instance(value) if dataclasses.is_dataclass(value) else value
    return config


def _is_optional(kind: Any) -> bool:
    return type(None) in typing.get_args(kind)


def _plain_type(kind: Any) -> type:
    """The class that a ConfigDict should hold a field to: `int` for `int | None`."""
    options = [option for option in typing.get_args(kind) if option is not type(None)]
    if _is_optional(kind) and len(options) == 1:
        return _plain_type(options[0])
    origin = typing.get_origin(kind) or kind
    if origin in (tuple, Sequence):
        return tuple
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return ConfigDict
    return origin if isinstance(origin, type) else object


def parse(cls: type[C], mapping: Mapping[str, Any] | ConfigDict, where: str) -> C:
    """Checks a mapping against a dataclass and builds it, sections nested.

    An int passes for a float and a list for a tuple; nothing else is converted.

    Args:
      cls: the dataclass; `__post_init__` may refuse values with a ValueError.
      mapping: a nested mapping, for instance a ConfigDict or a `config.json`.
      where: the file or section it comes from, for messages.

    Raises:
      UserError: an unknown key (with the nearest name), a missing one, or a wrong type.
    """
    plain = mapping.to_dict() if isinstance(mapping, ConfigDict) else mapping
    return _section(cls, plain, "", where)


def _section(cls: type[C], mapping: Any, path: str, where: str) -> C:
    if not isinstance(mapping, Mapping):
        name = path.rstrip(".") or "config"
        raise UserError(f"{name} must be a section, got {mapping!r} ({where})")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    kinds = typing.get_type_hints(cls)
    for key in mapping:
        if key not in fields:
            raise _unknown(f"{path}{key}", [f"{path}{name}" for name in fields], where)
    values = {}
    for name, field in fields.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and mapping.get(name) is None and not _is_optional(kinds[name]):
            raise UserError(f"{path}{name} must be given ({where})")
        if name in mapping:
            values[name] = _value(kinds[name], mapping[name], f"{path}{name}", where)
    try:
        return cls(**values)
    except ValueError as error:
        raise UserError(f"{path.rstrip('.') or 'config'}: {error} ({where})") from None


def _value(kind: Any, value: Any, path: str, where: str) -> Any:
    """Checks one value against its annotation; the recursion of `parse`."""
    origin, args = typing.get_origin(kind) or kind, typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _section(typing.cast(type, kind), value, f"{path}.", where)
    if origin in (typing.Union, types.UnionType):
        for option in args:
            try:
                return _value(option, value, path, where)
            except UserError:
                continue
    elif origin is typing.Literal:
        if value in args and type(value) in {type(option) for option in args}:
            return value
    elif kind is Any:
        return value
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        if isinstance(value, Mapping):
            inner = args[1] if args else Any
            return {key: _value(inner, v, f"{path}.{key}", where) for key, v in value.items()}
    elif isinstance(origin, type) and issubclass(origin, Sequence) and origin is not str:
        if isinstance(value, Sequence) and not isinstance(value, str):
            if not args or args[-1] is Ellipsis or origin is not tuple:
                args = (args[0] if args else Any,) * len(value)
            if len(args) == len(value):
                pairs = enumerate(zip(args, value, strict=True))
                return tuple(_value(a, v, f"{path}[{i}]", where) for i, (a, v) in pairs)
    elif origin is float and type(value) is int:
        return float(value)
    elif type(value) is origin or (value is None and origin is type(None)):
        return value
    raise UserError(f"{path} must be {_spell(kind)}, got {value!r} ({where})")


def _spell(kind: Any) -> str:
    return kind.__name__ if type(kind) is type else str(kind).replace("typing.", "")


def _unknown(key: str, known: Iterable[str], where: str) -> UserError:
    known = list(known)
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known) or 'none'}"
    return UserError(f"unknown key {key!r}; {hint} ({where})")


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config as {dotted key: value}, tuples as lists."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            leaves.update(flat(value, f"{prefix}{key}."))
        else:
            leaves[f"{prefix}{key}"] = json.loads(json.dumps(value))
    return leaves


def arguments(text: str, **known: Any) -> dict[str, Any]:
    """Reads a config file's argument, `name=value,name=value`.

    Args:
      text: what stands behind the colon of `--config=FILE:ARG`; may be empty.
      **known: every name that may be given, with its default, whose type the value takes.

    Raises:
      UserError: an unknown name (with the nearest one), or a value of another type.
    """
    values = dict(known)
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in known:
            raise _unknown(name, known, "config argument")
        try:
            values[name] = type(known[name])(value)
        except ValueError:
            wanted = type(known[name]).__name__
            raise UserError(f"{name} must be {wanted}, got {value!r} (config argument)") from None
    return values


def load(
    argv: Sequence[str], *, saved: ConfigDict | None = None
) -> tuple[ConfigDict, str, list[str]]:
    """Reads `--config=FILE[:ARG]` and `--config.a.b=VALUE` overrides, in any order.

    The file defines `get_config()`, or `get_config(arg)`, which returns a ConfigDict. Overrides
    are read by the type that the field has there (tuples and mappings as Python literals); `None`
    unsets a field, and of a repeated override the last one counts.

    Args:
      argv: the words of the command line.
      saved: overridden instead where `argv` names no file; the run then has no name of its own.

    Returns:
      The config, the run's name (the file's name and its argument), and the words of `argv` that
      are not about the config.

    Raises:
      UserError: no file is named, it is absent or fails (with its line), or an override names an
        unknown key (with the nearest one) or does not fit its field.
    """
    source, overrides, rest = _sort_out(argv)
    path, _, argument = source.partition(":")
    if source:
        given = [argument] if argument else []
        config = run_file(Path(path), "get_config", *given, kind="config file")
        if not isinstance(config, ConfigDict):
            raise UserError(f"{path}: get_config() must return a ConfigDict, got {config!r}")
    elif saved is not None:
        config = saved
    else:
        raise UserError("no config is named; add --config=FILE, for instance a file of configs/")
    for key, text in overrides.items():
        _override(config, key, text)
    name = Path(path).stem + (f"-{argument}" if argument else "")
    return config, re.sub(r"[^\w.=,+-]+", "-", name), rest


def _sort_out(argv: Sequence[str]) -> tuple[str, dict[str, str], list[str]]:
    """Splits the words into the config's source, overrides {dotted key: whole flag}, the rest."""
    source, rest = "", []
    overrides: dict[str, str] = {}
    words = iter(argv)
    for word in words:
        if word == "--config":
            source = next(words, "")
        elif word.startswith("--config="):
            source = word.removeprefix("--config=")
        elif match := re.match(r"--(?:no)?config\.([^=]*)", word):
            overrides.pop(match[1], None)
            overrides[match[1]] = word
        else:
            rest.append(word)
    return source, overrides, rest


def run_file(path: Path, function: str, *args: str, kind: str) -> Any:
    """Runs a Python file and returns what one of its functions gives.

    Args:
      path: the file.
      function: the name that it must define.
      *args: what the function is called with.
      kind: what the file is called in messages, for instance "config file".

    Raises:
      UserError: the file is absent, fails (with its line), or defines no such function.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{kind} {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{kind} {path} is not UTF-8 at byte {error.start}") from None
    names: dict[str, Any] = {"__file__": str(path), "__name__": path.stem}
    try:
        exec(compile(text, str(path), "exec"), names)
        if function not in names:
            raise UserError(f"{kind} {path} defines no {function}()")
        return names[function](*args)
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(f"{error.filename}:{error.lineno}: {error.msg}") from None
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = f":{frames[-1].lineno}" if frames else ""
        message = " ".join(str(error.args[0] if error.args else error).split())
        raise UserError(f"{path}{line}: {type(error).__name__}: {message}") from None


def _override(config: ConfigDict, key: str, flag: str) -> None:
    """Sets one field from its flag, whose value config_flags reads by the type of the field.

    Its own section is handed over under a shortened flag, because config_flags answers an unknown
    section with a bare KeyError.
    """
    from absl import flags
    from ml_collections import config_flags

    section, path = config, ""
    *parents, last = key.split(".")
    for name in parents:
        if name not in section:
            raise _unknown(f"{path}{name}", [f"{path}{k}" for k in section], "command line")
        section, path = section[name], f"{path}{name}."
        if not isinstance(section, ConfigDict):
            raise UserError(f"{path.rstrip('.')} is a value and has no {last!r} (command line)")
    if last not in section and section.is_locked:
        raise _unknown(key, [f"{path}{k}" for k in section], "command line")
    try:
        if flag.endswith("=None"):
            section[last] = None
        else:
            prefix, equals, value = flag.partition("=")
            local = f"{prefix.removesuffix(key)}{last}{equals}{value}"
            values = flags.FlagValues()
            config_flags.DEFINE_config_dict(
                "config",
                section,
                flag_values=values,
                lock_config=False,
                accept_new_attributes=True,
                sys_argv=["", local],
            )
            values(["", local])
    except (flags.Error, TypeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split()).rpartition(f"{last}={flag.partition('=')[2]}: ")[2]
        raise UserError(f"{flag}: {reason} (command line)") from None
