"""Checkpoints in: strict, named, and nothing in them runs."""

from __future__ import annotations

import json
import pickle
import shutil
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import SHAPES, load, random_params, same

from dlm.core.errors import UserError
from dlm.core.paths import flatten
from dlm.models.decoder import Model
from dlm.weights import export, safetensors_file
from dlm.weights.sources import is_checkpoint, open_source


@pytest.fixture
def folder(tmp_path):
    """A Llama in one safetensors file."""
    folder = tmp_path / "llama"
    folder.mkdir()
    export.write_huggingface(folder, random_params(SHAPES["llama"]), SHAPES["llama"])
    return folder


def rewrite(folder, change) -> None:
    """Writes a folder's tensors again, the dict of them changed."""
    path = folder / "model.safetensors"
    tensors = safetensors_file.read_header(path)
    held = {name: tensor.read() for name, tensor in tensors.items()}
    change(held)
    tensors = {
        name: safetensors_file.Tensor(array.shape, lambda array=array: array)
        for name, array in held.items()
    }
    safetensors_file.write(path, tensors, np.dtype(np.float32))


@pytest.mark.parametrize("dtype", export.DTYPES)
@pytest.mark.parametrize("family", SHAPES)
def test_every_float_is_read_exactly(family, dtype, tmp_path):
    config, params = SHAPES[family], random_params(SHAPES[family])
    export.write_huggingface(tmp_path, params, config, dtype=dtype)
    loaded = load(tmp_path)
    same(loaded, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {jnp.dtype("float32")}


def test_the_safetensors_library_agrees(tmp_path):
    """What we write it reads, what it writes we read."""
    numpy = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(3, 5)).astype(np.float32), "b": np.arange(7, dtype=np.float32)}
    numpy.save_file(arrays, tmp_path / "theirs")
    tensors = safetensors_file.read_header(tmp_path / "theirs")
    same({name: tensor.read() for name, tensor in tensors.items()}, arrays)
    safetensors_file.write(tmp_path / "ours", tensors, np.dtype(np.float16))
    halves = {name: array.astype(np.float16) for name, array in arrays.items()}
    same(numpy.load_file(tmp_path / "ours"), halves)


def test_shards_are_joined(tmp_path, monkeypatch):
    """Several files with an index, as above 5 GB; a file or a tensor that it names is missed."""
    monkeypatch.setattr(export, "_SHARD", 20_000)
    params = random_params(SHAPES["llama"])
    export.write_huggingface(tmp_path, params, SHAPES["llama"])
    files = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    same(load(tmp_path), params)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.layers.7.mlp.up_proj.weight"] = files[0]
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"'model.layers.7.mlp.up_proj.weight' of .* is in none of"):
        open_source(str(tmp_path))
    index["weight_map"]["model.layers.7.mlp.up_proj.weight"] = "../x.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"the file '../x.safetensors' is missing"):
        open_source(str(tmp_path))


def test_what_is_missing_extra_or_misshapen_is_named(folder):
    """Strict: each problem with what was wanted, and nothing is filled in."""

    def change(held):
        del held["model.layers.1.mlp.up_proj.weight"]
        held["model.extra"] = np.ones(3, np.float32)
        held["model.norm.weight"] = np.ones(31, np.float32)
        held["model.layers.0.self_attn.q_proj.weight"] = np.ones((33, 32), np.float32)

    rewrite(folder, change)
    with pytest.raises(UserError) as caught:
        load(folder)
    message = str(caught.value)
    assert "norm/scale: file has (31,), model wants (32,), from 'model.norm.weight'" in message
    assert (
        "layers/1/mlp/up/kernel: missing, wanted (56, 32) as 'model.layers.1.mlp.up_proj.weight'"
        in message
    )
    assert (
        "layers/0/attention/query/kernel: file has (33, 32), model wants (32, 32), from "
        "'model.layers.0.self_attn.q_proj.weight'" in message
    )
    assert message.endswith("; and 1 more")
    rewrite(folder, lambda held: held.pop("model.layers.0.self_attn.q_proj.weight"))


def test_a_tensor_without_a_place_is_named(folder):
    rewrite(folder, lambda held: held.update({"model.extra": np.ones(3, np.float32)}))
    with pytest.raises(UserError, match=r"'model.extra' \(3,\): extra, the model has no place"):
        load(folder)


def test_a_file_cut_short_is_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"'[\w.]+' is cut short: it ends at byte \d+, the file at"):
        open_source(str(folder))


