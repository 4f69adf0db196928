"""The update equals its formula in float64; decay, schedule and clipping act where they must."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlm.core.errors import UserError
from dlm.core.paths import flatten
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model
from dlm.training.optimizer import (
    OptimizerConfig,
    learning_rate,
    make_optimizer,
    make_schedule,
    resolve_decay,
    resolve_trainable,
    rule_table,
)

PLAIN = OptimizerConfig(
    name="sgd", learning_rate=0.1, schedule="constant", weight_decay=0.0, clip_norm=None
)


def make_params():
    random = np.random.default_rng(0)
    return {
        "embedding": {
            "tokens": random.normal(size=(5, 3)),
            "positions": random.normal(size=(4, 3)),
        },
        "layers": {
            "0": {"mlp": {"up": {"kernel": random.normal(size=(3, 2)), "bias": np.ones(2)}}}
        },
        "norm": {"scale": random.normal(size=3)},
    }


DECAYED = {"embedding/tokens", "layers/0/mlp/up/kernel"}


def run(config, gradients):
    """Parameters after each update, and the learning rates, in float64."""
    params = jax.tree.map(jnp.asarray, make_params())
    optimizer = make_optimizer(config, 10, params)
    state = optimizer.init(params)
    history, rates = [], []
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        history.append(jax.tree.map(np.asarray, params))
        rates.append(float(learning_rate(state)))
    return history, rates


def random_gradients(number):
    random = np.random.default_rng(1)
    tree = make_params()
    return [jax.tree.map(lambda leaf: random.normal(size=leaf.shape), tree) for _ in range(number)]


def assert_history(config, reference):
    """Compares three updates with `reference(path, theta, gradients up to t, rate)`."""
    with jax.enable_x64(True):
        gradients = random_gradients(3)
        history, rates = run(config, gradients)
        norms = [np.sqrt(sum((g**2).sum() for g in flatten(tree).values())) for tree in gradients]
        clips = [min(1, config.clip_norm / norm) if config.clip_norm else 1 for norm in norms]
        for path, theta in flatten(make_params()).items():
            seen = [flatten(tree)[path] * clip for tree, clip in zip(gradients, clips, strict=True)]
            for t in range(3):
                decay = config.weight_decay * (path in DECAYED)
                theta = theta - rates[t] * (reference(seen[: t + 1]) + decay * theta)
                np.testing.assert_allclose(
                    flatten(history[t])[path], theta, rtol=1e-12, atol=1e-14, err_msg=path
                )


@pytest.mark.parametrize("clip_norm", [None, 0.5, 100.0])
def test_sgd_is_the_literature_update(clip_norm):
    """theta <- theta - eta grad - eta lambda theta, decay by mask, clipping the whole."""
    config = replace(PLAIN, weight_decay=0.3, clip_norm=clip_norm)
    assert_history(config, lambda gradients: gradients[-1])


def test_momentum_sums_gradients():
    config = replace(PLAIN, momentum=0.9, weight_decay=0.3)
    assert_history(
        config, lambda gradients: sum(0.9**i * g for i, g in enumerate(reversed(gradients)))
    )


@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_adamw_is_its_formula(clip_norm):
    """Decoupled decay on the leaves the mask names, and on no others."""
    config = OptimizerConfig(learning_rate=0.1, weight_decay=0.3, clip_norm=clip_norm, epsilon=1e-3)

    def direction(gradients):
        steps = len(gradients)
        powers = range(steps - 1, -1, -1)
        m = sum((1 - config.b1) * config.b1**p * g for p, g in zip(powers, gradients, strict=True))
        v = sum(
            (1 - config.b2) * config.b2**p * g**2 for p, g in zip(powers, gradients, strict=True)
        )
        m, v = m / (1 - config.b1**steps), v / (1 - config.b2**steps)
        return m / (np.sqrt(v) + config.epsilon)

    assert_history(config, direction)


@pytest.mark.parametrize(
    ("schedule", "fall"),
    [
        ("constant", [1, 1, 1, 1, 1, 1]),
        ("linear", [1, 0.9, 0.8, 0.7, 0.6, 0.5]),
        ("cosine", 0.5 + 0.25 * (1 + np.cos(np.pi * np.arange(6) / 5))),
    ],
)
def test_schedules(schedule, fall):
    """The peak after three updates of warm-up, half of it after all eight."""
    config = OptimizerConfig(learning_rate=2.0, schedule=schedule, warmup=3, final_scale=0.5)
    rates = [float(make_schedule(config, 8)(update)) for update in range(9)]
    np.testing.assert_allclose(rates, 2.0 * np.array([1 / 3, 2 / 3, 1, *fall]), rtol=1e-6)


def test_the_reported_learning_rate_is_the_one_used():
    config = replace(PLAIN, schedule="linear", warmup=2, final_scale=0.0)
    _, rates = run(config, random_gradients(4))
    schedule = make_schedule(config, 10)
    np.testing.assert_allclose(rates, [float(schedule(u)) for u in range(4)], rtol=1e-6)


def test_warmup_below_one_is_a_share_of_the_updates():
    share = replace(PLAIN, schedule="linear", warmup=0.3)
    whole = replace(PLAIN, schedule="linear", warmup=3)
    rates = [[float(make_schedule(c, 10)(u)) for u in range(10)] for c in (share, whole)]
    assert rates[0] == rates[1]
    none = float(make_schedule(replace(share, warmup=0.04), 10)(0))
    assert none == pytest.approx(PLAIN.learning_rate)


def test_decay_rules_of_a_real_model():
    """Kernels and the token embedding decay; norms, biases and positions do not."""
    config = ModelConfig(
        vocab_size=11,
        num_layers=2,
        width=8,
        num_heads=2,
        max_length=16,
        position="learned",
        norm="layer",
        bias=True,
        tied=False,
    )
    params = jax.eval_shape(Model(config).init, jax.random.key(0))
    decays = resolve_decay(OptimizerConfig(), params)
    assert decays["embedding/tokens"]
    assert decays["head/kernel"]
    assert decays["layers/1/attention/query/kernel"]
    others = {path for path in decays if not path.endswith("kernel")} - {"embedding/tokens"}
    assert "embedding/positions" in others
    assert any(path.endswith("bias") for path in others)
    assert not any(decays[path] for path in others)


def test_the_users_decay_rules_come_first():
    config = OptimizerConfig(decay=((r"norm/.*", True), (r"embedding/.*", False)))
    decays = resolve_decay(config, make_params())
    assert [path for path, on in decays.items() if on] == ["layers/0/mlp/up/kernel", "norm/scale"]
    with pytest.raises(UserError, match=r"optimizer\.decay: the rule 'norms/\.\*' matches none"):
        resolve_decay(OptimizerConfig(decay=((r"norms/.*", True),)), make_params())


def test_trainable_rules_and_their_table():
    rules = ((r"layers/.*", True), (r".*", False))
    trainable = resolve_trainable(rules, make_params())
    table = rule_table(trainable, make_params())
    assert "layers/*/mlp/up/kernel" in table
    counts = [line.split() for line in table.splitlines() if line.endswith("(all)")]
    assert [(value, int(size)) for value, _, size, _ in counts] == [("False", 30), ("True", 8)]
    with pytest.raises(UserError, match="every parameter is frozen"):
        resolve_trainable(((r".*", False),), make_params())


def test_the_optimiser_serves_a_part_of_the_parameters():
    """Built from all paths, used on a sub-tree: the mask follows the tree it is given."""
    params = make_params()
    optimizer = make_optimizer(replace(PLAIN, weight_decay=1.0), 10, params)
    part = {"norm": params["norm"], "embedding": {"tokens": params["embedding"]["tokens"]}}
    zeros = jax.tree.map(np.zeros_like, part)
    updates, _ = optimizer.update(zeros, optimizer.init(part), part)
    assert (updates["norm"]["scale"] == 0).all()
    np.testing.assert_allclose(
        updates["embedding"]["tokens"], -0.1 * part["embedding"]["tokens"], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "adam"}, r"optimizer\.name='adam': choose adamw or sgd"),
        ({"schedule": "cosin"}, r"optimizer\.schedule='cosin': choose one of cosine, linear"),
        ({"warmup": 10}, r"optimizer\.warmup=10 must be .* below the run's 10 updates"),
        ({"warmup": 2.5}, r"optimizer\.warmup=2\.5 must be a share"),
        ({"clip_norm": 0.0}, r"optimizer\.clip_norm=0\.0"),
        ({"learning_rate": -1.0}, r"optimizer\.learning_rate=-1\.0"),
    ],
)
def test_mistakes_are_told(change, message):
    with pytest.raises(UserError, match=message):
        make_optimizer(replace(OptimizerConfig(), **change), 10, make_params())


def test_rows_added_to_a_vocabulary_are_trained_and_its_mask_is_not():
    """Whatever the rules say; no decay moves a row that nothing trains; a mask holds nothing."""
    params = make_params()
    params["embedding"]["new_tokens"] = np.ones((2, 3))
    params["head"] = {"new_kernel": np.ones((2, 3)), "mask": np.ones(7, bool)}
    for rules in (((r"norm/.*", True), (r".*", False)), ((r".*", True),)):
        trainable = resolve_trainable(rules, params)
        assert trainable["embedding/new_tokens"]
        assert trainable["head/new_kernel"]
        assert trainable["head/mask"] is False
    assert "1              0  head/mask" in rule_table(trainable, params)
    decays = resolve_decay(OptimizerConfig(), params)
    assert not decays["embedding/new_tokens"]
    assert not decays["head/new_kernel"]
