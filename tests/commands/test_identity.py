"""A run's identity: what changes it, and what must not."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

import run
from dlm.commands.build import Unclaimed
from dlm.commands.identity import FREE, identify
from dlm.commands.setup import parse_options
from tests.commands.small_run import flags

LOSS = "from dlm.losses.cross_entropy import cross_entropy\n\n\ndef mine(logits, targets, aux):\n"


def identity(folder: Path, **changes: object) -> str:
    return identify(Unclaimed(parse_options(flags(folder, **changes))))["identity"]


@pytest.fixture
def module(tmp_path, monkeypatch) -> Path:
    """A module of the user's own on the path, with a loss in it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "losses_of_mine", raising=False)
    path = tmp_path / "losses_of_mine.py"
    path.write_text(f"{LOSS}    return cross_entropy(logits, targets, aux)\n")
    return path


def test_settings_that_no_result_depends_on_do_not_enter(tmp_path):
    plain = identity(tmp_path)
    free = {
        "data.cache_dir": tmp_path / "elsewhere",
        "train.log_every": 3,
        "train.accumulate": 2,
        "loss.chunk": 17,
        "model.attention": "xla",
        "model.remat": "layers",
        "model.scan_layers": True,
    }
    assert free.keys() == FREE
    for name, value in {**free, "mesh.data": 2}.items():
        assert identity(tmp_path, **{name: value}) == plain, name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 1),
        ("train.steps", 31),
        ("loss.name", "focal"),
        ("loss.args.gamma", 1.0),
        ("data.rows", 4),
        ("policy.expand", True),
        ("eval.dialogues", 3),
        ("init", "smollm2-135m"),
    ],
)
def test_settings_that_results_depend_on_do(tmp_path, name, value):
    assert identity(tmp_path, **{name: value}) != identity(tmp_path)


def test_data_enter_by_their_content_not_by_their_path(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
    plain = identity(first)
    assert identity(second, **{"data.cache_dir": second / "cache"}) == plain
    flags(second)
    text = (second / "data.jsonl").read_text().replace("blue", "teal")
    (second / "other.jsonl").write_text(text)
    assert identity(second, **{"data.path": second / "other.jsonl"}) != plain


def test_the_source_of_a_loss_enters_as_does_that_of_a_summed_one(tmp_path, module):
    name = f"{module.stem}:mine"
    alone = {"loss.name": name}
    terms = {name: 0.5, "cross_entropy": 0.5}
    summed = {"loss.name": "weighted", "loss.args.terms": terms}
    before = [identity(tmp_path, **changes) for changes in (alone, summed)]
    assert before == [identity(tmp_path, **changes) for changes in (alone, summed)]
    module.write_text(f"{LOSS}    return 2 * cross_entropy(logits, targets, aux)\n")
    after = [identity(tmp_path, **changes) for changes in (alone, summed)]
    assert before[0] != after[0]
    assert before[1] != after[1]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a finished run, `run`."""
    folder = tmp_path_factory.mktemp("identity")
    assert run.guarded(["train", *flags(folder, **{"train.steps": 2, "eval.dialogues": 0})]) == 0
    return folder


def test_train_writes_the_identity_beside_the_config(trained):
    written = json.loads((trained / "run" / "identity.json").read_text())
    assert written["identity"] == identity(trained, **{"train.steps": 2, "eval.dialogues": 0})
    assert written["numerics"] == 1
    assert set(written["sources"]) == {
        "dlm.losses.cross_entropy",
        "dlm.evaluation.scorers.exact_match",
        "dlm.evaluation.scorers.bleu",
    }
    assert "commit" in written
    assert str(trained) not in json.dumps(written)


def test_a_run_to_start_from_enters_by_what_it_is_not_where_it_lies(trained, tmp_path):
    moved, cut, other = (tmp_path / name for name in ("moved", "cut", "other"))
    for folder in (moved, cut):
        shutil.copytree(trained / "run", folder)
    (cut / "summary.json").unlink()
    steps = {"train.steps": 3, "eval.dialogues": 0}
    assert run.guarded(["train", *flags(trained, **steps), f"--workdir={other}"]) == 0
    first, *rest = (
        identity(trained, init=init) for init in (trained / "run", moved, cut, other, "scratch")
    )
    assert rest[0] == first
    assert len({first, *rest[1:]}) == 4  # a run that is not finished is what its weights are


def test_a_run_whose_loss_was_changed_since_is_not_gone_on_with(tmp_path, module, capsys):
    words = flags(tmp_path, **{"loss.name": f"{module.stem}:mine", "train.steps": 2})
    assert run.guarded(["train", *words]) == 0
    module.write_text(f"{LOSS}    return 2 * cross_entropy(logits, targets, aux)\n")
    assert run.guarded(["train", *words]) == 2
    assert (
        "holds another run: its sources (dlm.evaluation.scorers.bleu, " in capsys.readouterr().err
    )
