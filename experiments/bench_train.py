"""Measures our train step beside that of transformers and torch: same model, same fixed batch.

    python experiments/bench_train.py [--rows=8] [--supervised 1 0.25] [--json]

GPT-2 on the CPU in float32, all cores: dropout 0.1 on embeddings and residuals, none on attention,
gradients clipped, AdamW. Each side has a process and imports of its own; they take turns step by
step, and a step's time is the median. With --json, one JSON object a row.

    GFLOP/s     useful ones: products that a step cannot do without, 6 times the layers' matrices
                and the causal half of attention a token, 6 D V a supervised token
    ceiling     GFLOP/s of the side's own product of two large matrices, the best of four
    memory      peak resident memory of the process, less what it held before the model was made
    compile     what the first step takes longer than the median one
    ratio       of our figure to that of transformers
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dlm.data.batch import Batch, check, empty_batch
from experiments.sides import (
    forget_peak,
    installed,
    resident,
    show,
    show_header,
    take_turns,
    timed,
)

TURN = 64  # tokens; a reply is the supervised end of each turn
HEAD_WIDTH, DROPOUT, LEARNING_RATE, CLIP_NORM = 64, 0.1, 1e-3, 1.0
CEILING_SIZE = 2048
RATIOS = ("tokens/s", "supervised/s", "GFLOP/s", "memory MB")
COLUMNS = ("supervised", "ms/step", *RATIOS, "ceiling", "compile s", "first loss")

Side = tuple[Callable[["Sizes", Batch], Callable[[], float]], Callable[[int], Callable[[], Any]]]


class Sizes(NamedTuple):
    """B rows of T tokens, L layers of width D in heads of 64, vocabulary V; and timed steps."""

    rows: int = 8
    length: int = 512
    layers: int = 6
    width: int = 384
    vocab: int = 50257
    steps: int = 5


def fixed_batch(sizes: Sizes, supervised: float) -> Batch:
    """Seeded random tokens, a dialogue a row, with the last part of each turn supervised.

    Nothing follows a row's last token, so the share is short of `supervised` by one token a row.
    """
    rows, length = sizes.rows, sizes.length
    tokens = np.random.default_rng(0).integers(0, sizes.vocab, (rows, length), np.int32)
    positions = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
    learned = positions % TURN >= TURN * (1 - supervised)
    learned[:, -1] = False
    batch = empty_batch(rows, length, 1)._replace(
        tokens=tokens,
        targets=np.roll(tokens, -1, axis=1),
        loss_weights=learned.astype(np.float32),
        segment_ids=np.ones_like(tokens),
        positions=positions,
        dialogue_ids=np.arange(rows, dtype=np.int32)[:, None],
    )
    return check(batch)


def useful_flop(sizes: Sizes, supervised: int) -> int:
    """Operations of the products that a step with so many supervised tokens cannot do without.

    An element of a matrix costs a token 2 of them forward and 4 backward, and a layer's matrices
    have 12 D^2. In attention a token has T / 2 keys and as many values, each of D elements.
    """
    body = sizes.layers * (12 * sizes.width**2 + sizes.length * sizes.width)
    return 6 * (sizes.rows * sizes.length * body + supervised * sizes.width * sizes.vocab)


def our_side() -> Side:
    """The train step of dlm, made as the verb `train` makes it."""
    from dataclasses import replace

    import jax
    import jax.numpy as jnp

    from dlm.losses.cross_entropy import cross_entropy
    from dlm.losses.objective import make_objective
    from dlm.models import gpt2
    from dlm.models.decoder import Model
    from dlm.training.loop import TrainConfig
    from dlm.training.optimizer import OptimizerConfig, make_optimizer, resolve_trainable
    from dlm.training.step import init_state, make_train_step

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)

    def make_step(sizes: Sizes, batch: Batch) -> Callable[[], float]:
        shape = gpt2.shape(sizes.layers, sizes.width, sizes.width // HEAD_WIDTH)
        shape = replace(shape, vocab_size=sizes.vocab, max_length=sizes.length)
        model = Model(replace(shape, dropout=DROPOUT))
        params = model.init(jax.random.key(0))
        trainable = resolve_trainable(TrainConfig().trainable, params)
        config = OptimizerConfig(learning_rate=LEARNING_RATE, clip_norm=CLIP_NORM)
        optimizer = make_optimizer(config, 1000, params)
        objective = make_objective(cross_entropy, model, train=True)
        step = make_train_step(objective, optimizer, trainable=trainable)
        state = init_state(params, optimizer, trainable, jax.random.key(1))

        def run() -> float:
            nonlocal state
            state, metrics = jax.block_until_ready(step(state, batch))
            loss = metrics.terms["loss"]
            return float(loss.total / loss.count)

        return run

    def make_product(size: int) -> Callable[[], Any]:
        matrix = jnp.ones((size, size))
        product = jax.jit(jnp.matmul)
        return lambda: product(matrix, matrix).block_until_ready()

    return make_step, make_product


def their_side() -> Side:
    """The step of a plain transformers and torch training loop."""
    import torch
    import transformers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)

    def make_step(sizes: Sizes, batch: Batch) -> Callable[[], float]:
        config = transformers.GPT2Config(
            vocab_size=sizes.vocab,
            n_positions=sizes.length,
            n_embd=sizes.width,
            n_layer=sizes.layers,
            n_head=sizes.width // HEAD_WIDTH,
            resid_pdrop=DROPOUT,
            embd_pdrop=DROPOUT,
            attn_pdrop=0.0,
            attn_implementation="sdpa",
        )
        model = transformers.GPT2LMHeadModel(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
        tokens = torch.tensor(batch.tokens, dtype=torch.long)
        learned = np.roll(batch.loss_weights > 0, 1, axis=1)  # labels stand on the tokens learned
        labels = torch.where(torch.tensor(learned), tokens, -100)

        def run() -> float:
            optimizer.zero_grad(set_to_none=True)
            loss = model(tokens, labels=labels, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
            return loss.item()

        return run

    def make_product(size: int) -> Callable[[], Any]:
        matrix = torch.ones(size, size)
        return lambda: matrix @ matrix

    return make_step, make_product


SIDES = {"dlm": our_side, "transformers": their_side}


def session(side: str, sizes: Sizes, batch: Batch) -> Iterator[Any]:
    """A side's life, a turn at a time: seconds of each step, the first included; then figures."""
    make_step, make_product = SIDES[side]()
    make_product(64)()  # whatever the library sets up at its first use is not the model's
    before = resident("VmRSS")
    forget_peak()
    step, losses = make_step(sizes, batch), []
    for _ in range(1 + sizes.steps):
        yield timed(lambda: losses.append(step()))
    expected = math.log(sizes.vocab)
    if abs(losses[0] - expected) > 0.5:
        raise RuntimeError(f"{side}: first loss {losses[0]:.3f}, untrained is ln V, {expected:.3f}")
    memory = resident("VmHWM") - before
    product = make_product(CEILING_SIZE)
    seconds = min(timed(product) for _ in range(4))
    ceiling = 2 * CEILING_SIZE**3 / seconds / 1e9
    yield {"memory MB": memory, "ceiling": ceiling, "first loss": losses[0]}


