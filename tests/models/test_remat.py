"""Rematerialised layers: the numbers of plain ones, in less memory."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from model_cases import FAMILIES, init, pack, random_tokens

from dlm.core.paths import flatten, merge, split
from dlm.models.decoder import Model

pytestmark = pytest.mark.slow
LAYERS = 2
SEGMENTS, POSITIONS = pack([[9, 7], [13]], 17)
TOKENS = random_tokens(SEGMENTS.shape)


def model_of(family: str, remat: str, scans: tuple[int, ...] | None, layers: int = LAYERS) -> Model:
    config = replace(
        FAMILIES[family],
        num_layers=layers,
        width=16,
        dropout=0.3,
        attention="reference",
        scan_layers=scans is not None,
        remat=remat,
    )
    return Model(config, scans=scans or ())


@partial(jax.jit, static_argnums=(0, 3))
def gradients(
    model: Model, params: dict, tokens: jax.Array, trained: tuple[str, ...] = ()
) -> tuple:
    """Loss and gradients with dropout, of the named layers alone or of everything."""
    mask = {path: not trained or path.startswith(trained) for path in flatten(params)}
    selected, rest = split(params, mask)
    keys = jax.random.split(jax.random.key(4), len(tokens))
    where = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    positions, segments = (
        (POSITIONS, SEGMENTS) if tokens.shape == SEGMENTS.shape else (where, jnp.ones_like(where))
    )

    def total(selected):
        params = merge(selected, rest)
        hidden = model.hidden(params, tokens, positions, segments, dropout_keys=keys)
        return jnp.sum(jnp.sin(jnp.where(segments[..., None] > 0, hidden, 0)))

    return jax.value_and_grad(total)(selected)


@pytest.mark.parametrize(
    ("remat", "scans", "trained"),
    [
        ("products", None, ()),
        ("layers", (2,), ()),
        ("layers", (1, 1), ("layers/1/",)),
        ("products", (2,), ("layers/1/mlp",)),
    ],
)
def test_the_same_loss_and_gradients(remat, scans, trained):
    """With dropout, scanned or not, and with frozen layers below."""
    family = "gpt2" if remat == "products" else "llama"
    plain = model_of(family, "none", scans)
    params = init(plain, 0)
    wanted, leaves = gradients(plain, params, TOKENS, trained)
    loss, found = gradients(model_of(family, remat, scans), params, TOKENS, trained)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    assert flatten(found).keys() == flatten(leaves).keys()
    for path, leaf in flatten(leaves).items():
        np.testing.assert_allclose(flatten(found)[path], leaf, atol=2e-5, err_msg=path)


def compiled(remat: str, scans: tuple[int, ...] | None, trained: tuple[str, ...] = ()):
    model = model_of("llama", remat, scans, sum(scans) if scans else LAYERS)
    params = jax.eval_shape(model.init, jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((4, 128), jnp.int32)
    return gradients.lower(model, params, tokens, trained).compile()


def test_what_is_made_again_is_not_kept():
    """A scanned step's temporary memory: nothing kept < products kept < everything kept."""
    sizes = [
        compiled(remat, (6,)).memory_analysis().temp_size_in_bytes
        for remat in ("layers", "products", "none")
    ]
    assert sizes == sorted(set(sizes))
    assert sizes[0] < 0.6 * sizes[2]


@pytest.mark.parametrize("remat", ["products", "layers"])
def test_frozen_layers_below_are_not_made_again(remat):
    """They need no backward pass, so their work stays that of the forward pass."""
    work = {
        trained: [
            compiled(kept, None, trained).cost_analysis()["flops"] for kept in ("none", remat)
        ]
        for trained in ((), ("layers/1/",))
    }
    whole, top = (again - plain for plain, again in work.values())
    assert 0 <= top <= 0.6 * whole
