"""A family's weight table: where each of our leaves lies in the tensors of other libraries.

Letters: I and O, the product of a projection's input and output axes. A kernel of ours is
[*inputs, *outputs], for instance [D, N, H]; as a matrix it is [I, O].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Layout = Literal["huggingface", "gguf"]


@dataclass(frozen=True)
class Weight:
    """One leaf of ours, and which part of which tensor of theirs holds it.

    Attributes:
      path: ours, such as `layers/3/attention/query/kernel`.
      name: theirs.
      inputs: how many leading axes of ours are inputs; 0 for a vector.
      transposed: theirs is [O, I].
      part: (index, count): theirs joins `count` of our leaves along O, this is number `index`.
      adjacent: theirs has the two numbers of a rotary pair side by side, ours half a head apart.
    """

    path: str
    name: str
    inputs: int
    transposed: bool = False
    part: tuple[int, int] = (0, 1)
    adjacent: bool = False

    def their_shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the whole tensor of theirs, given that of our leaf."""
        matrix = self._matrix_shape(ours)
        joined = (*matrix[:-1], self.part[1] * matrix[-1])
        return joined[::-1] if self.transposed else joined

    def read(self, theirs: np.ndarray, ours: tuple[int, ...]) -> np.ndarray:
        """Our leaf out of their tensor: a view where that is possible."""
        index, count = self.part
        joined = theirs.T if self.transposed else theirs
        size = joined.shape[-1] // count
        leaf = joined[..., index * size : (index + 1) * size].reshape(ours)
        return _swap_pairs(leaf, 2) if self.adjacent else leaf

    def matrix(self, leaf: np.ndarray) -> np.ndarray:
        """Our leaf as the [I, O] matrix or [O] vector that theirs is joined from."""
        leaf = _swap_pairs(leaf, leaf.shape[-1] // 2) if self.adjacent else leaf
        return leaf.reshape(self._matrix_shape(leaf.shape))

    def _matrix_shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        inputs, outputs = math.prod(ours[: self.inputs]), math.prod(ours[self.inputs :])
        return (inputs, outputs) if self.inputs else (outputs,)


def join(weights: Sequence[Weight], leaves: Sequence[np.ndarray]) -> np.ndarray:
    """Their tensor, from the leaves that it joins in the order of their parts; inverts `read`."""
    parts = [weight.matrix(leaf) for weight, leaf in zip(weights, leaves, strict=True)]
    joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
    return joined.T if weights[0].transposed else joined


def _swap_pairs(leaf: np.ndarray, inner: int) -> np.ndarray:
    """Reads the last axis as [-1, inner] and swaps the two."""
    split = leaf.reshape(*leaf.shape[:-1], -1, inner)
    return split.swapaxes(-1, -2).reshape(leaf.shape)


@dataclass(frozen=True)
class Row:
    """One line of a family's table; `{i}` in paths and names stands for the layer's number.

    Attributes:
      path: ours.
      huggingface: their name there.
      gguf: their name there.
      inputs: how many leading axes of ours are inputs.
      projection: a matrix product, which GGUF (and PyTorch's Linear) store as [O, I].
      part: see `Weight`.
      rotary: rows that rotary positions turn.
    """

    path: str
    huggingface: str
    gguf: str
    inputs: int = 0
    projection: bool = False
    part: tuple[int, int] = (0, 1)
    rotary: bool = False

    def weight(self, layout: Layout, *, transposed: bool) -> Weight:
        """The row in one layout; `transposed`: whether projections are stored as [O, I] there."""
        return Weight(
            path=self.path,
            name=getattr(self, layout),
            inputs=self.inputs,
            transposed=self.projection and transposed,
            part=self.part,
            adjacent=self.rotary and layout == "gguf",
        )


def expand(weights: Sequence[Weight], num_layers: int) -> list[Weight]:
    """Repeats the weights of a layer, its number written for `{i}`; the others come first."""
    once = [weight for weight in weights if "{i}" not in weight.path]
    repeated = [weight for weight in weights if "{i}" in weight.path]
    return once + [
        replace(weight, path=weight.path.format(i=i), name=weight.name.format(i=i))
        for i in range(num_layers)
        for weight in repeated
    ]
