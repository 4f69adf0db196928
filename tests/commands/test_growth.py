"""A run whose tokenizer extends that of the model it starts from: what is learned, what is not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import run
from dlm.commands import start
from dlm.commands.settings import base
from dlm.commands.setup import Setup, parse_options
from dlm.core.errors import UserError
from dlm.core.paths import flatten
from dlm.dialogue.tokenizer import CONTROL, Tokenizer, TokenizerConfig, train
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model
from dlm.models.vocabulary import is_hidden
from dlm.training.checkpoints import Checkpoints
from dlm.weights.sources import open_source

CONFIG = Path(run.__file__).parent / "configs" / "jsonl.py"
NEW = ("<|reason|>", "<|act|>")  # the corpus has acts and no reasons
RULES = r"((r'layers/1/.*', True), (r'.*', False))"
DIALOGUE = {
    "messages": [
        {"role": "user", "content": "red or blue"},
        {"role": "assistant", "channel": "act", "content": "choose"},
        {"role": "assistant", "content": "blue"},
    ]
}


def flags(folder: Path, workdir: str, **changes: object) -> list[str]:
    config = {
        "init": folder / "old",
        "tokenizer.path": folder / "extended",
        "data.path": folder / "data.jsonl",
        "data.validation_path": folder / "data.jsonl",
        "data.cache_dir": folder / "cache",
        "data.length": 32,
        "data.rows": 2,
        "train.epochs": None,
        "train.steps": 4,
        "train.trainable": RULES,
        "eval.dialogues": 1,
        "generate.max_new_tokens": 4,
        "model.num_layers": 4,  # what jsonl.py says is unsaid: these are the defaults
        "model.width": 128,
        "model.num_heads": 4,
        **changes,
    }
    words = [f"--config.{name}={value}" for name, value in config.items()]
    return [f"--config={CONFIG}", f"--workdir={folder / workdir}", *words]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run `old` of random weights without two control tokens, and a tokenizer that has them."""
    folder = tmp_path_factory.mktemp("growth")
    (folder / "data.jsonl").write_text(f"{json.dumps(DIALOGUE)}\n")
    learned = train(["red or blue"] * 3, [], TokenizerConfig(vocab_size=280))
    known = [name for name in CONTROL if name not in NEW]
    old = Tokenizer(learned._text, known)
    old.save(folder / "old" / start.TOKENIZER)
    old.with_control(NEW).save(folder / "extended")
    Tokenizer(learned._text, [*known[::-1], *NEW]).save(folder / "other")
    config = ModelConfig(
        vocab_size=old.vocab_size + 3,  # three rows of padding
        num_layers=2,
        width=16,
        num_heads=2,
        max_length=256,
        tied=False,
        masked=True,
    )
    (folder / "old" / start.CONFIG_FILE).write_text(json.dumps(base().to_dict()))
    (folder / "old" / start.MODEL_FILE).write_text(json.dumps(dataclasses.asdict(config)))
    params = Model(config).init(jax.random.key(0))
    params["head"]["mask"] = params["head"]["mask"].at[-3:].set(False)
    with Checkpoints(
        folder / "old" / start.CHECKPOINTS, digests={"tokenizer": old.digest}, lower_is_better=True
    ) as checkpoints:
        checkpoints.save(1, {"params": params})
    assert run.guarded(["train", *flags(folder, "new")]) == 0
    return folder


def setup_of(workdir: Path) -> Setup:
    return Setup(parse_options([f"--workdir={workdir}"], saved=True))


def test_new_rows_take_the_place_of_padding_and_are_saved(folder):
    """The run keeps its own shape, so that nothing of it depends on where it started."""
    old, new = setup_of(folder / "old"), setup_of(folder / "new")
    config = new.model.config
    assert config.vocab_size == new.tokenizer.vocab_size == old.tokenizer.vocab_size + 2
    assert (config.new_tokens, config.masked, config.num_layers) == (2, True, 2)
    before, after = flatten(old.trained_params()), flatten(new.trained_params())
    tokens = old.tokenizer.vocab_size
    for path in ("embedding/tokens", "head/kernel"):
        np.testing.assert_array_equal(after[path], before[path][:tokens])
    assert after.keys() - before.keys() == {"embedding/new_tokens", "head/new_kernel"}


