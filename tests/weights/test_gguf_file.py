"""GGUF files in and out, against the library of that name."""

from __future__ import annotations

import struct
from dataclasses import replace

import gguf
import numpy as np
import pytest
from checkpoints import SHAPES, load, random_params, same

from dlm.core.errors import UserError
from dlm.models.config import RopeScaling
from dlm.models.decoder import Model
from dlm.weights import export, gguf_file
from dlm.weights.sources import open_source

TOKENS = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["a", "Ġé", "<|end|>"],
    "tokenizer.ggml.token_type": [1, 1, 3],
    "tokenizer.ggml.scores": [0.5, -1.0, 0.0],
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.add_bos_token": False,
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("family", SHAPES)
def test_config_and_parameters_come_back(family, dtype, tied, tmp_path):
    """Round trip, tied or not: rows of q and k are paired otherwise in the file."""
    config = replace(SHAPES[family], tied=tied)
    params = random_params(config)
    export.write_gguf(tmp_path / "m.gguf", params, config, dtype=dtype, metadata=TOKENS)
    source = open_source(str(tmp_path / "m.gguf"))
    assert source.config == config
    assert {name: source.metadata[name] for name in TOKENS} == TOKENS
    same(source.load(Model(source.config)), params)


def test_the_library_reads_what_we_write(tmp_path):
    """Names, shapes, order of rows and metadata; vectors stay float32."""
    config, params = SHAPES["llama"], random_params(SHAPES["llama"])
    export.write_gguf(tmp_path / "m.gguf", params, config, dtype="float16", metadata=TOKENS)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    assert {name: reader.get_field(name).contents() for name in TOKENS} == TOKENS
    assert reader.get_field("llama.attention.head_count_kv").contents() == 2
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    known = set(gguf.MODEL_TENSORS[gguf.MODEL_ARCH.LLAMA])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_layers)
    spelled = {names.get_type(name.removesuffix(".weight")) for name in tensors}
    assert spelled <= known
    assert tensors["output_norm.weight"].data.dtype == np.float32
    query = tensors["blk.1.attn_q.weight"].data
    assert (query.dtype, query.shape) == (np.float16, (32, 32))
    kernel = params["layers"]["1"]["attention"]["query"]["kernel"]  # [D, N, H], H = 8
    np.testing.assert_array_equal(query[8:12], kernel[:, 1, [0, 4, 1, 5]].T)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q6_K"])
def test_number_formats_are_the_librarys(kind, tmp_path, monkeypatch):
    """Every row and column in place, read in pieces."""
    monkeypatch.setattr(gguf_file, "_CHUNK", 1024)
    array = np.random.default_rng(0).normal(size=(7, 512)).astype(np.float32)
    number_format = gguf.GGMLQuantizationType[kind]
    if kind == "Q6_K":  # the library cannot make these
        raw = np.random.default_rng(0).integers(0, 60, (7, 2 * 210)).astype(np.uint8)
    else:
        raw = gguf.quants.quantize(array, number_format)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("a", np.ones(3, np.float32))
    writer.add_tensor("b", raw, raw_dtype=number_format)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tensor = gguf_file.read_header(tmp_path / "m.gguf").tensors["b"]
    assert tensor.shape == (7, 512)
    wanted = gguf.quants.dequantize(raw, number_format)
    np.testing.assert_array_equal(tensor.read(), wanted)


def test_scaling_of_long_texts_is_a_tensor(tmp_path):
    """Llama 3's four numbers come back where they are the published ones, else it is refused."""
    scaling = RopeScaling("llama3", 32.0)
    config = replace(SHAPES["llama"], rope_theta=5e5, rope_scaling=scaling)
    params = random_params(config)
    export.write_gguf(tmp_path / "m.gguf", params, config)
    source = open_source(str(tmp_path / "m.gguf"))
    assert source.config == config
    same(source.load(Model(config)), params)
    other = replace(config, rope_scaling=replace(scaling, original_length=50))
    export.write_gguf(tmp_path / "m.gguf", params, other)
    with pytest.raises(UserError, match=r"m.gguf: rope_freqs.weight \(4,\) is not a scaling of"):
        open_source(str(tmp_path / "m.gguf"))


