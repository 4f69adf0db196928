"""Every table that is declared: its configs, its overrides, and what its rows differ in."""

from __future__ import annotations

from pathlib import Path

import pytest

import run
from dlm.commands.setup import parse_options
from dlm.core.config import flat
from dlm.core.files import digest
from dlm.losses import binding
from dlm.tables.jobs import Resolved, expand
from dlm.tables.spec import load

FOLDER = Path(run.__file__).parent / "experiments"
TABLES = [path for path in sorted(FOLDER.glob("*.py")) if "def get_table" in path.read_text()]


def resolve(words: list[str], *, identified: bool = True) -> Resolved:
    options = parse_options(words)
    assert not options.rest
    loss = options.settings.loss
    known = binding.Known(lambda text: 0, lambda name: None)  # type: ignore[arg-type,return-value]
    binding.bind(binding.find(loss.name), loss.args, known)
    settings = flat(options.resolved)
    return Resolved(settings, digest(settings) if identified else "")


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_declared_table_expands(path, quick, tmp_path, monkeypatch):
    monkeypatch.chdir(FOLDER.parent)
    table = load(path)
    runs = expand(table, tmp_path, resolve, quick=quick)
    assert len({one.workdir for one in runs}) == len(runs)
    splits = {one.task.name: one.config["eval.splits"] for one in runs}
    for column in table.columns:
        split = column.metric.split("/")[0]
        assert split == "train" or split in splits[column.task]
    limits = [(one.config["train.steps"], one.config["train.epochs"]) for one in runs]
    assert all((steps is None) != (epochs is None) for steps, epochs in limits)
