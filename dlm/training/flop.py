"""How many operations a train step cannot do without: a formula of its model and its batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dlm.data.batch import Batch
from dlm.models.config import ModelConfig

FORMULA = "6 (tokens x matrices + 2 x pairs x L N H + supervised x D V), less what is frozen"


def step_flop(
    config: ModelConfig, batch: Batch, trainable: Mapping[str, bool] | None = None
) -> int:
    """Operations of the products that a train step on a batch cannot do without.

    With n tokens, m elements of the layers' matrices, p pairs of a token and a position of its own
    segment up to itself, and s supervised tokens, where everything is trained:

        6 (n m + 2 p L N H + s D V)

    An element of a matrix costs a token 2 operations forward, 2 backward to the input and 2
    backward to itself; a pair meets in two products of N H elements, which cost likewise. The way
    back to the input ends at the lowest layer of which something is trained, and a frozen matrix
    costs no way back to itself. Norms, activations, softmax, the optimiser and whatever is made
    again to save memory count nothing.

    Args:
      config: the model.
      batch: numpy arrays.
      trainable: {path: bool}; None = all.
    """
    held = batch.segment_ids > 0
    tokens, supervised = int(np.sum(held)), int(np.sum(batch.loss_weights > 0))
    pairs = int(np.sum(batch.positions[held].astype(np.int64) + 1))
    trained = None if trainable is None else [path for path in trainable if trainable[path]]

    def some(prefix: str) -> bool:
        return trained is None or any(path.startswith(prefix) for path in trained)

    below, total = some("embedding/"), 0
    for layer in range(config.num_layers):
        below = below or some(f"layers/{layer}/")
        for name, elements in layer_matrices(config).items():
            ways = 1 + below + some(f"layers/{layer}/{name}/kernel")
            total += 2 * ways * tokens * elements
        ways = 1 + 2 * below  # either operand of these products is an activation
        total += 2 * ways * 2 * pairs * config.num_heads * config.head_size
    old = "embedding/tokens" if config.tied else "head/kernel"
    for rows, is_trained in (
        (config.vocab_size - config.new_tokens, some(old)),
        (config.new_tokens, True),
    ):
        ways = 1 + (below or some("norm/")) + is_trained
        total += 2 * ways * supervised * rows * config.width
    return total


def layer_matrices(config: ModelConfig) -> dict[str, int]:
    """The matrices of a layer, `{path within it: number of elements}`."""
    queries, keys = (
        config.width * config.head_size * n for n in (config.num_heads, config.kv_heads)
    )
    up = config.width * config.ffn_size
    matrices = {
        "attention/query": queries,
        "attention/key": keys,
        "attention/value": keys,
        "attention/output": queries,
        "mlp/up": up,
        "mlp/down": up,
    }
    return {**matrices, "mlp/gate": up} if config.mlp == "swiglu" else matrices
