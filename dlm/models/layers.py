"""The layers and what they are made of: projections, norms, rotary positions, attention, mlp.

Norms and activations keep nothing but their inputs for the gradient (`jax.checkpoint`): making them
again is cheaper than writing and reading what lies between.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from dlm.models.attention import attention, cached_attention
from dlm.models.by_output import by_output_product
from dlm.models.cache import LONG, Cache, Slots, readable, write
from dlm.models.config import ModelConfig
from dlm.models.dropout import dropout
from dlm.models.rope import frequencies


class Projection(NamedTuple):
    """A projection as a matrix.

    Attributes:
      matrix: [I, O], inputs by outputs; where `by_output` is set [O, I].
      bias: [O] or None.
      by_output: see `held_by_output`.
    """

    matrix: Array
    bias: Array | None
    by_output: bool


class Linear(nn.Module):
    """Holds a projection [*inputs, *outputs]; `product` applies it.

    Attributes:
      inputs, outputs: shapes in front of and behind it.
      bias: whether it has one [*outputs].
      stddev: of its initial values.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    bias: bool
    stddev: float

    @nn.compact
    def __call__(self, dtype: Any) -> Projection:
        """The kernel as a matrix of `dtype`, and the bias as a vector or None."""
        by_output = self.has_variable("params", "by_output")
        if by_output:
            matrix: Array = self.get_variable("params", "by_output").astype(dtype)
        else:
            shape = (*self.inputs, *self.outputs)
            kernel = self.param("kernel", nn.initializers.normal(self.stddev), shape)
            matrix = kernel.astype(dtype).reshape(math.prod(self.inputs), -1)
        if not self.bias:
            return Projection(matrix, None, by_output)
        bias = self.param("bias", nn.initializers.zeros, self.outputs).astype(dtype)
        return Projection(matrix, bias.ravel(), by_output)


def product(x: Array, *linears: Linear) -> list[Array]:
    """Applies projections to x [B, T, I]; a result [B, T, *outputs] each.

    Kernels are set side by side for one matrix product, which pays for many tokens; those held by
    output are multiplied one by one.
    """
    held = [linear(x.dtype) for linear in linears]
    matrices = [projection.matrix for projection in held]
    biases = [projection.bias for projection in held if projection.bias is not None]
    if held[0].by_output:
        flat = x.reshape(-1, x.shape[-1])
        parts = [by_output_product(flat, matrix) for matrix in matrices]
        if biases:
            parts = [part + bias for part, bias in zip(parts, biases, strict=True)]
    else:
        y = x @ jnp.concatenate(matrices, axis=1)
        if biases:
            y = y + jnp.concatenate(biases)
        sizes = [math.prod(linear.outputs) for linear in linears]
        parts = jnp.split(y, [sum(sizes[:i]) for i in range(1, len(sizes))], axis=-1)
    return [
        part.reshape(*x.shape[:2], *linear.outputs)
        for part, linear in zip(parts, linears, strict=True)
    ]


class Norm(nn.Module):
    """RMSNorm (Zhang and Sennrich 2019) or LayerNorm (Ba et al. 2016); statistics in float32."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalises the last axis of [B, T, D]."""
        config = self.config
        centred = config.norm == "layer"
        scale = self.param("scale", nn.initializers.ones, (config.width,))
        bias = None
        if centred and config.bias:
            bias = self.param("bias", nn.initializers.zeros, (config.width,))

        def normalise(x: Array, scale: Array, bias: Array | None) -> Array:
            wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
            if centred:
                wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
            variance = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
            y = wide * jax.lax.rsqrt(variance + config.norm_epsilon) * scale
            return (y if bias is None else y + bias).astype(x.dtype)

        return jax.checkpoint(normalise)(x, scale, bias)


def rotation_of(positions: Array, config: ModelConfig) -> tuple[Array, Array]:
    """Cosine and sine [B, T, 1, H/2] of position * frequency, float32; see `rope.frequencies`."""
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies(config)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Rotates pairs (i, i + H/2) of x [B, T, N, H] by the angles of their positions.

    Source: Su et al. 2021, arXiv:2104.09864, equation 34, pairing halves as Llama's weights do.
    """
    first, second = jnp.split(x, 2, axis=-1)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


class Tokens(NamedTuple):
    """What every layer reads of the tokens.

    Attributes:
      segments, positions: [B, T] int32.
      rotation: (cos, sin) [B, T, 1, H/2] float32 of the positions, or None.
      dropout_keys: [B] typed keys, or None for no dropout.
    """

    segments: Array
    positions: Array
    rotation: tuple[Array, Array] | None
    dropout_keys: Array | None


class Attention(nn.Module):
    """Causal self-attention with grouped key/value heads."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array, tokens: Tokens, slots: Slots | None) -> tuple[Array, Slots | None]:
        """Attends; keys and values are first written to `slots`, where there are any."""
        config = self.config
        width, heads, head_size = config.width, config.num_heads, config.head_size
        kind = config.bias, config.init_stddev
        query, key, value = product(
            x,
            Linear((width,), (heads, head_size), *kind, name="query"),
            Linear((width,), (config.kv_heads, head_size), *kind, name="key"),
            Linear((width,), (config.kv_heads, head_size), *kind, name="value"),
        )
        if tokens.rotation is not None:
            query, key = rotate(query, *tokens.rotation), rotate(key, *tokens.rotation)
        segments, positions = tokens.segments, tokens.positions
        if slots is not None:
            slots = (
                write(slots[0], key, positions, segments),
                write(slots[1], value, positions, segments),
            )
        if slots is None or LONG <= x.shape[1] == slots[0].shape[2]:  # they fill an empty cache
            out = attention(
                query,
                key,
                value,
                query_segments=segments,
                key_segments=segments,
                query_positions=positions,
                key_positions=positions,
                implementation=config.attention if slots is None else "auto",
            )
        else:
            allowed = readable(slots[0].shape[2], positions, segments)
            out = cached_attention(query, *slots, allowed)
        output = Linear(
            (heads, head_size), (width,), config.bias, _residual_stddev(config), name="output"
        )
        return product(out.reshape(*x.shape[:2], -1), output)[0], slots


