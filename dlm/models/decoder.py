"""The decoder: Linen modules over a plain nested dict of parameters, and the pure functions of it.

Letters: B rows, T tokens, D width, N query heads, K key/value heads, H head width, F feed-forward
width, V vocabulary, L layers. Parameters are float32, one sub-tree a layer:

    embedding/tokens [V, D]                      embedding/positions [max_length, D] (learned)
    embedding/new_tokens [V_new, D]              (grown: the last rows of V, see `vocabulary`)
    layers/3/norm_attention/scale [D]            (.../bias)
    layers/3/attention/query/kernel [D, N, H]    key, value [D, K, H]    (.../bias [N, H])
    layers/3/attention/output/kernel [N, H, D]   (.../bias [D])
    layers/3/norm_mlp/scale [D]
    layers/3/mlp/up/kernel [D, F]                gate (swiglu)    down/kernel [F, D]
    norm/scale [D]                               head/kernel [V, D] (untied), new_kernel (grown)
                                                 head/mask [V] bool (masked)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, overload

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dlm.core.errors import UserError
from dlm.models.by_output import by_output_product
from dlm.models.cache import Cache
from dlm.models.config import ModelConfig
from dlm.models.layers import Layers, Norm, Tokens, drop, rotation_of
from dlm.models.vocabulary import Kernel, hide, look_up


class Embedding(nn.Module):
    """Token embedding, plus that of the position where positions are learned."""

    config: ModelConfig

    @nn.compact
    def __call__(self, tokens: Array, positions: Array, dtype: Any) -> Array:
        """Looks up [B, T] and returns [B, T, D]."""
        config = self.config
        initial = nn.initializers.normal(config.init_stddev)
        table = self.param("tokens", initial, (config.vocab_size - config.new_tokens, config.width))
        new = None
        if config.new_tokens:
            new = self.param("new_tokens", initial, (config.new_tokens, config.width))
        x = look_up(table, new, tokens)
        if config.position == "learned":
            x = x + self.param("positions", initial, (config.max_length, config.width))[positions]
        return x.astype(dtype)


class Head(nn.Module):
    """Holds what the head has beside a tied embedding; logits are made outside: `Model.logits`."""

    config: ModelConfig

    @nn.compact
    def __call__(self) -> None:
        """Declares the parameters."""
        config = self.config
        initial = nn.initializers.normal(config.init_stddev)
        if not config.tied:
            self.param("kernel", initial, (config.vocab_size - config.new_tokens, config.width))
            if config.new_tokens:
                self.param("new_kernel", initial, (config.new_tokens, config.width))
        if config.masked:
            self.param("mask", nn.initializers.ones, (config.vocab_size,), bool)


class Decoder(nn.Module):
    """Tokens to hidden states; see `Model.hidden`."""

    config: ModelConfig
    dtype: Any = jnp.float32
    scans: tuple[int, ...] = ()

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
        x, cache = Layers(config, self.scans, name="layers")(x, read, cache)
        Head(config, name="head")()
        return Norm(config, name="norm")(x), cache


@dataclass(frozen=True)
class Model:
    """A decoder as pure functions of its parameters.

    Attributes:
      config: its parts and sizes, `vocab_size` given.
      dtype: of activations and products, "float32" or "bfloat16"; parameters, softmax and norm
        statistics are float32 either way.
      scans: where `config.scan_layers`, lengths of the stretches of layers that are scanned; () =
        all in one. See `scanned_apart`.

    Raises:
      UserError: the config has no vocabulary size.
    """

    config: ModelConfig
    dtype: str = "float32"
    scans: tuple[int, ...] = ()

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
          cache: keys and values of one dialogue a row, of which `tokens` (segment 1) are the next,
            or the first where T is the number of its slots; see `cache.check_room`, which refuses
            tokens that it has no slot for.
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

    def head_kernel(self, params: Any) -> Kernel:
        """The head's kernel: the token embedding where it is tied."""
        tied = self.config.tied
        tree = params["embedding"] if tied else params["head"]
        names = ("tokens", "new_tokens") if tied else ("kernel", "new_kernel")
        mask = params["head"]["mask"] if self.config.masked else None
        return Kernel(tuple(tree[name] for name in names if name in tree), mask)

    def logits(self, params: Any, hidden: Array) -> Array:
        """Logits [..., V] float32 of hidden states [..., D]; the product in the model's dtype.

        Those of masked tokens are the lowest finite number, see `vocabulary.hide`.
        """
        parts, mask = self.head_kernel(params)
        wide = jnp.promote_types(hidden.dtype, jnp.float32)

        def product(part: Array) -> Array:
            if hidden.ndim == 2:
                return by_output_product(hidden, part, wide)
            return jnp.einsum("...D,VD->...V", hidden, part, preferred_element_type=wide)

        logits = [product(part.astype(hidden.dtype)) for part in parts]
        return hide(jnp.concatenate(logits, axis=-1), mask)

    def _decoder(self) -> Decoder:
        config = self.config
        scans = (self.scans or (config.num_layers,)) if config.scan_layers else ()
        return Decoder(config, jnp.dtype(self.dtype), scans)


def scanned_apart(model: Model, trainable: Mapping[str, bool]) -> Model:
    """The model whose scans hold neighbours of which the same leaves are trained.

    A scan over frozen and trained layers together would run the backward pass of all of them.

    Args:
      model: any.
      trainable: {path: bool} of its parameters.
    """
    trained: list[set[str]] = [set() for _ in range(model.config.num_layers)]
    for path, value in trainable.items():
        room, _, rest = path.partition("/")
        if value and room == "layers":
            number, _, leaf = rest.partition("/")
            trained[int(number)].add(leaf)
    return replace(model, scans=tuple(len(list(group)) for _, group in groupby(trained)))
