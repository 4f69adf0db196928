"""Scanned layers: the numbers of unrolled ones, compiled once a stretch."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_cases import FAMILIES, LLAMA, init, loud, pack, random_tokens

from dlm.core.paths import flatten
from dlm.models.cache import empty_cache
from dlm.models.decoder import Model, scanned_apart
from dlm.training.optimizer import resolve_trainable

LAYERS = 4
SEGMENTS, POSITIONS = pack([[9, 7], [13]], 17)
TOKENS = random_tokens(SEGMENTS.shape)


def model_of(family: str, scans: tuple[int, ...] | None) -> Model:
    """A model with dropout; `scans` None = unrolled."""
    config = replace(
        FAMILIES[family],
        num_layers=LAYERS,
        width=16,
        dropout=0.3,
        attention="reference",
        scan_layers=scans is not None,
    )
    return Model(config, scans=scans or ())


@partial(jax.jit, static_argnums=0)
def value_and_gradients(model: Model, params: dict) -> tuple:
    keys = jax.random.split(jax.random.key(4), len(TOKENS))

    def total(params):
        hidden = model.hidden(params, TOKENS, POSITIONS, SEGMENTS, dropout_keys=keys)
        hidden = jnp.where(SEGMENTS[..., None] > 0, hidden, 0)
        return jnp.sum(jnp.sin(hidden)), hidden

    return jax.value_and_grad(total, has_aux=True)(params)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scans", [(), (1, 2, 1)])
def test_scanned_equals_unrolled(family, scans):
    """Hidden states, dropout and every gradient: each layer has its own parameters and draws."""
    unrolled = model_of(family, None)
    params = init(unrolled, 0)
    (_, expected), gradients = value_and_gradients(unrolled, params)
    (_, hidden), found = value_and_gradients(model_of(family, scans), params)
    # Rounding only: the same sums, in programs that the compiler fuses differently.
    np.testing.assert_allclose(hidden, expected, atol=1e-5)
    for path, leaf in flatten(gradients).items():
        scale = max(1.0, float(np.abs(leaf).max()))
        np.testing.assert_allclose(flatten(found)[path], leaf, atol=2e-5 * scale, err_msg=path)


def test_a_scan_is_as_large_a_program_as_one_layer():
    """The products of the program: one layer's for each stretch, not one's for each layer."""
    params = init(model_of("llama", None), 0)

    def products(scans: tuple[int, ...] | None) -> int:
        model = model_of("llama", scans)
        run = partial(model.hidden, params, TOKENS, POSITIONS, SEGMENTS)
        return str(jax.make_jaxpr(run)()).count("dot_general")

    assert products(None) == LAYERS * products(())
    assert products((2, 2)) == 2 * products(())


@pytest.mark.parametrize(
    ("rules", "scans"),
    [
        (((r".*", True),), (4,)),
        (((r"layers/[23]/.*", True), (r".*", False)), (2, 2)),
        (((r"layers/[13]/.*", True), (r".*", False)), (1, 1, 1, 1)),
        (((r"layers/[0-2]/attention/.*|layers/[12]/mlp/.*", True), (r".*", False)), (1, 2, 1)),
        (((r"norm/.*", True), (r".*", False)), (4,)),
    ],
)
def test_layers_are_scanned_with_those_trained_alike(rules, scans):
    """Stretches end where the rules change, leaf by leaf, and the scan follows them."""
    model = model_of("llama", ())
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert scanned_apart(model, resolve_trainable(rules, params)).scans == scans


def test_parameters_and_cache_know_nothing_of_the_scan():
    """One sub-tree a layer either way, and decoding with a cache is the same program."""
    unrolled, scanned = model_of("llama", None), model_of("llama", (3, 1))
    shapes = [jax.eval_shape(m.init, jax.random.key(0)) for m in (unrolled, scanned)]
    assert flatten(shapes[0]) == flatten(shapes[1])
    params = loud(init(unrolled, 0))
    programs = [
        str(
            jax.make_jaxpr(
                lambda params, model=model: model.hidden(
                    params,
                    TOKENS,
                    POSITIONS,
                    SEGMENTS,
                    cache=empty_cache(model.config, 2, 17),
                )
            )(params)
        )
        for model in (unrolled, scanned)
    ]
    assert programs[0] == programs[1]
    assert LLAMA.scan_layers is False