def test_other_number_formats_are_refused(tmp_path):
    header = json.dumps({"a": {"dtype": "I8", "shape": [2], "data_offsets": [0, 2]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"12")
    with pytest.raises(UserError, match=r"'a' is I8, wanted F32, F16, BF16"):
        safetensors_file.read_header(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 40,
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"{no}",
        struct.pack("<Q", 2) + b"\xff\xfe",
        *(
            struct.pack("<Q", len(text)) + text
            for text in (
                b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
                b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[4,0]}}',
                b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[-4,-4]}}',
                b'{"a":{"dtype":"F32","shape":[1]}}',
                b'{"a":3}',
            )
        ),
    ],
)
def test_damaged_headers_are_refused(content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model.safetensors: (no safetensors file|its header is)"):
        safetensors_file.read_header(path)


@pytest.mark.parametrize("prefix", [True, False])
def test_constants_of_gpt2_files_are_known_by_name(prefix, tmp_path):
    """The published files hold the causal mask and leave the prefix out."""
    config, params = SHAPES["gpt2"], random_params(SHAPES["gpt2"])
    export.write_huggingface(tmp_path, params, config)

    def change(held):
        for i in range(config.num_layers):
            held[f"transformer.h.{i}.attn.bias"] = np.ones((1, 1, 40, 40), np.float32)
            held[f"transformer.h.{i}.attn.masked_bias"] = np.float32(-1e4).reshape(())
        if not prefix:
            for name in list(held):
                held[name.removeprefix("transformer.")] = held.pop(name)

    rewrite(tmp_path, change)
    same(load(tmp_path), params)


def test_a_tied_head_must_be_the_embedding(tmp_path):
    """It may stand in the file a second time, as the same numbers and no others."""
    config, params = SHAPES["gpt2"], random_params(SHAPES["gpt2"])
    export.write_huggingface(tmp_path, params, config)
    rewrite(tmp_path, lambda held: held.update({"lm_head.weight": held["transformer.wte.weight"]}))
    same(load(tmp_path), params)
    rewrite(
        tmp_path, lambda held: held.update({"lm_head.weight": held["transformer.wte.weight"] + 1})
    )
    with pytest.raises(UserError, match=r"'lm_head.weight' differs from the embedding, yet"):
        open_source(str(tmp_path))


def test_a_pickle_is_never_opened(folder):
    """Nothing loaded can run: the bomb stays where it is, and the remedy is named."""

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was opened",))

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match=r"pytorch_model.bin is a pickle.*convert it to safetensor"):
        open_source(str(folder))
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(
        UserError, match=r"wanted model.safetensors or model.safetensors.index.json"
    ):
        open_source(str(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "config.json: architecture 'mamba' is not supported"),
        ({"hidden_act": "relu"}, "config.json: hidden_act='relu' is not supported"),
        ({"quantization_config": {"bits": 4}}, "config.json: quantization_config: quantised"),
        ({"num_attention_heads": 5}, "config.json: .*num_heads=5"),
    ],
)
def test_a_config_that_cannot_be_read_is_named_with_its_file(folder, changes, message):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=message):
        open_source(str(folder))


def test_leaves_go_where_they_are_placed(folder):
    """One at a time, by their paths; the function's result is what stands in the parameters."""
    source = open_source(str(folder))
    seen = []

    def place(path, array):
        seen.append(path)
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        return jnp.asarray(array) + 1

    params = source.load(Model(source.config), place)
    assert seen == list(flatten(params))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b + 1), params, load(folder))


def test_the_digest_is_that_of_the_content(folder, tmp_path):
    """Not of the path; one number or one field of the config changes it."""
    digest = open_source(str(folder)).digest
    shutil.copytree(folder, tmp_path / "copy")
    assert open_source(str(tmp_path / "copy")).digest == digest
    rewrite(folder, lambda held: held["model.norm.weight"].__setitem__(0, 7.0))
    assert open_source(str(folder)).digest != digest
    path = tmp_path / "copy" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rope_theta": 5e5}))
    assert open_source(str(tmp_path / "copy")).digest != digest


def test_what_is_a_checkpoint(folder, tmp_path):
    """A folder by its config, any file, any OWNER/NAME; never a run or a word."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text('{"seed": 0}')
    (tmp_path / "x.gguf").touch()
    assert is_checkpoint(str(folder))
    assert is_checkpoint(str(tmp_path / "x.gguf"))
    assert is_checkpoint("owner/name")
    assert not is_checkpoint(str(run))
    assert not is_checkpoint("gpt3")
    with pytest.raises(UserError, match=r"x.gguf is no checkpoint: wanted a GGUF file"):
        open_source(str(tmp_path / "x.gguf"))


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as caught:
        open_source("owner/name-that-is-not-there")
    assert "'owner/name-that-is-not-there' is no file or folder here, and" in str(caught.value)
    assert "\n" not in str(caught.value)
