"""A mean that is still a total and a count, so that it can be added before it is divided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Mean(NamedTuple):
    """A weighted mean, kept as total and count until everything has been added up.

        value = total / count

    Totals and counts are added over micro-batches, devices and hosts, and divided once: a mean of
    means would favour short answers. The two fields are Python numbers or scalar arrays; the class
    is a pytree of two leaves for JAX, which this module does not import.

    Example:
      >>> Mean(6.0, 3.0).plus(Mean(2.0, 1.0))
      Mean(total=8.0, count=4.0)
    """

    total: Any
    count: Any

    @property
    def value(self) -> float:
        """The mean on the host: 0.0 where nothing was counted. Not for traced values."""
        return float(self.total) / float(self.count) if self.count else 0.0

    def plus(self, other: Mean) -> Mean:
        """Adds totals and counts."""
        return Mean(self.total + other.total, self.count + other.count)


def add(a: Mapping[str, Mean], b: Mapping[str, Mean]) -> dict[str, Mean]:
    """Adds two tables of means key by key; a key of one side alone is kept as it is."""
    return {**a, **{name: a[name].plus(mean) if name in a else mean for name, mean in b.items()}}
