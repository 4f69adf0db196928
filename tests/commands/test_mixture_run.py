"""A mixture through the command line: what it says, its figures by part, and a stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import run
from dlm.training.log import METRICS_FILE, read_metrics
from tests.commands import noted_run
from tests.commands.test_resume import TINY, left_behind
from tests.commands.test_verbs import dialogue, flags, write

pytestmark = pytest.mark.slow

BIG, SMALL, STOP = 60, 6, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The big part's dialogues, and a small one's, of which the first tests what the big trains."""
    folder = tmp_path_factory.mktemp("mixture")
    short = [{**one, "messages": one["messages"][:3]} for one in map(dialogue, range(BIG + SMALL))]
    unlike = [{**one, "meta": {"number": n}} for n, one in enumerate(short)]
    write(folder / "big.jsonl", unlike[:BIG])
    write(folder / "big-validation.jsonl", [dialogue(n) for n in (0, 5)])
    write(folder / "small.jsonl", [dialogue(n) for n in range(SMALL)])
    write(folder / "small-validation.jsonl", [short[0], dialogue(7)])
    return folder


def words(folder: Path, workdir: str, **changes: object) -> list[str]:
    """The command line of a run in which the small part has half of the tokens."""
    parts = {
        name: {
            "name": "jsonl",
            "options": {
                "path": str(folder / f"{name}.jsonl"),
                "validation_path": str(folder / f"{name}-validation.jsonl"),
            },
            "weight": 0.5,
        }
        for name in ("big", "small")
    }
    options = {"data.path": "", "data.validation_path": "", "data.options": {"parts": parts}}
    return flags(folder, workdir, **{**TINY, "data.name": "mixture", **options, **changes})


@pytest.fixture(scope="module")
def whole(folder) -> noted_run.Note:
    """The run in one go, in the workdir of its name."""
    note = noted_run.train(words(folder, "whole"))
    assert note.status == 0
    return note


def test_a_stopped_run_ends_as_one_that_was_not(folder, whole, capsys):
    """The same dialogues in the same steps, the same parameters, log and report, to the bit."""
    first = noted_run.train(words(folder, "stopped"), STOP)
    said = capsys.readouterr().out
    assert "licence of small: not stated" in said
    assert "1 of 2 dialogues of small/validation are also in big/train, word for word" in said
    assert "note: of the tokens of an epoch: big 50.0% (" in said
    second = noted_run.train(words(folder, "stopped"))
    assert (first.status, second.status, second.first) == (130, 0, STOP + 1)
    assert first.dialogues + second.dialogues == whole.dialogues
    assert whole.leaves.keys() == second.leaves.keys()
    for path, leaf in whole.leaves.items():
        assert leaf.tobytes() == second.leaves[path].tobytes(), path
    assert left_behind(folder / "stopped") == left_behind(folder / "whole")


@pytest.mark.usefixtures("whole")
def test_figures_come_out_by_part(folder):
    """The log and the summary have each part's own; both parts have about half of the tokens."""
    summary = json.loads((folder / "whole/summary.json").read_text())
    log = [row for row in read_metrics(folder / "whole" / METRICS_FILE) if "train/loss" in row]
    for name in ("big", "small"):
        for figures in (f"validation/task:{name}/", f"before/validation/task:{name}/"):
            assert summary[f"{figures}loss"] > 0
            assert 0 <= summary[f"{figures}response_accuracy"] <= 1
        assert all(row[f"train/task:{name}/loss"] > 0 for row in log)
    for row in log:
        parts = [row[f"train/task:{name}/supervised_tokens"] for name in ("big", "small")]
        assert sum(parts) == row["train/supervised_tokens"]
    report = (folder / "whole/report.md").read_text()
    assert "| validation | small |" in report
    assert "also in train" in report


def test_data_shows_a_mixture(folder, capsys):
    assert run.guarded(["data", *words(folder, "shown")]) == 0
    said = capsys.readouterr().out
    assert ", task small: " in said
    assert "1 of 2 dialogues of small/validation are also in big/train, word for word" in said
    assert "small 50.0% (" in said


@pytest.mark.usefixtures("whole")
def test_changed_shares_are_another_run(folder, capsys):
    changed = [word.replace("0.5", "0.25", 1) for word in words(folder, "whole")]
    assert run.guarded(["train", *changed]) == 2
    assert "data.options.parts.big.weight was 0.5, now 0.25" in capsys.readouterr().err