def measure(sides: list[str], sizes: Sizes, supervised: float) -> Iterator[dict[str, Any]]:
    """The rows of one supervised share: one a side, and the ratio of the two."""
    batch = fixed_batch(sizes, supervised)
    learned = int(np.sum(batch.loss_weights > 0))
    first, *turns, figures = take_turns(session, sides, 1 + sizes.steps + 1, sizes, batch)
    rows = []
    for side in sides:
        seconds = statistics.median(turn[side] for turn in turns)
        rates = {
            "ms/step": 1e3 * seconds,
            "tokens/s": batch.tokens.size / seconds,
            "supervised/s": learned / seconds,
            "GFLOP/s": useful_flop(sizes, learned) / seconds / 1e9,
            "compile s": first[side] - seconds,
        }
        rows.append({"what": side, "supervised": supervised, **rates, **figures[side]})
    yield from rows
    if len(rows) == 2:
        ratios = {name: rows[0][name] / rows[1][name] for name in RATIOS}
        yield {"what": "ratio", "supervised": supervised, **ratios}


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in Sizes._field_defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--supervised", type=float, nargs="+", default=[1.0, 0.25], help="shares")
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    options = vars(parser.parse_args())
    as_json, supervised = options.pop("json"), options.pop("supervised")
    sides = installed()
    if len(sides) < len(SIDES):
        print("torch or transformers is not installed: ours alone", file=sys.stderr)
    if not as_json:
        show_header(COLUMNS)
    for share in supervised:
        for row in measure(sides, Sizes(**options), share):
            print(json.dumps(row)) if as_json else show(row, COLUMNS)


if __name__ == "__main__":
    main()
