"""The key/value cache of decoding: a slot's number is the position of its token.

So right-padded prompts of different lengths, any split of a prompt into pieces, and rows at
different positions need nothing special: a query at position t attends slots 0..t, and padding
writes nothing. Slots above a row's position hold leftovers that no query reaches before they are
overwritten.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from dlm.core.errors import UserError
from dlm.models.config import ModelConfig

Slots = tuple[Array, Array]
LONG = 512  # tokens: as many as the cache has slots, and no fewer than these, are read by the same
# attention as a row of training, without T x T scores on a CPU and on a GPU in 16 bits; below, that
# would take as long and longer to compile


class Cache(NamedTuple):
    """Keys and values of one dialogue a row.

    Attributes:
      layers: L pairs (keys, values), each [B, K, S, H]: a head's slots lie side by side, which
        halves the time of one query's attention on a CPU. One array a layer and never a stack,
        so that a donated cache is updated in place.
    """

    layers: tuple[Slots, ...]

    @property
    def length(self) -> int:
        """S, the number of slots."""
        return self.layers[0][0].shape[2]


def empty_cache(config: ModelConfig, batch: int, length: int, dtype: str = "float32") -> Cache:
    """Makes a cache of `length` slots for `batch` rows.

    Raises:
      UserError: the model reads fewer positions than `length`.
    """
    if length > config.max_length:
        raise UserError(
            f"a cache of {length} slots goes beyond the model's max_length={config.max_length}"
        )
    shape = (batch, config.kv_heads, length, config.head_size)
    return Cache(
        tuple((jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(config.num_layers))
    )


def longer(cache: Cache, length: int) -> Cache:
    """Returns the cache with empty slots added behind, `length` in all."""
    behind = ((0, 0), (0, 0), (0, length - cache.length), (0, 0))
    return jax.tree.map(lambda slots: jnp.pad(slots, behind), cache)


def write(slots: Array, new: Array, positions: Array, segment_ids: Array) -> Array:
    """Writes [B, T, K, H] into [B, K, S, H] at the tokens' positions; padding writes nothing."""
    index = jnp.where(segment_ids > 0, positions, slots.shape[2])
    rows = jnp.arange(slots.shape[0])[:, None]
    return slots.at[rows, :, index].set(new.astype(slots.dtype), mode="drop")


def readable(length: int, positions: Array, segment_ids: Array) -> Array:
    """Which of `length` slots each token attends, [B, T, S] bool: those up to its own position."""
    slots = jnp.arange(length, dtype=jnp.int32)
    return (slots <= positions[:, :, None]) & (segment_ids > 0)[:, :, None]


def check_room(cache: Cache, positions: ArrayLike, segment_ids: ArrayLike) -> None:
    """Refuses tokens that the cache has no slot for; call it before the compiled step.

    Args:
      cache: of S slots.
      positions: [B, T] int32 as given to the model; not traced.
      segment_ids: [B, T] int32 likewise.

    Raises:
      UserError: a token that is not padding stands at position S or beyond; or T is S, at least
        `LONG`, and the tokens are not the first of their rows.
    """
    positions, real = np.asarray(positions), np.asarray(segment_ids) > 0
    last = np.max(np.where(real, positions, -1), initial=-1)
    if last >= cache.length:
        raise UserError(
            f"position {last} is beyond the cache of {cache.length} slots; "
            "shorten the dialogue or make the cache longer"
        )
    if LONG <= cache.length == positions.shape[1]:
        first = np.min(np.where(real, positions, cache.length), axis=1)
        late = first[(first > 0) & (first < cache.length)]
        if len(late):
            raise UserError(
                f"tokens from position {late[0]} on, as many as the cache has slots: what was "
                "read before them would be passed over; give fewer at once"
            )
