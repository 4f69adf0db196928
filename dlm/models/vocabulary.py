"""The vocabulary's rows: a head in parts, tokens that get no probability, and growth.

A pretrained model may need tokens that it never had, and may have rows that no token uses. Rows
that are added are leaves of their own, `embedding/new_tokens` and, untied, `head/new_kernel`: they
are trained also where the rest is frozen, and the pretrained tables are never copied. `head/mask`
says which tokens may be written; the others are only read, or are padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from dlm.core.errors import UserError
from dlm.models.config import ModelConfig

TABLES = (("tokens", "new_tokens"), ("kernel", "new_kernel"))  # of the embedding, of the head


class Kernel(NamedTuple):
    """The head's weights, a row for each token, and which tokens may be written.

    Attributes:
      parts: stretches of the vocabulary in order, [V_1, D], [V_2, D], ...
      mask: [V] bool, False = a token that gets no probability; None = every token may be written.
    """

    parts: tuple[Array, ...]
    mask: Array | None = None


def hide(logits: Array, mask: Array | None) -> Array:
    """Gives masked tokens the lowest finite logit: no probability, no gradient, and no NaN.

    Args:
      logits: [..., V] float.
      mask: [V] bool, see `Kernel`.
    """
    return logits if mask is None else jnp.where(mask, logits, jnp.finfo(logits.dtype).min)


def is_hidden(logits: Any) -> Any:
    """Whether logits (JAX or numpy) are those of masked tokens: bool, of the same shape."""
    return logits == jnp.finfo(logits.dtype).min


def look_up(table: Array, new: Array | None, tokens: Array) -> Array:
    """Rows of the embedding [V - V_new, D], or of the rows added to it [V_new, D]."""
    if new is None:
        return table[tokens]
    first = len(table)
    old = table[jnp.minimum(tokens, first - 1)]
    return jnp.where(tokens[..., None] < first, old, new[jnp.maximum(tokens - first, 0)])


def fitted(config: ModelConfig, old_tokens: int, num_tokens: int) -> ModelConfig:
    """The config of a model that is to serve a tokenizer, or one that has grown.

    Rows beyond the tokens are padding, which is masked; a tokenizer that grew takes its place.

    Args:
      config: of the model, its vocabulary's size given.
      old_tokens: of the tokenizer that the model knows.
      num_tokens: of the one that it is to serve, which extends it.

    Raises:
      UserError: the model has fewer rows than its tokenizer has tokens.
    """
    if old_tokens > config.vocab_size:
        raise UserError(
            f"model.vocab_size={config.vocab_size} is below the {old_tokens} tokens of its "
            "tokenizer; leave it at 0 for as many rows"
        )
    if num_tokens == old_tokens:
        return replace(config, masked=config.masked or config.vocab_size > old_tokens)
    added = num_tokens - old_tokens
    return replace(config, vocab_size=num_tokens, new_tokens=config.new_tokens + added, masked=True)


def grow(params: Mapping[str, Any], config: ModelConfig, old_tokens: int) -> dict[str, Any]:
    """Adds the rows and the mask that a fitted model has; every old row stays as it is.

    A new row is the mean of those of the old tokens. Its logit is then the mean of theirs, so its
    probability is at most the mean of theirs (the exponential is convex): opening n rows beside V
    takes at most n / (n + V) of the probability of old text, whatever the hidden state is. A random
    row could take nearly all.

    Args:
      params: of the model before `fitted`.
      config: after it.
      old_tokens: as given to it.

    Returns:
      Parameters of the new model. New rows and padding are masked.

    Source: Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models".
    """
    if not config.masked:
        return dict(params)
    embedding, head = dict(params["embedding"]), dict(params.get("head", {}))
    rows = sum(len(embedding[name]) for name in ("tokens", "new_tokens") if name in embedding)
    mask = head.get("mask", jnp.arange(rows) < old_tokens)
    added = config.new_tokens - len(embedding.get("new_tokens", ()))
    if added:
        mask = mask[:old_tokens]
        shares = mask / jnp.sum(mask, dtype=jnp.float32)
        for leaves, (table, new) in ((embedding, TABLES[0]), (head, TABLES[1])):
            if table in leaves:
                leaves[table] = leaves[table][:old_tokens]
                parts = [leaves[name] for name in (table, new) if name in leaves]
                mean = shares @ jnp.concatenate(parts)
                leaves[new] = jnp.concatenate([*parts[1:], jnp.tile(mean, (added, 1))])
    return {**params, "embedding": embedding, "head": {**head, "mask": jnp.pad(mask, (0, added))}}


def opened(params: Mapping[str, Any], tokens: Any) -> dict[str, Any]:
    """Parameters in whose mask these tokens (ids [n]) may be written; the others as before."""
    head = params["head"]
    return {**params, "head": {**head, "mask": head["mask"].at[tokens].set(True)}}


def joined(params: Mapping[str, Any], config: ModelConfig) -> tuple[dict[str, Any], ModelConfig]:
    """The model that others read: one table of all rows for each of the two, and no mask."""
    embedding, head = dict(params["embedding"]), dict(params.get("head", {}))
    head.pop("mask", None)
    for leaves, (table, new) in ((embedding, TABLES[0]), (head, TABLES[1])):
        if new in leaves:
            leaves[table] = jnp.concatenate([leaves[table], leaves.pop(new)])
    whole = {**params, "embedding": embedding, "head": head}
    kept = {name: tree for name, tree in whole.items() if tree}
    return kept, replace(config, new_tokens=0, masked=False)
