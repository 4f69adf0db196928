"""The verb `table` on runs of seconds: killed, gone on with, failing, and never made twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

import run
from dlm.commands.build import training_batches
from dlm.commands.table import provenance, resolver, unclaimed
from dlm.core.files import write_json
from dlm.tables.jobs import expand
from dlm.tables.spec import load
from dlm.tables.store import read_run
from tests.commands.small_run import flags

pytestmark = pytest.mark.slow  # tests/tables/test_runner.py has the same with a stand-in, quickly

ROOT = Path(run.__file__).parent
EXPERIMENT = """
from dlm.tables.spec import Column, Published, Table, Task, Variant


def get_table():
    return Table(
        title="Tiny",
        caption="Shares of responses.",
        tasks=(Task("chat", {config!r}, {overrides!r}),),
        columns=(
            Column("Loss", "chat", "validation/loss", False, 1.0),
            Column("Exact", "chat", "validation/exact_match"),
        ),
        variants=(Variant("plain"), Variant("smooth", {smooth!r}){more}),
        seeds=(0, 1),
        quick={{"train.steps": 2}},
    )
"""
SMOOTH = {"loss.name": "label_smoothing", "loss.args.epsilon": 0.1}
BROKEN = ', Variant("broken", {"train.metric": "validation/nothing"})'


def write(folder: Path, more: str = "", **changes: object) -> Path:
    """The experiment's file, its runs those of `small_run`."""
    config, _, *words = flags(folder, **{"train.steps": 6, "train.log_every": 2, **changes})
    pairs = [word.removeprefix("--config.").split("=", 1) for word in words]
    overrides = dict(pairs)
    path = folder / "tiny.py"
    source = config.removeprefix("--config=")
    path.write_text(EXPERIMENT.format(config=source, overrides=overrides, smooth=SMOOTH, more=more))
    return path


def words(path: Path, *more: str, into: Path | None = None) -> list[str]:
    workdir = f"--workdir={into or path.parent / 'table'}"
    return ["table", f"--experiment={path}", workdir, "--processes=2", *more]


def finished(path: Path) -> dict[str, int]:
    """When each run was finished, by its name without the identity."""
    found = (path.parent / "table" / "runs").glob("*/summary.json")
    return {one.parent.name.rpartition("-")[0]: one.stat().st_mtime_ns for one in found}


def test_a_table_from_its_declaration_to_its_cells(tmp_path, capsys):
    path = write(tmp_path, BROKEN)
    assert run.guarded(words(path, "--dry-run")) == 0
    listed = capsys.readouterr().out
    assert "missing  plain-chat-0-" in listed
    assert "6 runs; those that are not done:" in listed
    assert not (tmp_path / "table").exists()

    assert run.guarded(words(path, "--only=plain", "--seeds=1")) == 0
    assert set(finished(path)) == {"plain-chat-1"}
    first = finished(path)
    assert run.guarded(words(path)) == 0
    assert finished(path)["plain-chat-1"] == first["plain-chat-1"]
    assert set(finished(path)) == {f"{row}-chat-{i}" for row in ("plain", "smooth") for i in (0, 1)}
    printed = capsys.readouterr().out
    assert "train.metric='validation/nothing' is not evaluated" in printed
    assert "failed broken-chat-0" in printed

    # Kept without weights, the runs are done: the same table is written from them in no time.
    kept = tmp_path / "kept"
    assert run.guarded(["results", f"--workdir={tmp_path / 'table'}", f"--keep={kept}"]) == 0
    assert not list(kept.rglob("checkpoints"))
    written = (tmp_path / "table").rglob("environment.json")
    environments = [json.loads(one.read_text()) for one in written]
    assert {one["command"][0] for one in environments} == {"run.py"}
    last = datetime.fromisoformat(max(one["began"] for one in environments))
    assert f"last run began {last:%Y-%m-%d %H:%M} UTC" in (kept / "table.md").read_text()
    assert {one.name for one in (kept / "runs").iterdir()} == {
        one.parent.name for one in (tmp_path / "table" / "runs").glob("*/summary.json")
    }
    stamps = {one: one.stat().st_mtime_ns for one in kept.rglob("summary.json")}
    table = (kept / "table.csv").read_text().splitlines()
    (kept / "table.csv").unlink()
    assert run.guarded(words(path, "--only=plain,smooth", into=kept)) == 0
    assert stamps == {one: one.stat().st_mtime_ns for one in kept.rglob("summary.json")}
    again = (kept / "table.csv").read_text().splitlines()
    for before, after in zip(table, again, strict=True):
        assert before == after or ",broken," in after  # what failed is not kept
    capsys.readouterr()

    # Common initial weights: before training both rows measure the same, seed by seed.
    before = {
        one.parent.name.rpartition("-")[0]: json.loads(one.read_text())["validation/loss"]
        for one in (tmp_path / "table" / "runs").glob("*/before.json")
    }
    assert before["plain-chat-0"] == before["smooth-chat-0"] != before["plain-chat-1"]

    # Stored predictions that were changed since are found out.
    (workdir,) = (tmp_path / "table" / "runs").glob("plain-chat-0-*")
    stored = workdir / "predictions" / "validation.jsonl"
    lines = [json.loads(line) for line in stored.read_text().splitlines()]
    for line in lines:
        line["predicted"] = line["gold"]
    stored.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run.guarded(words(path, "--only=plain")) == 0
    assert "1/2 seeds" in capsys.readouterr().out


