"""The decoder: Linen modules over a plain nested dict of parameters, and the pure functions of it.

Letters: B rows, T tokens, D width, N query heads, K key/value heads, H head width, F feed-forward
width, V vocabulary, L layers. Parameters are float32, one sub-tree a layer:

    embedding/tokens [V, D]                      embedding/positions [max_length, D] (learned)
    layers/3/norm_attention/scale [D]            (.../bias)
    layers/3/attention/query/kernel [D, N, H]    key, value [D, K, H]    (.../bias [N, H])
    layers/3/attention/output/kernel [N, H, D]   (.../bias [D])
    layers/3/norm_mlp/scale [D]
    layers/3/mlp/up/kernel [D, F]                gate (swiglu)    down/kernel [F, D]
    norm/scale [D]                               head/kernel [V, D] (untied)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, overload

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dlm.core.errors import UserError
from dlm.models.by_output import by_output_product
from dlm.models.cache import Cache
from dlm.models.config import ModelConfig
from dlm.models.layers import Layers, Norm, Tokens, drop, rotation_of


class Embedding(nn.Module):
    """Token embedding, plus that of the position where positions are learned."""

    config: ModelConfig

    @nn.compact
    def __call__(self, tokens: Array, positions: Array, dtype: Any) -> Array:
        """Looks up [B, T] and returns [B, T, D]."""
        config = self.config
        initial = nn.initializers.normal(config.init_stddev)
        x = self.param("tokens", initial, (config.vocab_size, config.width))[tokens]
        if config.position == "learned":
            x = x + self.param("positions", initial, (config.max_length, config.width))[positions]
        return x.astype(dtype)


class Head(nn.Module):
    """Holds the kernel of an untied head; logits are made outside, see `Model.logits`."""

    config: ModelConfig

    @nn.compact
    def __call__(self) -> Array:
        """Returns the kernel [V, D]."""
        config = self.config
        initial = nn.initializers.normal(config.init_stddev)
        return self.param("kernel", initial, (config.vocab_size, config.width))


class Decoder(nn.Module):
    """Tokens to hidden states; see `Model.hidden`."""

    config: ModelConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        tokens: Array,
        positions: Array,
        segment_ids: Array,
        cache: Cache | None = None,
        dropout_keys: Array | None = None,
    ) -> tuple[Array, Cache | None]:
        """Returns hidden states [B, T, D] after the final norm, and the cache."""
        config = self.config
        rotation = rotation_of(positions, config) if config.position == "rotary" else None
        read = Tokens(segment_ids, positions, rotation, dropout_keys)
        x = Embedding(config, name="embedding")(tokens, positions, self.dtype)
        x = drop(x, read, 0, config)
        x, cache = Layers(config, name="layers")(x, read, cache)
        if not config.tied:
            Head(config, name="head")()
        return Norm(config, name="norm")(x), cache


@dataclass(frozen=True)
class Model:
    """A decoder as pure functions of its parameters.

    Attributes:
      config: its parts and sizes, `vocab_size` given.
      dtype: of activations and products, "float32" or "bfloat16"; parameters, softmax and norm
        statistics are float32 either way.

    Raises:
      UserError: the config has no vocabulary size.
    """

    config: ModelConfig
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not self.config.vocab_size:
            raise UserError("model.vocab_size=0: give the number of tokens, or take a tokenizer's")

    def init(self, key: Array) -> dict:
        """Draws parameters as GPT-2 does: normal, residual projections smaller by sqrt(2 L)."""
        one = jnp.ones((1, 1), jnp.int32)
        return self._decoder().init(key, one, 0 * one, one)["params"]

    @overload
    def hidden(
        self,
        params: Any,
        tokens: Array,
        positions: Array,
        segment_ids: Array,
        *,
        cache: None = None,
        dropout_keys: Array | None = None,
    ) -> Array: ...

    @overload
    def hidden(
        self,
        params: Any,
        tokens: Array,
        positions: Array,
        segment_ids: Array,
        *,
        cache: Cache,
        dropout_keys: Array | None = None,
    ) -> tuple[Array, Cache]: ...

    def hidden(
        self,
        params: Any,
        tokens: Array,
        positions: Array,
        segment_ids: Array,
        *,
        cache: Cache | None = None,
        dropout_keys: Array | None = None,
    ) -> Array | tuple[Array, Cache]:
        """Reads tokens: hidden states after the final norm.

        Args:
          params: as `init` draws them.
          tokens: [B, T] int32 in [0, V).
          positions: [B, T] int32, rising along a row within a segment.
          segment_ids: [B, T] int32, 0 = padding, whose hidden states mean nothing.
          cache: keys and values of one dialogue a row, of which `tokens` (segment 1) are the next;
            see `cache.check_room`, which refuses tokens that it has no slot for.
          dropout_keys: [B] typed keys, a row's own; None = no dropout.

        Returns:
          [B, T, D] of the model's dtype; with a cache, also the cache with these tokens written.

        Raises:
          UserError: T is above the model's `max_length`.
        """
        if tokens.shape[1] > self.config.max_length:
            raise UserError(
                f"rows of {tokens.shape[1]} tokens are beyond model.max_length="
                f"{self.config.max_length}"
            )
        result: Any = self._decoder().apply(
            {"params": params}, tokens, positions, segment_ids, cache, dropout_keys
        )
        return result[0] if cache is None else result

    def head_kernel(self, params: Any) -> Array:
        """The head's kernel [V, D]: the token embedding where it is tied."""
        return params["embedding"]["tokens"] if self.config.tied else params["head"]["kernel"]

    def logits(self, params: Any, hidden: Array) -> Array:
        """Logits [..., V] float32 of hidden states [..., D]; the product in the model's dtype."""
        kernel = self.head_kernel(params).astype(hidden.dtype)
        wide = jnp.promote_types(hidden.dtype, jnp.float32)
        if hidden.ndim == 2:
            return by_output_product(hidden, kernel, wide)
        return jnp.einsum("...D,VD->...V", hidden, kernel, preferred_element_type=wide)

    def _decoder(self) -> Decoder:
        return Decoder(self.config, jnp.dtype(self.dtype))