def _swiglu(gate: Array, value: Array) -> Array:
    return jax.nn.silu(gate) * value


class Mlp(nn.Module):
    """The feed-forward part: SwiGLU (Shazeer 2020) or GELU in its tanh form."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [B, T, D] to [B, T, D], each token by itself."""
        config = self.config
        ends, kind = ((config.width,), (config.ffn_size,)), (config.bias, config.init_stddev)
        up = Linear(*ends, *kind, name="up")
        if config.mlp == "swiglu":
            gate, value = product(x, Linear(*ends, *kind, name="gate"), up)
            inner = jax.checkpoint(_swiglu)(gate, value)
        else:
            inner = jax.checkpoint(jax.nn.gelu)(product(x, up)[0])
        down = Linear(*ends[::-1], config.bias, _residual_stddev(config), name="down")
        return product(inner, down)[0]


class Layer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x: Array, tokens: Tokens, slots: Slots | None, site: int | Array
    ) -> tuple[Array, Slots | None]:
        """Returns the new [B, T, D], and the slots with these tokens written.

        `site` is the number of its first dropout.
        """
        config = self.config
        part, slots = Attention(config, name="attention")(
            Norm(config, name="norm_attention")(x), tokens, slots
        )
        x = x + drop(part, tokens, site, config)
        part = Mlp(config, name="mlp")(Norm(config, name="norm_mlp")(x))
        return x + drop(part, tokens, site + 1, config), slots


# What a layer keeps for its gradient, by `model.remat`.
KEPT = {
    "layers": jax.checkpoint_policies.nothing_saveable,
    "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class Layers(nn.Module):
    """The stack of layers, named 0, 1, ...

    Attributes:
      scans: lengths of stretches of layers, each compiled as one layer and scanned; () = none is.
    """

    config: ModelConfig
    scans: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array, tokens: Tokens, cache: Cache | None) -> tuple[Array, Cache | None]:
        """Runs all layers; see `Layer`. With a cache nothing is scanned, see `Cache.layers`."""
        trained = cache is None and not self.is_initializing()
        written = []
        for stretch in _stretches(self.config.num_layers, self.scans if trained else ()):
            if trained and (len(stretch) > 1 or self.config.remat != "none"):
                x = self._run(x, tokens, stretch)
                continue
            i = stretch[0]
            layer = Layer(self.config, name=str(i))
            x, slots = layer(x, tokens, None if cache is None else cache.layers[i], _site(i))
            written += [] if slots is None else [slots]
        return x, None if cache is None else Cache(tuple(written))

    def _run(self, x: Array, tokens: Tokens, stretch: range) -> Array:
        """Runs one layer, or stacks the parameters of some, here and not before, and scans them."""
        params = [self.variables["params"][str(i)] for i in stretch]
        layer = Layer(self.config, parent=None)

        def body(x: Array, item: tuple[Any, Array]) -> tuple[Array, None]:
            params, site = item
            return layer.apply({"params": params}, x, tokens, None, site)[0], None

        alone = len(params) == 1
        if self.config.remat != "none":
            # Within a scan nothing can be merged with the forward pass; elsewhere it would be.
            policy = KEPT[self.config.remat]
            body = jax.checkpoint(body, policy=policy, prevent_cse=alone)
        if alone:
            return body(x, (params[0], _site(stretch[0])))[0]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
        return jax.lax.scan(body, x, (stacked, _site(jnp.array(stretch))))[0]


def _stretches(num_layers: int, lengths: tuple[int, ...]) -> Iterator[range]:
    """The layers of each stretch; those beyond the lengths stand alone."""
    start = 0
    for length in (*lengths, *[1] * (num_layers - sum(lengths))):
        yield range(start, start + length)
        start += length


def _site(layer: Any) -> Any:
    """The number of a layer's first dropout; 0 is that of the embedding."""
    return 1 + 2 * layer


def drop(x: Array, tokens: Tokens, site: int | Array, config: ModelConfig) -> Array:
    """Dropout at a site of the model, where it is on."""
    if tokens.dropout_keys is None or not config.dropout:
        return x
    return dropout(x, tokens.dropout_keys, site, config.dropout)


def _residual_stddev(config: ModelConfig) -> float:
    """GPT-2's: the 2 L parts that add to the residual stream start smaller (Radford 2019, 2.3)."""
    return config.init_stddev / math.sqrt(2 * config.num_layers)
