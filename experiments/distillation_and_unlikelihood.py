"""Distillation and unlikelihood each move what their papers say: five seeds, paired.

    python experiments/distillation_and_unlikelihood.py [--seeds=5] [--updates=300] [--output=FILE]

The task: walks on a random graph. The user names eight nodes of a walk, the assistant goes on for
forty, along edges of unlike weight, and rarely where it has been (a node that was visited counts a
twentieth). So good text hardly repeats itself, while small models, asked for the likeliest next
node, go in circles. For each seed, on the same batches in the same order:

    teacher         2 layers of width 48, cross-entropy
    cross-entropy   1 layer of width 32: the baseline of both comparisons
    distillation    the same beginning, `distillation` from the teacher (alpha 1, temperature 1)
    unlikelihood    the same beginning, `unlikelihood` (alpha 1)

and on held-out walks

    kl to teacher   KL(teacher || model), nats a learned token
    perplexity      of the learned tokens
    seq-rep-4       of greedy continuations of 40 tokens: 1 - distinct 4-grams / 4-grams
    rep             share of the likeliest next tokens, given gold text, that stood in it before

Each comparison is a paired t interval over seeds (95 %). Prints the result as JSON; exit status 1
where an interval does not exclude zero in the paper's direction. Hardware: any. Time: some minutes
on one CPU core.

Source: Hinton et al. 2015, arXiv:1503.02531; Welleck et al. 2019, arXiv:1908.04319.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from dlm.commands.environment import commit, describe_environment  # noqa: E402
from dlm.data.batch import Batch, empty_batch  # noqa: E402
from dlm.losses.cross_entropy import cross_entropy  # noqa: E402
from dlm.losses.distillation import distillation  # noqa: E402
from dlm.losses.objective import make_objective  # noqa: E402
from dlm.losses.unlikelihood import unlikelihood  # noqa: E402
from dlm.models.config import ModelConfig  # noqa: E402
from dlm.models.decoder import Model  # noqa: E402
from dlm.tables.statistics import paired  # noqa: E402
from dlm.training.optimizer import OptimizerConfig, make_optimizer, resolve_trainable  # noqa: E402
from dlm.training.step import TrainStep, init_state, make_train_step  # noqa: E402

NODES, DEGREE, ASKED, WRITTEN = 61, 6, 8, 40
LENGTH, ROWS, HELD_OUT, HELD_OUT_SEED = ASKED + WRITTEN, 16, 256, 10**6
VISITED = 0.05
STUDENT = ModelConfig(
    vocab_size=NODES, num_layers=1, width=32, num_heads=2, max_length=LENGTH, attention="reference"
)
TEACHER = replace(STUDENT, num_layers=2, width=48)
OPTIMIZER = OptimizerConfig(learning_rate=3e-3, warmup=20)
ALL = ((r".*", True),)


@cache
def graph(seed: int) -> np.ndarray:
    """The weights of all edges, [NODES, NODES]: DEGREE from each node, unlike ones."""
    random = np.random.default_rng(seed)
    weights = np.zeros((NODES, NODES))
    for node in range(NODES):
        others = random.choice(NODES - 1, DEGREE, replace=False)
        weights[node, others + (others >= node)] = random.dirichlet(np.ones(DEGREE))
    return weights


def walks(seed: int, draw: int, number: int) -> np.ndarray:
    """Walks [number, LENGTH + 1] on the seed's graph, the draw-th lot of them."""
    random, weights = np.random.default_rng((seed, draw)), graph(seed)
    rows = np.arange(number)
    path = np.empty((number, LENGTH + 1), np.int32)
    path[:, 0] = random.integers(0, NODES, number)
    left = np.ones((number, NODES))
    for at in range(LENGTH):
        left[rows, path[:, at]] = VISITED
        odds = np.cumsum(weights[path[:, at]] * left, axis=1)
        path[:, at + 1] = (odds < odds[:, -1:] * random.random((number, 1))).sum(axis=1)
    return path


def batch_of(path: np.ndarray) -> Batch:
    """A walk a row: the first ASKED nodes are only read, the rest is learned."""
    rows, where = len(path), np.arange(LENGTH, dtype=np.int32)
    one = np.ones((rows, LENGTH), np.int32)
    return empty_batch(rows, LENGTH, 1)._replace(
        tokens=path[:, :-1],
        targets=path[:, 1:],
        loss_weights=one * (where >= ASKED - 1).astype(np.float32),
        segment_ids=one,
        positions=one * where,
        channel_ids=0 * one,
        turn_ids=0 * one,
    )


@cache
def compiled(name: str, updates: int) -> tuple[Model, Any, TrainStep]:
    """Model, optimiser and compiled step of a side; all seeds use the same ones."""
    model = Model(TEACHER if name == "teacher" else STUDENT)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    loss: Callable[..., Any] = {
        "distillation": partial(distillation, teacher=Model(TEACHER), alpha=1.0),
        "unlikelihood": unlikelihood,
    }.get(name, cross_entropy)
    optimizer = make_optimizer(OPTIMIZER, updates, shapes)
    objective = make_objective(loss, model, chunk=ROWS * LENGTH, train=True)
    trainable = resolve_trainable(ALL, shapes)
    return model, optimizer, make_train_step(objective, optimizer, trainable=trainable)


