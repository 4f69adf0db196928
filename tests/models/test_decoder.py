"""The decoder as a function: locality, packing, padding, parts by config, sizes, dtypes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_cases import (
    FAMILIES,
    IMPLEMENTATIONS,
    LLAMA,
    hidden_of,
    init,
    logits_of,
    loud,
    pack,
    random_tokens,
)

from dlm.core.errors import UserError
from dlm.core.paths import flatten
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model
from dlm.models.families import PRESETS, preset

T = 144  # two and a half blocks


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> tuple[ModelConfig, dict]:
    config = FAMILIES[request.param]
    return config, loud(init(Model(config), 0))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_locality(family, implementation):
    """Locality: a token changes its own segment from its place on, and nothing else by a bit."""
    config, params = family
    model = Model(replace(config, attention=implementation))
    segments, positions = pack([[50, 60, 20]], T)
    tokens = random_tokens((1, T))
    before = np.asarray(logits_of(model, params, tokens, segments, positions))
    for place in (0, 20, 49, 50, 63, 64, 109, 110, 129):
        changed = tokens.copy()
        changed[0, place] = (changed[0, place] + 1) % config.vocab_size
        after = np.asarray(logits_of(model, params, changed, segments, positions))
        differs = np.any(before != after, axis=-1)[0]
        reached = (segments[0] == segments[0, place]) & (np.arange(T) >= place)
        np.testing.assert_array_equal(differs[segments[0] > 0], reached[segments[0] > 0])


@partial(jax.jit, static_argnums=0)
def weighted_total(model, params, tokens, segments, positions, targets, weights) -> tuple:
    def total(params):
        logits = logits_of(model, params, tokens, segments, positions)
        losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)
        return jnp.sum(losses[..., 0] * weights)

    return jax.value_and_grad(total)(params)


def loss_and_gradients(model: Model, params: dict, arrays: tuple) -> tuple[float, float, dict]:
    """Loss sum, weight sum and gradients of a plain weighted cross-entropy."""

    value, gradients = weighted_total(model, params, *arrays)
    return float(value), float(np.sum(arrays[-1])), flatten(gradients)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_packed_equals_separate(family, implementation):
    """Packed equals separate: losses, weights and every gradient, for every implementation."""
    config, params = family
    model = Model(replace(config, attention=implementation))
    lengths = [[50, 60, 20], [90, 1], []]
    segments, positions = pack(lengths, T)
    tokens, targets = random_tokens(segments.shape), random_tokens(segments.shape, seed=1)
    weights = (segments > 0) * np.random.default_rng(2).random(segments.shape).astype(np.float32)
    packed = loss_and_gradients(model, params, (tokens, segments, positions, targets, weights))

    pieces = [(row, int(n)) for row in range(3) for n in np.unique(segments[row]) if n]
    apart = []
    for array in (tokens, segments, positions, targets, weights):
        rows = np.zeros((len(pieces), T), array.dtype)
        for i, (row, number) in enumerate(pieces):
            piece = array[row, segments[row] == number]
            rows[i, : len(piece)] = piece
        apart.append(rows)
    apart[1] = np.minimum(apart[1], 1)
    separate = loss_and_gradients(model, params, tuple(apart))

    np.testing.assert_allclose(packed[:2], separate[:2], rtol=1e-6)
    for path, gradient in packed[2].items():
        np.testing.assert_allclose(
            gradient,
            separate[2][path],
            atol=1e-6 * max(1, np.abs(gradient).max()),
            rtol=0,
            err_msg=path,
        )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_neighbours_are_bit_identical(family, implementation):
    """Both halves of isolation: other tokens beside a segment leave its logits bit-identical."""
    config, params = family
    model = Model(replace(config, attention=implementation))
    segments, positions = pack([[50, 60, 20], [20, 100]], T)
    tokens = random_tokens(segments.shape)
    before = np.asarray(logits_of(model, params, tokens, segments, positions))
    other = np.where(segments == 2, random_tokens(segments.shape, seed=5), tokens)
    after = np.asarray(logits_of(model, params, other, segments, positions))
    kept = (segments > 0) & (segments != 2)
    np.testing.assert_array_equal(before[kept], after[kept])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_padding_is_nothing(family, implementation):
    """Padding is nothing: its side, amount and ids change no logits; a row of it is finite."""
    config, params = family
    model = Model(replace(config, attention=implementation))
    tokens = random_tokens((1, 70))
    segments, positions = pack([[70]], 70)
    plain = logits_of(model, params, tokens, segments, positions)
    for left, right, pad in ((0, 74, 0), (74, 0, 3), (30, 44, 60)):
        sides = ((0, 0), (left, right))
        padded = logits_of(
            model,
            params,
            np.pad(tokens, sides, constant_values=pad),
            np.pad(segments, sides),
            np.pad(positions, sides, constant_values=left % 7),
        )
        np.testing.assert_allclose(padded[:, left : left + 70], plain, atol=1e-5 * plain.max())
    nothing = logits_of(model, params, tokens, 0 * segments, 0 * positions)
    assert np.all(np.isfinite(nothing))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
        ("llama2-7b", 6_738_415_616),
        ("smollm2-135m", 134_515_008),
    ],
)
def test_published_parameter_counts(name, count):
    shapes = jax.eval_shape(Model(preset(name)).init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_parameters_and_their_initial_scale():
    """Paths and shapes as promised, all float32; residual projections start 1/sqrt(2 L) smaller."""
    config = replace(LLAMA, width=64, bias=True, norm="layer", position="learned", dropout=0.1)
    leaves = flatten(Model(config, dtype="bfloat16").init(jax.random.key(0)))
    assert {leaf.dtype for leaf in leaves.values()} == {jnp.dtype("float32")}
    layer = {
        "attention/query/kernel": (64, 4, 16),
        "attention/query/bias": (4, 16),
        "attention/key/kernel": (64, 2, 16),
        "attention/key/bias": (2, 16),
        "attention/value/kernel": (64, 2, 16),
        "attention/value/bias": (2, 16),
        "attention/output/kernel": (4, 16, 64),
        "attention/output/bias": (64,),
        "mlp/gate/kernel": (64, 192),
        "mlp/gate/bias": (192,),
        "mlp/up/kernel": (64, 192),
        "mlp/up/bias": (192,),
        "mlp/down/kernel": (192, 64),
        "mlp/down/bias": (64,),
        "norm_attention/scale": (64,),
        "norm_attention/bias": (64,),
        "norm_mlp/scale": (64,),
        "norm_mlp/bias": (64,),
    }
    expected = {f"layers/{i}/{path}": shape for i in range(2) for path, shape in layer.items()}
    expected |= {
        "embedding/tokens": (61, 64),
        "embedding/positions": (160, 64),
        "norm/scale": (64,),
        "norm/bias": (64,),
        "head/kernel": (61, 64),
    }
    assert {path: leaf.shape for path, leaf in leaves.items()} == expected
    for path in ("attention/output/kernel", "mlp/down/kernel"):
        assert np.std(leaves[f"layers/1/{path}"]) == pytest.approx(0.02 / 2, rel=0.05)
    for path in ("embedding/tokens", "layers/0/attention/query/kernel", "head/kernel"):
        assert np.std(leaves[path]) == pytest.approx(0.02, rel=0.05)


def test_bfloat16_is_close_and_stays_bfloat16(family):
    config, params = family
    params = jax.tree.map(lambda leaf: leaf / 8 if leaf.ndim > 1 else leaf, params)
    segments, positions = pack([[50, 60]], T)
    tokens = random_tokens((1, T))
    wide = hidden_of(Model(config), params, tokens, segments, positions)
    narrow = hidden_of(Model(config, "bfloat16"), params, tokens, segments, positions)
    assert narrow.dtype == jnp.bfloat16
    assert Model(config, "bfloat16").logits(params, narrow).dtype == jnp.float32
    error = np.abs(np.asarray(narrow, np.float32) - np.asarray(wide))[segments > 0]
    assert 0 < error.max() < 0.1


def test_rows_beyond_the_limit_are_refused():
    model = Model(LLAMA)
    params = jax.eval_shape(model.init, jax.random.key(0))
    long = jax.ShapeDtypeStruct((1, 161), jnp.int32)
    with pytest.raises(UserError, match=r"161 tokens are beyond model.max_length=160"):
        jax.eval_shape(model.hidden, params, long, long, long)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 3}, "width=32 is no multiple of num_heads=3"),
        ({"num_kv_heads": 3}, "num_heads=4 is no multiple of num_kv_heads=3"),
        ({"num_layers": 0}, "num_layers=0 must be at least 1"),
        ({"head_width": 5}, "even head_width, not 5"),
        ({"dropout": 1.0}, "dropout=1.0 must be"),
        ({"dropout": 0.0001}, "dropout=0.0001 must be"),
        ({"vocab_size": -1}, "vocab_size=-1"),
    ],
)
def test_impossible_configs_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        replace(LLAMA, **change)


def test_unknown_names_and_missing_vocabulary():
    with pytest.raises(
        UserError, match="unknown model preset 'gpt2-medum'; did you mean 'gpt2-medium'"
    ):
        preset("gpt2-medum")
    with pytest.raises(UserError, match="vocab_size=0"):
        Model(ModelConfig())
    assert set(PRESETS) >= {"gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"}
