"""Configs of other libraries, translated and translated back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from model_cases import GPT2, LLAMA

from dlm.core.errors import UserError
from dlm.models import families, gpt2, llama
from dlm.models.config import RopeScaling

CONFIGS = {
    "gpt2": replace(GPT2, ffn_width=128, num_kv_heads=None),
    "gpt2-untied": replace(GPT2, ffn_width=96, tied=False, norm_epsilon=1e-6),
    "llama": replace(LLAMA, ffn_width=88, head_width=8),
    "llama-head": replace(LLAMA, ffn_width=88, head_width=12, tied=True),
    "llama-linear": replace(
        LLAMA, ffn_width=88, head_width=8, rope_scaling=RopeScaling("linear", 2.0)
    ),
    "llama-llama3": replace(
        LLAMA, ffn_width=88, head_width=8, rope_scaling=RopeScaling("llama3", 8.0, 2.0, 5.0, 64)
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_comes_back_from_hugging_face(name):
    config = CONFIGS[name]
    family = families.family_of(config)
    assert family.from_huggingface(family.to_huggingface(config)) == config


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "llama-llama3"])
def test_a_config_comes_back_from_gguf(name):
    """A head of its own is told by its tensor; a scaling "llama3" is a tensor too."""
    config = CONFIGS[name]
    family = families.family_of(config)
    shapes = {"token_embd.weight": (config.vocab_size, config.width)}
    shapes |= {} if config.tied else {"output.weight": (config.vocab_size, config.width)}
    assert family.from_gguf(family.to_gguf(config), shapes) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act='gelu' is not supported, only 'silu'"),
        ({"attention_bias": True}, "attention_bias=True is not supported, only False"),
        ({"mlp_bias": True}, "mlp_bias=True is not supported"),
        ({"sliding_window": 512}, "sliding_window=512 is not supported, only None"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5 is not supported"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_type='yarn' is not supported, only"),
        ({"rope_scaling": {"type": "dynamic"}}, "rope_type='dynamic' is not supported"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor is missing"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers='2' must be of type int"),
    ],
)
def test_what_a_llama_cannot_be_is_refused_by_name(changes, message):
    config = llama.to_huggingface(CONFIGS["llama"]) | changes
    with pytest.raises(UserError, match=message):
        llama.from_huggingface(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "relu"}, "activation_function='relu' is not supported, only"),
        ({"scale_attn_weights": False}, "scale_attn_weights=False is not supported"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True is not"),
        ({"add_cross_attention": True}, "add_cross_attention=True is not supported"),
    ],
)
def test_what_a_gpt2_cannot_be_is_refused_by_name(changes, message):
    config = gpt2.to_huggingface(CONFIGS["gpt2"]) | changes
    with pytest.raises(UserError, match=message):
        gpt2.from_huggingface(config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("llama.rope.scaling.type", "yarn"),
        ("llama.expert_count", 8),
        ("llama.attention.value_length", 4),
        ("llama.rope.dimension_count", 4),
    ],
)
def test_what_a_gguf_llama_cannot_be_is_refused_by_name(field, value):
    metadata = llama.to_gguf(CONFIGS["llama"]) | {field: value}
    with pytest.raises(UserError, match=f"{field}={value!r} is not supported, only"):
        llama.from_gguf(metadata, {"token_embd.weight": (61, 32)})


def test_both_spellings_of_rotary_fields_are_read():
    """Version 5 of the transformers library joins base and scaling in `rope_parameters`."""
    config = CONFIGS["llama-llama3"]
    old = llama.to_huggingface(config)
    new = {key: value for key, value in old.items() if key not in ("rope_theta", "rope_scaling")}
    new["rope_parameters"] = {**old["rope_scaling"], "rope_theta": old["rope_theta"]}
    assert llama.from_huggingface(new) == config


def test_a_gpt2_of_grouped_heads_cannot_be_written():
    with pytest.raises(UserError, match=r"no grouped heads .*num_heads=4, num_kv_heads=2"):
        gpt2.to_huggingface(replace(GPT2, num_kv_heads=2))
    with pytest.raises(UserError, match=r"no grouped heads .*head_width=12"):
        gpt2.to_gguf(replace(GPT2, head_width=12))


def test_an_unknown_architecture_is_named():
    with pytest.raises(UserError, match=r"architecture 'mamba' is not supported, only gpt2 and"):
        families.named("mamba")