def train(name: str, seed: int, updates: int, frozen: Any = None) -> Any:
    """Trains a side from the seed's beginning on the seed's batches; returns its parameters."""
    model, optimizer, step = compiled(name, updates)
    params = jax.jit(model.init)(jax.random.key(seed))
    trainable = resolve_trainable(ALL, params)
    state = init_state(params, optimizer, trainable, jax.random.key(seed))
    for number in range(updates):
        state, _ = step(state, batch_of(walks(seed, number, ROWS)), frozen)
    return state.params


@partial(jax.jit, static_argnums=0)
def log_probs(model: Model, params: Any, tokens: jax.Array) -> jax.Array:
    """Log-probabilities [B, T, V] of the next tokens."""
    where = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden = model.hidden(params, tokens, where, jnp.ones_like(tokens))
    return jax.nn.log_softmax(model.logits(params, hidden))


@partial(jax.jit, static_argnums=0)
def continued(model: Model, params: Any, tokens: jax.Array) -> jax.Array:
    """Greedy continuations [B, T] of the first ASKED tokens, these in front."""

    def write(at: jax.Array, tokens: jax.Array) -> jax.Array:
        best = jnp.argmax(log_probs(model, params, tokens)[:, at - 1], axis=-1)
        return tokens.at[:, at].set(best)

    return jax.lax.fori_loop(ASKED, tokens.shape[1], write, tokens)


def repeated(text: list[int], n: int = 4) -> float:
    """seq-rep-n: the share of a text's n-grams that are copies of earlier ones."""
    grams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
    return 1 - len(set(grams)) / len(grams)


def figures(model: Model, params: Any, seed: int, teacher: Any) -> dict[str, float]:
    """What a side scores on the seed's held-out walks."""
    path = walks(seed, HELD_OUT_SEED, HELD_OUT)
    tokens, learned = jnp.asarray(path[:, :-1]), slice(ASKED - 1, None)
    told = np.asarray(log_probs(model, params, tokens), np.float64)[:, learned]
    best, gold = told.argmax(-1), path[:, ASKED:]
    taught = np.asarray(log_probs(Model(TEACHER), teacher, tokens), np.float64)[:, learned]
    before = [
        [best[i, t] in path[i, : ASKED + t] for t in range(WRITTEN + 1)] for i in range(len(path))
    ]
    texts = np.asarray(continued(model, params, tokens))[:, ASKED:].tolist()
    nats = -np.take_along_axis(told, gold[..., None], -1)
    return {
        "kl to teacher": float((np.exp(taught) * (taught - told)).sum(-1).mean()),
        "perplexity": float(np.exp(nats.mean())),
        "seq-rep-4": float(np.mean([repeated(text) for text in texts])),
        "rep": float(np.mean(before)),
    }


def measure(seeds: int, updates: int) -> dict[str, Any]:
    """All sides of all seeds, and the two comparisons."""
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in range(seeds):
        start = time.perf_counter()
        teacher = train("teacher", seed, updates)
        for name in ("teacher", "cross-entropy", "distillation", "unlikelihood"):
            taught = {"teacher": teacher} if name == "distillation" else None
            params = teacher if name == "teacher" else train(name, seed, updates, taught)
            found = figures(compiled(name, updates)[0], params, seed, teacher)
            rows.setdefault(name, []).append(found)
            print(f"seed {seed}, {name}: {found}", file=sys.stderr, flush=True)
        print(f"seed {seed}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)

    def less(name: str, figure: str) -> dict[str, Any]:
        ours, base = ([row[figure] for row in rows[n]] for n in (name, "cross-entropy"))
        return asdict(paired(ours, base).difference)

    gold = [
        repeated(p[ASKED:].tolist())
        for s in range(seeds)
        for p in walks(s, HELD_OUT_SEED, HELD_OUT)
    ]
    return {
        "differences from cross-entropy": {
            f"{name}, {figure}": less(name, figure)
            for name in ("distillation", "unlikelihood")
            for figure in rows[name][0]
        },
        "means": {
            name: {figure: float(np.mean([row[figure] for row in found])) for figure in found[0]}
            for name, found in rows.items()
        },
        "seq-rep-4 of the held-out walks": float(np.mean(gold)),
        "seeds": rows,
        "updates": updates,
    }


CLAIMS = (
    ("distillation, kl to teacher", "the student is nearer its teacher"),
    ("unlikelihood, seq-rep-4", "what is written repeats itself less"),
)


def main() -> int:
    """Runs the experiment as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    result = measure(args.seeds, args.updates)
    found = result["differences from cross-entropy"]
    holds = {said: found[name]["high"] < 0 for name, said in CLAIMS}
    environment = describe_environment()
    kept = {name: environment[name] for name in ("python", "devices", "libraries")}
    result = {"holds": holds, **result, "commit": commit(), **kept}
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text)
    return 0 if all(holds.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
