"""Import parity: an imported model computes what the transformers library computes with it."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest
from checkpoints import CASES, V, reference, saved

from dlm.models.decoder import Model
from dlm.models.layers import Layer
from dlm.weights.sources import open_source

LENGTH = 96
PIECES = ((0, 0, 96), (1, 0, 41), (1, 41, 74))  # (row, from, to); the rest of row 1 is padding


@partial(jax.jit, static_argnums=0)
def everything(model: Model, params: dict, tokens, segments, positions):
    """Logits, the final hidden states, and those after each layer."""
    (hidden, _), captured = model._decoder().apply(
        {"params": params},
        tokens,
        positions,
        segments,
        capture_intermediates=lambda module, _: isinstance(module, Layer),
        mutable=["intermediates"],
    )
    layers = captured["intermediates"]["layers"]
    after = [layers[str(i)]["__call__"][0][0] for i in range(model.config.num_layers)]
    return model.logits(params, hidden), hidden, after


def rows(vocabulary: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, segments and positions [2, LENGTH] of PIECES."""
    tokens = np.random.default_rng(0).integers(0, vocabulary, (2, LENGTH)).astype(np.int32)
    segments, positions = np.zeros_like(tokens), np.zeros_like(tokens)
    for number, (row, start, end) in enumerate(PIECES, 1):
        segments[row, start:end] = number
        positions[row, start:end] = np.arange(end - start)
    return tokens, segments, positions


def assert_parity(theirs, model: Model, params: dict, vocabulary: int) -> None:
    """Logits and every layer within 1e-4 on each piece by itself, argmax equal."""
    torch = pytest.importorskip("torch")
    tokens, segments, positions = rows(vocabulary)
    logits, hidden, after = jax.device_get(everything(model, params, tokens, segments, positions))
    for row, start, end in PIECES:
        with torch.no_grad():
            piece = torch.tensor(tokens[row : row + 1, start:end], dtype=torch.long)
            out = theirs(piece, output_hidden_states=True)
        ours = [*(layer[row, start:end] for layer in after[:-1]), hidden[row, start:end]]
        for layer, (mine, wanted) in enumerate(zip(ours, out.hidden_states[1:], strict=True)):
            np.testing.assert_allclose(
                mine, wanted[0].numpy(), atol=1e-4, rtol=0, err_msg=f"after layer {layer}"
            )
        mine, wanted = logits[row, start:end], out.logits[0].numpy()
        np.testing.assert_allclose(mine, wanted, atol=1e-4, rtol=0)
        np.testing.assert_array_equal(mine.argmax(-1), wanted.argmax(-1))


def assert_same_greedy(theirs, model: Model, params: dict, vocabulary: int, count: int) -> None:
    """The most probable next token, taken again and again, is the same `count` times."""
    torch = pytest.importorskip("torch")
    prompt = np.random.default_rng(1).integers(0, vocabulary, 7).tolist()
    with torch.no_grad():
        wanted = theirs.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=count, pad_token_id=0
        )
    ids = list(prompt)
    for _ in range(count):
        tokens = np.zeros((2, LENGTH), np.int32)
        tokens[0, : len(ids)] = ids
        segments = (np.arange(LENGTH) < len(ids)).astype(np.int32)[None] * [[1], [0]]
        positions = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), tokens.shape)
        logits, _, _ = everything(model, params, tokens, segments.astype(np.int32), positions)
        ids.append(int(logits[0, len(ids) - 1].argmax()))
    assert ids == wanted[0].tolist()


@pytest.mark.parametrize("case", CASES)
def test_an_import_computes_what_transformers_computes(case, tmp_path):
    """Import parity (padded and packed, layer by layer), and 64 greedy tokens."""
    family, changes = CASES[case]
    theirs = reference(family, **changes)
    source = open_source(str(saved(theirs, tmp_path)))
    model = Model(source.config)
    params = source.load(model)
    assert_parity(theirs, model, params, V)
    assert_same_greedy(theirs, model, params, V, 64)


@pytest.mark.slow
def test_gpt2_of_124m_parameters(tmp_path):
    """Import parity at the published shape: 12 layers, 768 wide, 50257 tokens."""
    sizes = {"vocab_size": 50257, "n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024}
    theirs = reference("gpt2", **sizes)
    source = open_source(str(saved(theirs, tmp_path)))
    model = Model(source.config)
    params = source.load(model)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 124_439_808
    assert_parity(theirs, model, params, 50257)
    assert_same_greedy(theirs, model, params, 50257, 64)