def test_a_killed_table_goes_on(tmp_path, capsys):
    path = write(tmp_path, **{"train.steps": 3000, "train.save_every": 20, "train.eval_every": 500})
    started = [sys.executable, "run.py", *words(path)]
    process = subprocess.Popen(started, cwd=ROOT)
    runs = tmp_path / "table" / "runs"
    for _ in range(1200):
        if list(runs.glob("*/checkpoints/*/manifest.json")):
            break
        time.sleep(0.25)
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 130
    saved = [int(one.parent.name) for one in runs.glob("*/checkpoints/*/manifest.json")]
    assert saved
    assert not finished(path)
    assert not list(runs.glob("*/failure.json"))
    process = subprocess.Popen(started, cwd=ROOT)
    for _ in range(1200):
        logs = [one.read_text() for one in runs.glob("*/log.txt")]
        if any("resuming" in log for log in logs):
            break
        time.sleep(0.25)
    process.kill()
    process.wait()
    assert any("resuming" in log for log in logs)


def test_an_undeclared_difference_is_refused_in_one_line(tmp_path, capsys):
    path = write(tmp_path)
    config = tmp_path / "coupled.py"
    config.write_text(
        (ROOT / "configs" / "jsonl.py")
        .read_text()
        .replace(
            "    return config",
            "    config.loss.chunk = config.train.get_ref('log_every')\n    return config",
        )
    )
    text = path.read_text().replace(str(ROOT / "configs" / "jsonl.py"), str(config))
    path.write_text(text.replace(repr(SMOOTH), repr({"train.log_every": 3})))
    assert run.guarded(words(path)) == 2
    message = capsys.readouterr().err
    assert "variant 'smooth' against 'plain', task 'chat': loss.chunk differs (2 and 3)" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "table" / "runs").exists()


def test_what_is_no_table_is_told(tmp_path, capsys):
    path = write(tmp_path)
    for more, message in {
        "--only=plane": "--only: 'plane' is not in the table; it has 'plain', 'smooth'",
        "--seeds=2": "--seeds: '2' is not in the table; it has '0', '1'",
        "--fast": "table does not know '--fast'",
    }.items():
        assert run.guarded(words(path, more)) == 2
        assert message in capsys.readouterr().err
    assert run.guarded(["table"]) == 2
    assert "no experiment is named; add --experiment=" in capsys.readouterr().err


def test_a_run_that_failed_before_it_began_tells_no_provenance(tmp_path):
    write_json(tmp_path / "failure.json", {"reason": "no room", "identity": "1"})
    record = read_run(tmp_path)
    assert record is not None
    assert provenance([record]) == {}


def test_rows_of_one_seed_read_the_same_dialogues_in_the_same_order(tmp_path):
    """C54: what a row changes leaves the batches of its seed as they are."""
    table = load(write(tmp_path))
    read = {}
    for one in expand(table, tmp_path, resolver()):
        batches = training_batches(unclaimed(one.words))
        read[one.variant.name, one.seed] = [batches.dialogues(step) for step in range(12)]
    assert read["plain", 0] == read["smooth", 0] != read["plain", 1] == read["smooth", 1]


def test_a_row_that_begins_from_anothers_run_is_made_after_it(tmp_path, capsys):
    """Choosing it chooses the other; its weights begin where those of its own seed ended."""
    path = write(tmp_path, ', Variant("longer", {"init": RunOf("smooth")})')
    path.write_text(path.read_text().replace("Published", "RunOf"))
    assert run.guarded(words(path, "--dry-run", "--only=longer")) == 0
    assert "waits    longer-chat-0: for smooth, which is not done" in capsys.readouterr().out
    assert run.guarded(words(path, "--only=longer")) == 0
    assert set(finished(path)) == {
        f"{row}-chat-{i}" for row in ("smooth", "longer") for i in (0, 1)
    }
    runs = tmp_path / "table" / "runs"
    for seed in (0, 1):
        (ended,) = runs.glob(f"smooth-chat-{seed}-*/summary.json")
        (begun,) = runs.glob(f"longer-chat-{seed}-*/before.json")
        figures = [json.loads(one.read_text())["validation/loss"] for one in (ended, begun)]
        assert figures[0] == figures[1]
        identity = json.loads((begun.parent / "identity.json").read_text())
        assert (
            identity["init"] == json.loads((ended.parent / "identity.json").read_text())["identity"]
        )
    kept = tmp_path / "kept"
    assert run.guarded(["results", f"--workdir={tmp_path / 'table'}", f"--keep={kept}"]) == 0
    capsys.readouterr()
    assert run.guarded(words(path, "--dry-run", "--only=longer", into=kept)) == 0
    states = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert states == ["done"] * 4 + ["4"]
