"""The verbs export and import: runs become files of other libraries, and those become runs."""

from __future__ import annotations

import dataclasses
import io
import json

import jax
import numpy as np
import pytest
from tokenizers import pre_tokenizers

import run
from dlm.commands import start
from dlm.commands.setup import TOKENIZER
from dlm.dialogue.builtin_template import BuiltinTemplate
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.tokenizer import TokenizerConfig, train
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model
from dlm.training.checkpoints import Checkpoints
from dlm.weights import export
from dlm.weights.sources import open_source

TINY = ModelConfig(
    num_layers=1, width=8, num_heads=2, num_kv_heads=1, head_width=4, ffn_width=24, max_length=512
)


def random_params(config):
    return Model(config).init(jax.random.key(1))


def load(path):
    source = open_source(str(path))
    return source.load(Model(source.config))


def same(params, other):
    jax.tree.map(np.testing.assert_array_equal, params, other)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run with one checkpoint and a tokenizer, its config and its parameters."""
    folder = tmp_path_factory.mktemp("export") / "run"
    tokenizer = train(["the cat sat on the mat"] * 9, (), TokenizerConfig(vocab_size=300))
    tokenizer.save(folder / TOKENIZER)
    resolved = start.Settings(model=TINY)
    content = json.loads(json.dumps(dataclasses.asdict(resolved)))
    (folder / start.CONFIG_FILE).write_text(json.dumps(content))
    config = dataclasses.replace(TINY, vocab_size=tokenizer.vocab_size)
    params = random_params(config)
    digests = {"tokenizer": tokenizer.digest}
    with Checkpoints(
        folder / start.CHECKPOINTS, digests=digests, lower_is_better=True
    ) as checkpoints:
        checkpoints.save(0, {"params": params, "step": np.asarray(0, np.int32)}, metric=1.0)
    return folder, config, params, tokenizer


@pytest.mark.parametrize("layout", ["huggingface", "gguf"])
def test_a_run_goes_out_and_comes_in_again(workdir, layout, tmp_path, capsys):
    """Round trip in bits, from the workdir by the command line."""
    folder, config, params, _ = workdir
    target = tmp_path / "out"
    words = [f"--source={folder}", f"--target={target}", f"--format={layout}"]
    assert run.guarded(["export", *words]) == 0
    told = {"huggingface": "", "gguf": "without a tokenizer: llama.cpp knows none of its kind\n"}
    assert capsys.readouterr().out == f"{told[layout]}written: {target}\n"
    assert open_source(str(target)).config == config
    same(load(target), params)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_transformers_reads_model_and_tokenizer_of_a_run(workdir, tmp_path):
    """Ids of a text and of a dialogue are ours, control tokens special, and the logits agree."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder, config, params, tokenizer = workdir
    words = [f"--source={folder}", f"--target={tmp_path / 'out'}", "--format=huggingface"]
    assert run.guarded(["export", *words]) == 0
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer.encode("the cat sat")
    assert theirs("the cat sat")["input_ids"] == ids
    assert theirs.convert_tokens_to_ids("<|user|>") == tokenizer.control("<|user|>")
    said = [
        Message("system", "the cat"),
        Message("user", "sat"),
        Message("assistant", "on the mat"),
    ]
    messages = [{"role": message.role, "content": message.content} for message in said]
    wanted = BuiltinTemplate(tokenizer).prompt(Dialogue("d", tuple(said)))
    given = {"add_generation_prompt": True, "return_dict": False}
    assert theirs.apply_chat_template(messages, **given) == wanted
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for said in (model.config, model.generation_config):
        assert (said.eos_token_id, said.pad_token_id) == (theirs.eos_token_id, theirs.pad_token_id)
    assert theirs.eos_token_id == tokenizer.control("<|end|>")
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits.numpy()
    tokens = np.array([ids], np.int32)
    positions = np.arange(len(ids), dtype=np.int32)[None]
    ours = Model(config)
    hidden = ours.hidden(params, tokens, positions, np.ones_like(tokens))
    np.testing.assert_allclose(ours.logits(params, hidden), wanted, atol=1e-5)


def test_a_checkpoint_goes_out_with_what_came_with_it(tmp_path):
    """Between Hugging Face and GGUF and back, foreign fields and tokenizer files kept."""
    config = dataclasses.replace(TINY, vocab_size=61)
    params = random_params(config)
    first, second, third = (tmp_path / name for name in ("first", "second.gguf", "third"))
    first.mkdir()
    export.write_huggingface(first, params, config, fields={"eos_token_id": 7})
    for name in ("tokenizer.model", "generation_config.json", "chat_template.jinja"):
        (first / name).write_text(f'"{name}"')
    assert _export(first, tmp_path / "copy", "huggingface") == 0
    for path in first.iterdir():
        assert (tmp_path / "copy" / path.name).read_bytes() == path.read_bytes()
    assert _export(first, second, "gguf") == 0
    assert _export(second, third, "huggingface", "--dtype=bfloat16") == 0
    assert open_source(str(third)).metadata["torch_dtype"] == "bfloat16"
    rounded = jax.tree.map(lambda leaf: leaf.astype("bfloat16").astype("float32"), params)
    same(load(third), rounded)


def test_a_gguf_file_keeps_its_metadata(tmp_path):
    config = dataclasses.replace(TINY, vocab_size=61)
    metadata = {
        "general.name": "tiny",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.chat_template": "{{ messages }}",
        "general.quantization_version": 2,
    }
    export.write_gguf(tmp_path / "a.gguf", random_params(config), config, metadata=metadata)
    assert _export(tmp_path / "a.gguf", tmp_path / "b.gguf", "gguf", "--dtype=float16") == 0
    kept = open_source(str(tmp_path / "b.gguf")).metadata
    assert "general.quantization_version" not in kept
    assert (kept["general.name"], kept["general.file_type"]) == ("tiny", 1)
    assert kept["tokenizer.chat_template"] == "{{ messages }}"


