"""Rules over parameter paths: an ordered list of (regex, value), first match wins.

`trainable`, `decay`, sharding, adapter targets and export are all such lists; this module is the
only place that reads them. A path is the keys of a nested dict joined by `/`, for instance
`layers/3/attention/query/kernel`; a regex must match the whole path (`re.fullmatch`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from dlm.core.errors import UserError

T = TypeVar("T")
Rules = Sequence[tuple[str, T]]


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Turns a nested dict into `{path: leaf}`, in the dict's order; empty sub-trees vanish.

    Everything that is not a mapping is a leaf.

    Raises:
      ValueError: a key is not a string or holds a `/`, so its path could not be read back.
    """
    flat: dict[str, Any] = {}
    for key, node in tree.items():
        if not isinstance(key, str) or "/" in key or not key:
            raise ValueError(f"key {key!r} cannot be part of a path")
        if isinstance(node, Mapping):
            flat.update({f"{key}/{path}": leaf for path, leaf in flatten(node).items()})
        else:
            flat[key] = node
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Inverts `flatten`.

    Raises:
      ValueError: one path is a leaf and the beginning of another path at once.
    """
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise ValueError(f"{path}: {key!r} is a leaf and a sub-tree at once")
        if last in node:
            raise ValueError(f"{path}: a leaf and a sub-tree at once")
        node[last] = leaf
    return tree


def resolve(
    rules: Rules[T], paths: Iterable[str], *, name: str, defaults: Rules[T] = ()
) -> dict[str, T]:
    """Gives every path the value of the first rule that matches it.

    Args:
      rules: the user's rules, asked first; each must match at least one path.
      paths: the paths to cover.
      name: the config key that the rules come from, for messages (`optimizer.decay`).
      defaults: rules asked after the user's; they may match nothing.

    Returns:
      `{path: value}` in the order of `paths`.

    Raises:
      UserError: a regex does not compile, a user's rule matches no path, or a path is not covered.
    """
    paths = list(paths)
    table = [(_compile(pattern, name), value) for pattern, value in (*rules, *defaults)]
    for pattern, _ in table[: len(rules)]:
        if not any(pattern.fullmatch(path) for path in paths):
            raise UserError(
                f"{name}: the rule {pattern.pattern!r} matches none of {len(paths)} paths, such as "
                f"{paths[0] if paths else 'none'!r}; it must match a whole path"
            )
    resolved: dict[str, T] = {}
    for path in paths:
        for pattern, value in table:
            if pattern.fullmatch(path):
                resolved[path] = value
                break
        else:
            raise UserError(f"{name}: no rule covers {path!r}; end the list with ('.*', ...)")
    return resolved


def _compile(pattern: str, name: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"{name}: {pattern!r} is not a regular expression: {error}") from None


def split(
    tree: Mapping[str, Any], mask: Mapping[str, bool]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits a nested dict into the leaves whose mask is true and the rest; `merge` inverts it.

    Raises:
      KeyError: a leaf of the tree has no entry in the mask.
    """
    flat = flatten(tree)
    selected = {path: leaf for path, leaf in flat.items() if mask[path]}
    rest = {path: leaf for path, leaf in flat.items() if not mask[path]}
    return unflatten(selected), unflatten(rest)


def merge(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Joins two nested dicts that share no leaf.

    Raises:
      ValueError: a path stands in both.
    """
    flat_a, flat_b = flatten(a), flatten(b)
    if shared := flat_a.keys() & flat_b.keys():
        raise ValueError(f"both trees hold {sorted(shared)[0]!r}")
    return unflatten({**flat_a, **flat_b})


def describe(resolved: Mapping[str, Any], sizes: Mapping[str, int]) -> str:
    """Formats resolved rules as a table, numbers in paths (layers) folded to `*`.

    Args:
      resolved: `{path: value}` from `resolve`.
      sizes: `{path: number of parameters}`.

    Returns:
      Lines `value  leaves  parameters  paths`, then one total a value.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    totals: dict[str, list[int]] = {}
    for path, value in resolved.items():
        folded = "/".join("*" if part.isdigit() else part for part in path.split("/"))
        groups.setdefault((folded, str(value)), []).append(sizes[path])
        totals.setdefault(str(value), []).append(sizes[path])
    rows = [(value, sizes_, path) for (path, value), sizes_ in groups.items()]
    rows += [(value, sizes_, "(all)") for value, sizes_ in totals.items()]
    width = max([len("value"), *(len(value) for value, _, _ in rows)])
    lines = [f"{'value':<{width}}  {'leaves':>6}  {'parameters':>13}  path"]
    lines += [f"{v:<{width}}  {len(s):>6}  {sum(s):>13,}  {path}" for v, s, path in rows]
    return "\n".join(lines)
