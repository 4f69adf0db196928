"""Runs one tiny training on a mesh, by pmap, or on one device, and prints what came out as JSON.

Started by `test_mesh.py`, which simulates devices by the environment. Rows have very unequal
supervised counts; some devices have none.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlm.core.paths import flatten
from dlm.data.batch import Batch, empty_batch
from dlm.losses.cross_entropy import cross_entropy
from dlm.losses.dpo import dpo
from dlm.losses.objective import make_objective
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model
from dlm.training import mesh as meshes
from dlm.training.optimizer import OptimizerConfig, make_optimizer, resolve_trainable
from dlm.training.step import init_state, make_pmap_step, make_train_step

ROWS, LENGTH, VOCAB = 8, 24, 64
COUNTS = (1, 0, 17, 3, 9, 0, 20, 2)
SGD = OptimizerConfig("sgd", 0.3, schedule="constant", weight_decay=0.01, clip_norm=1.0)
ADAMW = OptimizerConfig("adamw", 0.01, warmup=5, clip_norm=1.0)


def make_batch(step: int, pairs: bool = False) -> Batch:
    random = np.random.default_rng(step)
    where = np.tile(np.arange(LENGTH, dtype=np.int32), (ROWS, 1))
    border = random.integers(5, 15, (ROWS, 1))
    second = where >= border
    counts = np.roll(COUNTS, step)[:, None]
    batch = empty_batch(ROWS, LENGTH, 2, pairs=pairs, reference=pairs)
    if pairs:
        batch.pair_ids[:] = 10 * step + np.arange(ROWS)[:, None]
        batch.chosen[:, step % 2] = True
        batch.reference_log_probs[:] = -random.integers(1, 50, (ROWS, 2))
    return batch._replace(
        tokens=random.integers(0, VOCAB, where.shape).astype(np.int32),
        targets=random.integers(0, VOCAB, where.shape).astype(np.int32),
        loss_weights=((where < counts) * random.choice([0.5, 1, 2], where.shape)).astype(
            np.float32
        ),
        segment_ids=1 + second.astype(np.int32),
        positions=where - np.where(second, border, 0).astype(np.int32),
        channel_ids=np.zeros_like(where),
        turn_ids=np.zeros_like(where),
    )


def share_of(leaf: jax.Array) -> float:
    """The share of an array that its first device holds."""
    return leaf.addressable_shards[0].data.size / leaf.size


def main(case: dict[str, Any]) -> None:
    if "process" in case:
        where = f"localhost:{case['port']}"
        jax.distributed.initialize(where, case["processes"], process_id=case["process"])
    config = ModelConfig(
        vocab_size=VOCAB, num_layers=2, width=16, num_heads=4, num_kv_heads=2, max_length=LENGTH,
        tied=case.get("tied", False), dropout=0.2, attention=case.get("attention", "auto"),
    )  # fmt: skip
    model = Model(config, dtype="float64" if jax.config.jax_enable_x64 else "float32")
    key = jax.random.key(0)
    shapes = jax.eval_shape(model.init, key)
    frozen = case.get("frozen", r"layers/0/mlp/.*")
    trainable = resolve_trainable(((frozen, False), (r".*", True)), shapes)
    chosen = ADAMW if case.get("optimizer") == "adamw" else SGD
    optimizer = make_optimizer(chosen, case["updates"], shapes)
    pairs = case.get("loss") == "dpo"
    loss = dpo if pairs else cross_entropy
    plain = make_objective(loss, model, normaliser="token", chunk=5, train=True)
    calls = []

    def objective(*args: Any) -> Any:
        calls.append(1)
        return plain(*args)

    options: dict[str, Any] = {"trainable": trainable, "accumulate": case.get("accumulate", 1)}
    wide = np.float64 if jax.config.jax_enable_x64 else np.float32

    def make_state(seed: Any) -> Any:
        params = jax.tree.map(lambda leaf: leaf.astype(wide), model.init(seed))
        return init_state(params, optimizer, trainable, jax.random.key(7))

    kind = case["mesh"]
    if kind == "pmap":
        state = jax.jit(make_state)(key)
        state = jax.tree.map(lambda x: jnp.stack([x] * jax.device_count()), state)
        step = make_pmap_step(objective, optimizer, **options)

        def place(batch: Batch) -> Batch:
            return jax.tree.map(lambda x: x.reshape(jax.device_count(), -1, *x.shape[1:]), batch)
    else:
        devices = jax.devices()[:1] if kind is None else None
        axes = dict(zip(("data", "fsdp", "tensor"), kind or (1, 1, 1), strict=True))
        mesh = meshes.make_mesh(meshes.MeshConfig(**axes), devices)
        jax.set_mesh(mesh)
        abstract = jax.eval_shape(make_state, key)
        shardings = meshes.state_shardings(abstract, meshes.param_shardings(shapes, mesh))
        state = jax.jit(make_state, out_shardings=shardings)(key)
        step = make_train_step(objective, optimizer, shardings=shardings, **options)
        own, put = meshes.own_rows(mesh, ROWS), meshes.make_placer(mesh, ROWS)

        def place(batch: Batch) -> Batch:
            return put(jax.tree.map(lambda x: x[own], batch))

    losses, calls_of_one = [], 0
    for number in range(case["updates"]):
        state, metrics = step(state, place(make_batch(number, pairs)))
        total, count = (np.asarray(jax.device_get(x)).ravel()[0] for x in metrics.terms["loss"])
        losses.append(float(total / count))
        calls_of_one = calls_of_one or len(calls)
    if kind == "pmap":
        copies = jax.device_get(state.params)
        same = jax.tree.map(lambda x: bool((x == x[:1]).all()), copies)
        assert all(jax.tree.leaves(same)), "copies of the parameters differ"
        params = jax.tree.map(lambda x: x[0], copies)
    else:
        everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        params = jax.device_get(jax.jit(lambda p: p, out_shardings=everywhere)(state.params))
        share = {path: share_of(leaf) for path, leaf in flatten(state.params).items()}
        moments = [share_of(leaf) for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim == 2]
    out = {
        "losses": losses,
        "params": {path: leaf.ravel().tolist() for path, leaf in flatten(params).items()},
        "traces": len(calls) / calls_of_one,
        "supervised": int(np.asarray(jax.device_get(metrics.supervised)).ravel()[0]),
        "share": share if kind != "pmap" else {},
        "moments": moments if kind != "pmap" else [],
    }
    if case.get("process", 0) == 0:
        print(json.dumps(out))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