def _export(source, target, layout, *words):
    return run.guarded(
        ["export", f"--source={source}", f"--target={target}", f"--format={layout}", *words]
    )


CHATML = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@pytest.fixture(scope="module")
def chatty(tmp_path_factory):
    """A GGUF file with tokenizer and chat template, its config and its parameters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": [*alphabet, "th", "the", *special],
        "tokenizer.ggml.token_type": [1] * 258 + [3] * 3,
        "tokenizer.ggml.merges": ["t h", "th e"],
        "tokenizer.ggml.eos_token_id": 260,
        "tokenizer.ggml.padding_token_id": 258,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHATML,
    }
    config = dataclasses.replace(TINY, vocab_size=261)
    params = random_params(config)
    path = tmp_path_factory.mktemp("chatty") / "m.gguf"
    export.write_gguf(path, params, config, metadata=metadata)
    return path, config, params, metadata


def test_an_imported_checkpoint_is_a_run(chatty, tmp_path, capsys, monkeypatch):
    """Bits and digest; one can talk to it at once, begin from it, and give it away again."""
    path, config, params, metadata = chatty
    workdir = tmp_path / "run"
    words = [f"--source={path}", f"--target={workdir}", "--format=dlm"]
    assert run.guarded(["import", *words]) == 0
    assert f"python run.py chat --workdir={workdir}" in capsys.readouterr().out
    given = start.Settings(init=str(workdir))
    assert start.source_run(str(workdir)) == workdir
    assert start.model_config(given) == config
    same(start.initial_params(given, Model(config)), params)
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat\n"))
    assert run.guarded(["chat", f"--workdir={workdir}", "--config.generate.max_new_tokens=3"]) == 0
    capsys.readouterr()
    assert _export(workdir, tmp_path / "again.gguf", "gguf") == 0
    assert "without a tokenizer" not in capsys.readouterr().out
    again = open_source(str(tmp_path / "again.gguf"))
    assert {name: again.metadata.get(name) for name in metadata} == metadata
    same(again.load(Model(again.config)), params)


def test_a_gguf_file_becomes_a_folder_with_its_tokenizer(chatty, tmp_path):
    """What ends a reply is told to the transformers library, which then stops there."""
    path, *_ = chatty
    assert _export(path, tmp_path / "out", "huggingface") == 0
    config, generation, tokenizer = (
        json.loads((tmp_path / "out" / f"{name}.json").read_text())
        for name in ("config", "generation_config", "tokenizer_config")
    )
    assert config["eos_token_id"] == generation["eos_token_id"] == 260
    assert config["pad_token_id"] == generation["pad_token_id"] == 258
    assert tokenizer["chat_template"] == CHATML
    assert _export(tmp_path / "out", tmp_path / "back.gguf", "gguf") == 0
    assert open_source(str(tmp_path / "back.gguf")).metadata["tokenizer.ggml.pre"] == "smollm"


def test_a_checkpoint_that_nobody_could_talk_to_is_no_run(chatty, tmp_path, capsys):
    _, config, params, metadata = chatty
    silent = {name: value for name, value in metadata.items() if "chat_template" not in name}
    export.write_gguf(tmp_path / "m.gguf", params, config, metadata=silent)
    words = [f"--source={tmp_path / 'm.gguf'}", f"--target={tmp_path / 'run'}", "--format=dlm"]
    assert run.guarded(["import", *words]) == 2
    assert "to train from it, name it as init" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.gguf"]


def test_numbers_of_metadata_keep_their_size(chatty, tmp_path):
    _, config, params, _ = chatty
    numbers = {"general.parameter_count": 8 * 10**9, "a.b": -1, "a.c": -(2**40), "a.d": 1}
    export.write_gguf(tmp_path / "m.gguf", params, config, metadata=numbers)
    found = open_source(str(tmp_path / "m.gguf")).metadata
    assert {name: found[name] for name in numbers} == numbers


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "import needs --source, --target and --format=dlm"),
        (["--source=a/b", "--target=c", "--format=gguf"], "import needs"),
        (["--source=gpt2", "--target=c", "--format=dlm"], "gpt2 is no checkpoint of another"),
        (["--source=a/b", "--target=/", "--format=dlm"], "/ is there already; choose another"),
        (["--lora"], "import does not know '--lora'"),
    ],
)
def test_mistakes_of_import_are_one_line(words, message, capsys):
    assert run.guarded(["import", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "export needs --source, --target and --format"),
        (["--source=a", "--target=b", "--format=onnx"], "--format=onnx is unknown; there are: hug"),
        (
            ["--source=a", "--target=b", "--format=gguf", "--dtype=int8"],
            "--dtype=int8 is unknown; there are: float32, float16, bfloat16",
        ),
        (["--source=a", "--target=/", "--format=gguf"], "/ is there already; choose another"),
        (["--source=nowhere", "--target=b", "--format=gguf"], "nowhere holds no run"),
        (["--lora"], "export does not know '--lora'"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    assert run.guarded(["export", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_failed_export_leaves_nothing(tmp_path, capsys):
    config = dataclasses.replace(TINY, vocab_size=61)
    params = random_params(config)
    params["norm"]["scale"] = params["norm"]["scale"] + 1e5
    (tmp_path / "in").mkdir()
    export.write_huggingface(tmp_path / "in", params, config)
    assert _export(tmp_path / "in", tmp_path / "out", "huggingface", "--dtype=float16") == 2
    assert "is beyond the range of float16" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
