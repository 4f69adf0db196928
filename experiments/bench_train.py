"""Measures our train step beside that of transformers and torch: same model, same fixed batch.

    python experiments/bench_train.py [--rows=8] [--supervised 1 0.25] [--json]
    python experiments/bench_train.py --gpu --rows=32 --length=1024 --layers=12 --width=768 \
        --dialogue=256 --steps=20 [--compile]

GPT-2 on the CPU in float32, all cores, or with --gpu on a GPU in bfloat16 (parameters and moments
float32): dropout 0.1 on embeddings and residuals, none on attention, gradients clipped, AdamW.
--dialogue packs each row with dialogues of about so many tokens (torch: by its position ids, for
which transformers makes the mask); --compile compiles torch's model. Each side has a process and
imports of its own; they take turns step by step, and a step's time is the median. With --json, one
JSON object a row.

    GFLOP/s     useful ones: products that a step cannot do without, see dlm/training/flop.py
    MFU         useful ones as a share of the chip's dense bfloat16 peak, where it is known
    ceiling     GFLOP/s of the side's own product of two large matrices, the best of four
    memory      peak memory: of the process, less what it held before the model was made; on a GPU
                of the arrays on it
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
from dlm.models.config import ModelConfig
from dlm.training.flop import step_flop
from experiments.sides import (
    add_fields,
    forget_peak,
    installed,
    resident,
    show,
    show_header,
    take_turns,
    timed,
)

TURN = 64  # tokens; a reply is the supervised end of each turn
HEAD_WIDTH, LEARNING_RATE, CLIP_NORM = 64, 1e-3, 1.0
PEAKS = {"H100": 989e3, "H200": 989e3, "A100": 312e3}  # GFLOP/s, from the makers' data sheets
RATIOS = ("tokens/s", "supervised/s", "GFLOP/s", "memory MB")
COLUMNS = ("supervised", "ms/step", *RATIOS, "MFU", "ceiling", "compile s", "first loss")


class Side(NamedTuple):
    """One library: `step()` takes a step and gives the loss; the rest measures the device."""

    step: Callable[[], float]
    product: Callable[[int], Callable[[], Any]]
    peak_memory: Callable[[], float]
    device: str


class Sizes(NamedTuple):
    """B rows of T tokens, L layers of width D in heads of 64, vocabulary V; and what is done.

    `dialogue`: mean tokens of the dialogues in a row, 0 = a row is one; `dropout` in per cent.
    """

    rows: int = 8
    length: int = 512
    layers: int = 6
    width: int = 384
    vocab: int = 50257
    steps: int = 5
    dialogue: int = 0
    dropout: int = 10
    gpu: bool = False
    compile: bool = False


def fixed_batch(sizes: Sizes, supervised: float) -> Batch:
    """Seeded random tokens, dialogues in rows, with the last part of each turn supervised.

    Nothing follows a dialogue's last token: the share is short of `supervised` by one token each.
    """
    rows, length = sizes.rows, sizes.length
    random = np.random.default_rng(0)
    tokens = random.integers(0, sizes.vocab, (rows, length), np.int32)
    starts = np.zeros((rows, length), bool)
    starts[:, 0] = True
    if sizes.dialogue:  # of 0.5 to 1.5 times the mean
        spans = random.integers(sizes.dialogue // 2, 3 * sizes.dialogue // 2, (rows, length))
        row, place = np.nonzero(np.cumsum(spans, axis=1) < length - 1)
        starts[row, np.cumsum(spans, axis=1)[row, place]] = True
    segments = np.cumsum(starts, axis=1, dtype=np.int32)
    places = np.arange(length, dtype=np.int32)
    positions = places - np.maximum.accumulate(np.where(starts, places, 0), axis=1)
    learned = positions % TURN >= TURN * (1 - supervised)
    learned &= np.pad(~starts[:, 1:], ((0, 0), (0, 1)))
    most = int(segments.max())
    numbers = np.arange(rows * most, dtype=np.int32).reshape(rows, most)
    batch = empty_batch(rows, length, most)._replace(
        tokens=tokens,
        targets=np.roll(tokens, -1, axis=1),
        loss_weights=learned.astype(np.float32),
        segment_ids=segments,
        positions=positions.astype(np.int32),
        dialogue_ids=np.where(np.arange(most) < segments[:, -1:], numbers, -1),
    )
    return check(batch)


def useful_flop(sizes: Sizes, batch: Batch) -> int:
    """Operations that a step on the batch cannot do without; the same for either side."""
    config = ModelConfig(
        vocab_size=sizes.vocab,
        num_layers=sizes.layers,
        width=sizes.width,
        num_heads=sizes.width // HEAD_WIDTH,
        mlp="gelu",
        max_length=sizes.length,
    )
    return step_flop(config, batch)


def our_side(sizes: Sizes, batch: Batch) -> Side:
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

    if not sizes.gpu:
        jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    dtype = "bfloat16" if sizes.gpu else "float32"
    device = jax.devices()[0]
    shape = gpt2.shape(sizes.layers, sizes.width, sizes.width // HEAD_WIDTH)
    shape = replace(shape, vocab_size=sizes.vocab, max_length=sizes.length)
    model = Model(replace(shape, dropout=sizes.dropout / 100), dtype)

    def make_step() -> Callable[[], float]:
        params = model.init(jax.random.key(0))
        trainable = resolve_trainable(TrainConfig().trainable, params)
        config = OptimizerConfig(learning_rate=LEARNING_RATE, clip_norm=CLIP_NORM)
        optimizer = make_optimizer(config, 1000, params)
        objective = make_objective(cross_entropy, model, train=True)
        step = make_train_step(objective, optimizer, trainable=trainable)
        state = init_state(params, optimizer, trainable, jax.random.key(1))
        on_device = jax.device_put(batch, device)

        def run() -> float:
            nonlocal state
            state, metrics = jax.block_until_ready(step(state, on_device))
            loss = metrics.terms["loss"]
            return float(loss.total / loss.count)

        return run

    def make_product(size: int) -> Callable[[], Any]:
        matrix = jnp.ones((size, size), dtype)
        product = jax.jit(jnp.matmul)
        return lambda: product(matrix, matrix).block_until_ready()

    def peak_memory() -> float:
        return (device.memory_stats() or {}).get("peak_bytes_in_use", 0) / 1e6

    return Side(make_step, make_product, peak_memory, device.device_kind)


def their_side(sizes: Sizes, batch: Batch) -> Side:
    """The step of a plain transformers and torch training loop."""
    import torch
    import transformers

    device = "cuda" if sizes.gpu else "cpu"
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high" if sizes.gpu else "highest")

    def make_step() -> Callable[[], float]:
        config = transformers.GPT2Config(
            vocab_size=sizes.vocab,
            n_positions=sizes.length,
            n_embd=sizes.width,
            n_layer=sizes.layers,
            n_head=sizes.width // HEAD_WIDTH,
            resid_pdrop=sizes.dropout / 100,
            embd_pdrop=sizes.dropout / 100,
            attn_pdrop=0.0,
            attn_implementation="sdpa",
        )
        model = transformers.GPT2LMHeadModel(config).train().to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
        forward = torch.compile(model) if sizes.compile else model
        tokens = torch.tensor(batch.tokens, dtype=torch.long, device=device)
        places = None
        if sizes.dialogue:
            places = torch.tensor(batch.positions, dtype=torch.long, device=device)
        learned = np.roll(batch.loss_weights > 0, 1, axis=1)  # labels stand on the tokens learned
        labels = torch.where(torch.tensor(learned, device=device), tokens, -100)

        def run() -> float:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16, enabled=sizes.gpu):
                outputs = forward(tokens, position_ids=places, labels=labels, use_cache=False)
            outputs.loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
            return outputs.loss.item()

        return run

    def make_product(size: int) -> Callable[[], Any]:
        dtype = torch.bfloat16 if sizes.gpu else torch.float32
        matrix = torch.ones(size, size, dtype=dtype, device=device)

        def product() -> Any:
            result = matrix @ matrix
            if sizes.gpu:
                torch.cuda.synchronize()
            return result

        return product

    def peak_memory() -> float:
        return torch.cuda.max_memory_allocated() / 1e6

    name = torch.cuda.get_device_name() if sizes.gpu else "cpu"
    return Side(make_step, make_product, peak_memory, name)


SIDES = {"dlm": our_side, "transformers": their_side}


def session(side: str, sizes: Sizes, batch: Batch) -> Iterator[Any]:
    """A side's life, a turn at a time: seconds of each step, the first included; then figures."""
    make_step, make_product, peak_memory, device = SIDES[side](sizes, batch)
    make_product(64)()  # whatever the library sets up at its first use is not the model's
    before = resident("VmRSS")
    forget_peak()
    step, losses = make_step(), []
    for _ in range(1 + sizes.steps):
        yield timed(lambda: losses.append(step()))
    expected = math.log(sizes.vocab)
    if abs(losses[0] - expected) > 0.5:
        raise RuntimeError(f"{side}: first loss {losses[0]:.3f}, untrained is ln V, {expected:.3f}")
    memory = peak_memory() if sizes.gpu else resident("VmHWM") - before
    size = 8192 if sizes.gpu else 2048
    product = make_product(size)
    ceiling = 2 * size**3 / min(timed(product) for _ in range(4)) / 1e9
    figures = {"memory MB": memory, "ceiling": ceiling, "first loss": losses[0]}
    yield figures, device


def measure(sides: list[str], sizes: Sizes, supervised: float) -> Iterator[dict[str, Any]]:
    """The rows of one supervised share: one a side, and the ratio of the two."""
    batch = fixed_batch(sizes, supervised)
    learned = int(np.sum(batch.loss_weights > 0))
    first, *turns, last = take_turns(session, sides, 1 + sizes.steps + 1, sizes, batch)
    rows = []
    for side in sides:
        seconds = statistics.median(turn[side] for turn in turns)
        figures, device = last[side]
        rates = {
            "ms/step": 1e3 * seconds,
            "tokens/s": batch.tokens.size / seconds,
            "supervised/s": learned / seconds,
            "GFLOP/s": useful_flop(sizes, batch) / seconds / 1e9,
            "compile s": first[side] - seconds,
        }
        for name, peak in PEAKS.items():
            if name in device:
                rates["MFU"] = rates["GFLOP/s"] / peak
        rows.append({"what": side, "supervised": supervised, **rates, **figures})
    yield from rows
    if len(rows) == 2:
        ratios = {name: rows[0][name] / rows[1][name] for name in RATIOS}
        yield {"what": "ratio", "supervised": supervised, **ratios}


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_fields(parser, Sizes._field_defaults)
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