@pytest.fixture
def written(tmp_path):
    """A small file and its bytes."""
    path = tmp_path / "m.gguf"
    export.write_gguf(path, random_params(SHAPES["llama"]), SHAPES["llama"], metadata=TOKENS)
    return path, path.read_bytes()


def test_a_file_cut_short_anywhere_is_refused(written):
    """In its header, or in a tensor, which is named."""
    path, content = written
    for size in [3, 20, 100, 200, 400, 700, 1200, 2000]:
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match=r"m.gguf: (damaged at byte|no GGUF file|is no check)"):
            gguf_file.read_header(path)
    path.write_bytes(content[:-40])
    with pytest.raises(UserError, match=r"'[\w.]+' \(\d+,( \d+)?\) is cut short: it ends at byte"):
        gguf_file.read_header(path)


def test_lengths_that_lie_are_refused(written):
    """A text, an array or a tensor longer than the file takes no memory."""
    path, content = written
    huge = struct.pack("<Q", 2**62)
    key = content.index(b"tokenizer.ggml.model")
    path.write_bytes(content[: key - 8] + huge + content[key:])
    with pytest.raises(UserError, match=r"a text of 4611686018427387904 bytes goes beyond"):
        gguf_file.read_header(path)
    array = content.index(b"tokenizer.ggml.token_type") + len("tokenizer.ggml.token_type") + 8
    path.write_bytes(content[:array] + huge + content[array + 8 :])
    with pytest.raises(UserError, match=r"damaged at byte"):
        gguf_file.read_header(path)
    axis = content.index(b"token_embd.weight") + len("token_embd.weight") + 4
    path.write_bytes(content[:axis] + huge + content[axis + 8 :])
    with pytest.raises(UserError, match=r"'token_embd.weight' .* is cut short"):
        gguf_file.read_header(path)


def test_what_is_no_gguf_file_is_refused(written):
    path, content = written
    path.write_bytes(content[:4] + struct.pack("<I", 9) + content[8:])
    with pytest.raises(UserError, match=r"no GGUF file of version 2 or 3: .* version 9"):
        gguf_file.read_header(path)
    export.write_gguf(
        path, random_params(SHAPES["llama"]), SHAPES["llama"], metadata={"general.alignment": 0}
    )
    with pytest.raises(UserError, match=r"general.alignment=0 must be"):
        load(path)


def test_llama2c_writes_what_was_recorded(corpus_dir):
    """The file's own greedy continuation; pairs of rotary rows lie side by side in it."""
    import jax

    path = corpus_dir("llama2c-260k") / "data" / "aidreams260K.bin"
    source = open_source(str(path))
    model = Model(source.config)
    params = source.load(model)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 230_976
    ids = [1]
    ones, positions = np.ones((1, 17), np.int32), np.arange(17, dtype=np.int32)[None]
    logits_of = jax.jit(
        lambda params, tokens: model.logits(params, model.hidden(params, tokens, positions, ones))
    )
    for _ in range(16):
        tokens = np.zeros((1, 17), np.int32)
        tokens[0, : len(ids)] = ids
        ids.append(int(logits_of(params, tokens)[0, len(ids) - 1].argmax()))
    recorded = "319 459 355 260 275 429 339 315 374 327 446 262 421 392 275 280"
    assert ids[1:] == [int(number) for number in recorded.split()]


def test_a_llama2c_file_of_another_length_is_refused(corpus_dir, tmp_path):
    content = (corpus_dir("llama2c-260k") / "data" / "aidreams260K.bin").read_bytes()
    path = tmp_path / "m.bin"
    for changed, message in (
        (content[:-4], r"has 932120 bytes, as a llama2.c file its header wants 932124"),
        (content[:9], "9 bytes hold no llama2.c header of 28"),
        (b"\0" * 99, r"no llama2.c file: its header is \[0, 0, 0, 0, 0, 0, 0\]"),
    ):
        path.write_bytes(changed)
        with pytest.raises(UserError, match=message):
            open_source(str(path))
