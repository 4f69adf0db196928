"""Import parity: the same weights give the logits of the transformers library's models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from model_cases import GPT2, LLAMA, logits_of, random_tokens

from dlm.core.paths import flatten, unflatten
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model

LENGTH = 96


def gpt2_weights(params: dict, config: ModelConfig) -> dict[str, np.ndarray]:
    """Our parameters under GPT-2's names; its projections are [in, out], q, k and v in one."""
    flat = {path: np.asarray(leaf) for path, leaf in flatten(params).items()}
    width = config.width
    out = {
        "transformer.wte.weight": flat["embedding/tokens"],
        "transformer.wpe.weight": flat["embedding/positions"],
        "transformer.ln_f.weight": flat["norm/scale"],
        "transformer.ln_f.bias": flat["norm/bias"],
        "lm_head.weight": flat["embedding/tokens"],
    }
    for i in range(config.num_layers):
        ours, theirs = f"layers/{i}", f"transformer.h.{i}"
        qkv = [f"{ours}/attention/{name}" for name in ("query", "key", "value")]
        kernels = [flat[f"{path}/kernel"].reshape(width, -1) for path in qkv]
        out[f"{theirs}.attn.c_attn.weight"] = np.concatenate(kernels, axis=1)
        out[f"{theirs}.attn.c_attn.bias"] = np.concatenate([flat[f"{p}/bias"].ravel() for p in qkv])
        for mine, name in (
            ("attention/output", "attn.c_proj"),
            ("mlp/up", "mlp.c_fc"),
            ("mlp/down", "mlp.c_proj"),
        ):
            kernel, bias = flat[f"{ours}/{mine}/kernel"], flat[f"{ours}/{mine}/bias"]
            out[f"{theirs}.{name}.weight"] = kernel.reshape(-1, bias.size)
            out[f"{theirs}.{name}.bias"] = bias
        for mine, name in (("norm_attention", "ln_1"), ("norm_mlp", "ln_2")):
            out[f"{theirs}.{name}.weight"] = flat[f"{ours}/{mine}/scale"]
            out[f"{theirs}.{name}.bias"] = flat[f"{ours}/{mine}/bias"]
    return out


def llama_weights(params: dict, config: ModelConfig) -> dict[str, np.ndarray]:
    """Our parameters under Llama's names; its projections are [out, in]."""
    flat = {path: np.asarray(leaf) for path, leaf in flatten(params).items()}
    out = {
        "model.embed_tokens.weight": flat["embedding/tokens"],
        "model.norm.weight": flat["norm/scale"],
        "lm_head.weight": flat["embedding/tokens" if config.tied else "head/kernel"],
    }
    for i in range(config.num_layers):
        ours, theirs = f"layers/{i}", f"model.layers.{i}"
        for mine, name in (("query", "q"), ("key", "k"), ("value", "v")):
            kernel = flat[f"{ours}/attention/{mine}/kernel"]
            out[f"{theirs}.self_attn.{name}_proj.weight"] = kernel.reshape(config.width, -1).T
        kernel = flat[f"{ours}/attention/output/kernel"]
        out[f"{theirs}.self_attn.o_proj.weight"] = kernel.reshape(-1, config.width).T
        for name in ("gate", "up", "down"):
            out[f"{theirs}.mlp.{name}_proj.weight"] = flat[f"{ours}/mlp/{name}/kernel"].T
        out[f"{theirs}.input_layernorm.weight"] = flat[f"{ours}/norm_attention/scale"]
        out[f"{theirs}.post_attention_layernorm.weight"] = flat[f"{ours}/norm_mlp/scale"]
    return out


def reference_gpt2(config: ModelConfig) -> Any:
    import transformers

    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.max_length,
            n_embd=config.width,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            n_inner=config.ffn_size,
            layer_norm_epsilon=config.norm_epsilon,
            attn_implementation="eager",
        )
    )


def reference_llama(config: ModelConfig) -> Any:
    import transformers

    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocab_size,
            max_position_embeddings=config.max_length,
            hidden_size=config.width,
            intermediate_size=config.ffn_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_size,
            rms_norm_eps=config.norm_epsilon,
            rope_theta=config.rope_theta,
            tie_word_embeddings=config.tied,
            attn_implementation="eager",
        )
    )


def random_params(config: ModelConfig) -> dict:
    """Normal(0.2) for every leaf, norms and biases too, so that none can be left out unseen."""
    shapes = flatten(jax.eval_shape(Model(config).init, jax.random.key(0)))
    rng = np.random.default_rng(0)
    return unflatten(
        {
            path: (0.2 * rng.normal(size=leaf.shape) + path.endswith("scale")).astype(np.float32)
            for path, leaf in shapes.items()
        }
    )


@pytest.mark.parametrize("implementation", ["reference", "blocks"])
@pytest.mark.parametrize(
    ("weights", "build", "config"),
    [
        pytest.param(gpt2_weights, reference_gpt2, GPT2, id="gpt2"),
        pytest.param(
            gpt2_weights, reference_gpt2, replace(GPT2, norm_epsilon=1e-2), id="gpt2-epsilon"
        ),
        pytest.param(llama_weights, reference_llama, LLAMA, id="llama"),
        pytest.param(
            llama_weights,
            reference_llama,
            replace(
                LLAMA, tied=True, num_kv_heads=1, rope_theta=5e5, norm_epsilon=1e-2, ffn_width=40
            ),
            id="llama-options",
        ),
    ],
)
def test_logits_equal_transformers(weights, build, config, implementation):
    """Import parity: logits within 1e-4 of the library's, argmax equal."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    params = random_params(config)
    reference = build(config).eval()
    state = {name: torch.tensor(value) for name, value in weights(params, config).items()}
    missing, unexpected = reference.load_state_dict(state, strict=False)
    assert not unexpected
    assert not [name for name in missing if "attn.bias" not in name and "rotary" not in name]
    tokens = random_tokens((2, LENGTH))
    with torch.no_grad():
        expected = reference(torch.tensor(tokens, dtype=torch.long)).logits.numpy()

    model = Model(replace(config, attention=implementation))
    positions = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), tokens.shape)
    logits = np.asarray(logits_of(model, params, tokens, np.ones_like(tokens), positions))
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=0)
    np.testing.assert_array_equal(logits.argmax(-1), expected.argmax(-1))