def test_rows_are_open_where_the_corpus_supervises_them(folder):
    """The act's is learned though the tables are frozen; the reason's keeps its first value."""
    setup = setup_of(folder / "new")
    params = setup.trained_params()
    reason, act = (setup.tokenizer.control(name) for name in NEW)
    mask = np.asarray(params["head"]["mask"])
    assert set(np.flatnonzero(~mask)) == {reason}
    first = flatten(Setup(parse_options(flags(folder, "fresh"))).initial_params())
    kernel, rows = params["head"]["new_kernel"], params["embedding"]["new_tokens"]
    assert (np.asarray(kernel[0]) == np.asarray(first["head/new_kernel"][0])).all()
    assert (np.asarray(kernel[1]) != np.asarray(first["head/new_kernel"][1])).any()
    assert (np.asarray(rows[0]) == np.asarray(first["embedding/new_tokens"][0])).all()
    assert (np.asarray(rows[1]) != np.asarray(first["embedding/new_tokens"][1])).any()
    logits = setup.model.logits(params, np.ones((1, 16), np.float32))
    assert np.flatnonzero(is_hidden(logits[0])).tolist() == [reason]
    assert act not in np.flatnonzero(is_hidden(logits[0]))


def test_a_run_may_go_on_from_a_grown_one(folder):
    """Nothing grows, nothing closes; the source may not even be there any more."""
    again = Setup(
        parse_options(flags(folder, "again", init=folder / "new", **{"tokenizer.path": ""}))
    )
    source = setup_of(folder / "new").trained_params()
    jax.tree.map(np.testing.assert_array_equal, again.initial_params(), source)


def test_export_writes_one_table(folder, tmp_path):
    """What others load gives the logits of every token that may be written."""
    workdir, target = folder / "new", tmp_path / "out"
    words = [f"--source={workdir}", f"--target={target}", "--format=huggingface"]
    assert run.guarded(["export", *words]) == 0
    source = open_source(str(target))
    model = Model(source.config)
    setup = setup_of(workdir)
    assert source.config.vocab_size == setup.tokenizer.vocab_size
    params = setup.trained_params()
    open_tokens = np.asarray(params["head"]["mask"])
    row = np.array([[3, setup.tokenizer.control("<|act|>"), 5, 270]], np.int32)
    ones, positions = np.ones_like(row), np.arange(4, dtype=np.int32)[None]
    logits = [
        m.logits(p, m.hidden(p, row, positions, ones))[..., open_tokens]
        for m, p in ((setup.model, params), (model, source.load(model)))
    ]
    np.testing.assert_allclose(logits[1], logits[0], rtol=1e-5, atol=1e-6)


def test_a_tokenizer_that_changes_what_the_model_knows_is_refused(folder):
    setup = Setup(parse_options(flags(folder, "x", **{"tokenizer.path": folder / "other"})))
    with pytest.raises(UserError, match=r"other: id \d+ is '<\|reply\|>', the model of init knows"):
        _ = setup.tokenizer


def test_a_vocabulary_of_a_round_size_is_padded_with_masked_rows(folder):
    """From scratch: rows that no token has get no probability; too few rows are refused."""
    changes = {"init": "scratch", "tokenizer.path": folder / "extended", "model.width": 16}
    setup = Setup(parse_options(flags(folder, "x", **changes, **{"model.vocab_size": 320})))
    mask = setup.initial_params()["head"]["mask"]
    tokens = setup.tokenizer.vocab_size
    np.testing.assert_array_equal(mask, np.arange(320) < tokens)
    setup = Setup(parse_options(flags(folder, "x", **changes, **{"model.vocab_size": 200})))
    with pytest.raises(UserError, match=rf"model\.vocab_size=200 is below the {tokens} tokens"):
        _ = setup.model
