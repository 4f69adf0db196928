"""A run that begins with a checkpoint and speaks in its chat template, through all verbs."""

from __future__ import annotations

import io
import json
import sys

import jax
import pytest

import run
from dlm.commands import start
from dlm.commands.setup import Setup, parse_options
from dlm.dialogue.chat_template import ChatTemplate
from dlm.dialogue.readers import read
from dlm.dialogue.schema import Dialogue, Message
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model
from dlm.weights import export
from tests.commands.test_verbs import dialogue, flags, write
from tests.dialogue.chat_forms import checkpoint

STEPS = 160


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small checkpoint of random weights in ChatML's form, and a run that learned from it."""
    folder = tmp_path_factory.mktemp("template")
    tokenizer = checkpoint("chatml")
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, num_layers=2, width=64, num_heads=2, max_length=128
    )
    (folder / "start").mkdir()
    params = Model(config).init(jax.random.key(1))
    export.write_huggingface(folder / "start", params, config)
    tokenizer.save_pretrained(folder / "start", tokenizer.pretrained.chat_template)
    write(folder / "train.jsonl", list(map(dialogue, range(8))))
    write(folder / "validation.jsonl", [dialogue(n) for n in (0, 5)])
    assert run.guarded(["train", *words(folder, "done")]) == 0
    return folder


def words(folder, workdir):
    changes = {"init": folder / "start", "template.name": "checkpoint", "train.steps": STEPS}
    return flags(folder, workdir, **changes, **{"data.length": 100})


def test_it_learns_its_rounds_and_is_measured(folder):
    """Teacher-forced, generated and by channel: the light tags are read back as channels."""
    summary = json.loads((folder / "done" / "summary.json").read_text())
    assert summary["validation/response_accuracy"] > 0.7
    assert summary["validation/exact_match"] == summary["validation/response_accuracy"]
    assert summary["validation/task:colours/state_accuracy"] > 0.7
    setup = Setup(parse_options([f"--workdir={folder / 'done'}"], saved=True))
    assert isinstance(setup.template, ChatTemplate)
    assert setup.tokenizer.digest == checkpoint("chatml").digest


def test_it_generates_and_talks(folder, tmp_path, monkeypatch, capsys):
    asked = {"id": "q", "messages": [{"role": "user", "content": "I like red"}]}
    source, target = write(tmp_path / "in.jsonl", [asked]), tmp_path / "out.jsonl"
    given = [f"--workdir={folder / 'done'}", f"--input={source}", f"--output={target}"]
    assert run.guarded(["generate", *given]) == 0
    (answered,) = read(target)
    said = [(message.channel, message.content) for message in answered.messages[1:]]
    assert said == [("state", "red"), ("reply", "red it is")]
    monkeypatch.setattr(sys, "stdin", io.StringIO("I like red\n/quit\n"))
    assert run.guarded(["chat", f"--workdir={folder / 'done'}", "--show=state"]) == 0
    assert capsys.readouterr().out.endswith(f"failed: {target}\n[state] red\nred it is\n")


def test_it_goes_out_with_its_template(folder, tmp_path):
    """Out: the transformers library prompts it as we do."""
    transformers = pytest.importorskip("transformers")
    given = [f"--source={folder / 'done'}", f"--target={tmp_path / 'out'}"]
    assert run.guarded(["export", *given, "--format=huggingface"]) == 0
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    setup = Setup(parse_options([f"--workdir={folder / 'done'}"], saved=True))
    messages = [{"role": "user", "content": "hi"}]
    ids = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids == setup.template.prompt(Dialogue("d", (Message("user", "hi"),)))


def test_tokens_that_the_checkpoint_has_no_rows_for_get_new_ones(folder):
    """The built-in template adds control tokens; without rows of their own they would be noise."""
    changes = {"init": folder / "start", "template.name": "builtin"}
    setup = Setup(parse_options(flags(folder, "grown", **changes)))
    known = start.source_tokenizer(str(folder / "start"))
    assert known is not None
    config, tokenizer = setup.model.config, setup.tokenizer
    assert config.new_tokens == tokenizer.vocab_size - known.vocab_size > 0
    assert config.vocab_size == tokenizer.vocab_size
    assert tokenizer.control("<|user|>") >= known.vocab_size
