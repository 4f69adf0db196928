"""What a run needs is found in files of any size."""

from __future__ import annotations

import json

import numpy as np
from small_run import flags

from dlm.commands import setup
from dlm.commands.build import Unclaimed
from dlm.commands.setup import parse_options


def test_a_tokenizer_is_learned_from_dialogues_evenly_spaced(tmp_path, monkeypatch):
    """Of 7 dialogues at most 3, and the entities of the same ones."""
    path, held = tmp_path / "train.jsonl", tmp_path / "held.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"say {i}"}], "meta": {"entities": [f"name {i}"]}}
        for i in range(7)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    held.write_text(json.dumps({"messages": [{"role": "user", "content": "other"}]}))
    made = []

    def make(texts, entities, config):
        made.append((list(texts), sorted(entities)))

    monkeypatch.setattr(setup, "LEARNED_FROM", 3)
    monkeypatch.setattr(setup.pretrained, "make", make)
    words = [
        "--config=configs/jsonl.py",
        f"--config.data.path={path}",
        f"--config.data.validation_path={held}",
        f"--config.data.cache_dir={tmp_path / 'cache'}",
        f"--workdir={tmp_path / 'run'}",
    ]
    assert Unclaimed(parse_options(words)).tokenizer is None
    assert made == [(["say 0", "say 3", "say 6"], ["name 0", "name 3", "name 6"])]


def test_learned_tokens_are_those_of_all_splits_however_they_are_read(tmp_path, monkeypatch):
    small = Unclaimed(parse_options(flags(tmp_path)))
    found = small.learned_tokens()
    wanted = set()
    for split in small.corpus.splits:
        arrays = small.pieces(split, evaluation=split != "train").arrays
        wanted |= set(arrays["targets"][arrays["loss_weights"] > 0].tolist())
    assert found.dtype == np.int32
    assert found.tolist() == sorted(wanted)
    monkeypatch.setattr(setup, "AT_ONCE", 1)
    assert small.learned_tokens().tolist() == found.tolist()
