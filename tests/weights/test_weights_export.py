"""Checkpoints out: what other libraries read, and what comes back bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from checkpoints import CASES, SHAPES, V, random_params, reference, same, saved

from dlm.core.errors import UserError
from dlm.models.decoder import Model
from dlm.weights import export
from dlm.weights.sources import open_source


def exported(source, folder, **how):
    """Loads a checkpoint and writes it again; returns its parameters too."""
    folder.mkdir()
    params = source.load(Model(source.config))
    export.write_huggingface(folder, params, source.config, **how)
    return params


@pytest.mark.parametrize("case", ["gpt2", "gpt2-untied", "llama", "llama-tied", "llama-llama3"])
def test_transformers_reads_what_was_exported(case, tmp_path):
    """Equal logits, in bits; every tensor found; tied stays tied, there and imported again."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    family, changes = CASES[case]
    theirs = reference(family, **changes)
    source = open_source(str(saved(theirs, tmp_path / "theirs")))
    params = exported(source, tmp_path / "ours", fields=source.metadata)
    again, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", output_loading_info=True, attn_implementation="eager"
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    embeddings = again.get_input_embeddings().weight, again.get_output_embeddings().weight
    assert (embeddings[0] is embeddings[1]) == source.config.tied
    tokens = torch.tensor(np.random.default_rng(0).integers(0, V, (2, 70)))
    with torch.no_grad():
        assert torch.equal(again.eval()(tokens).logits, theirs(tokens).logits)
    reopened = open_source(str(tmp_path / "ours"))
    assert reopened.config == source.config
    same(reopened.load(Model(reopened.config)), params)


@pytest.mark.parametrize("dtype", export.DTYPES)
def test_a_second_export_is_the_same_file(dtype, tmp_path):
    """Round trip in bits, dtype and foreign fields of the config included."""
    config, params = SHAPES["llama"], random_params(SHAPES["llama"])
    (tmp_path / "first").mkdir()
    fields = {"bos_token_id": 5, "note": ["kept"], "rope_parameters": {"rope_type": "default"}}
    export.write_huggingface(tmp_path / "first", params, config, dtype=dtype, fields=fields)
    source = open_source(str(tmp_path / "first"))
    assert source.metadata["note"] == ["kept"]
    assert source.metadata["torch_dtype"] == dtype
    exported(source, tmp_path / "second", dtype=dtype, fields=source.metadata)
    for name in ("config.json", "model.safetensors"):
        first, second = (tmp_path / folder / name for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_the_index_says_where_every_tensor_is(tmp_path, monkeypatch):
    """Above the limit of a file; transformers joins them as we do."""
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr(export, "_SHARD", 20_000)
    config, params = SHAPES["gpt2"], random_params(SHAPES["gpt2"])
    export.write_huggingface(tmp_path, params, config)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(export.tensors_of(params, config, "huggingface"))
    assert index["metadata"]["total_size"] == 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
    assert all(path.stat().st_size < 21_000 for path in tmp_path.glob("*.safetensors"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    np.testing.assert_array_equal(
        theirs.transformer.h[1].mlp.c_fc.weight.detach().numpy(),
        params["layers"]["1"]["mlp"]["up"]["kernel"],
    )


def test_a_number_too_large_for_the_dtype_is_refused(tmp_path):
    """Nothing becomes infinite in silence."""
    config, params = SHAPES["llama"], random_params(SHAPES["llama"])
    params["norm"]["scale"][3] = 1e5
    with pytest.raises(
        UserError, match=r"model.norm.weight: 1e\+05 is beyond the range of float16"
    ):
        export.write_huggingface(tmp_path, params, config, dtype="float16")


def test_what_cannot_be_written_is_refused(tmp_path):
    config, params = SHAPES["llama"], random_params(SHAPES["llama"])
    with pytest.raises(
        UserError, match=r"GGUF files are written as float32 or float16, not bfloat"
    ):
        export.write_gguf(tmp_path / "m.gguf", params, config, dtype="bfloat16")
    mixed = replace(config, norm="layer")
    with pytest.raises(UserError, match=r"no family that others can read has the parts"):
        export.write_huggingface(tmp_path, params, mixed)
