"""The store of runs: what workdirs say, kept whole while several processes write."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import run
from dlm.core.errors import UserError
from dlm.tables.store import Record, Store, read_run

RECORD = Record(
    workdir="/a/x",
    identity="9f",
    name="x",
    seed=3,
    state="done",
    reason="",
    seconds=1.5,
    commit="c0",
    config={"seed": 3, "train": {"steps": 2}},
    figures={"test/bleu": 0.25, "test/loss": None},
    signatures={"bleu": "nrefs:1 – case:mixed"},
    sources={"m": "d"},
)
WRITER = """
import sys
from dataclasses import replace
from dlm.tables.store import Store
from tests.tables.test_store_of_runs import RECORD
for number in range(25):
    name = f"{sys.argv[2]}-{number}"
    Store(sys.argv[1]).put([replace(RECORD, workdir=f"/{name}/{half}", name=name) for half in "ab"])
"""


def write_run(workdir: Path, **files: object) -> Path:
    """A workdir with files of JSON, `summary` for `summary.json`."""
    workdir.mkdir(parents=True)
    for name, content in files.items():
        (workdir / f"{name}.json").write_text(json.dumps(content))
    return workdir


def test_what_is_put_comes_back_and_a_second_put_replaces(tmp_path):
    store = Store(tmp_path / "new" / "results.sqlite")
    assert store.records() == []
    store.put([RECORD, replace(RECORD, workdir="/a/b", name="b", seconds=None)])
    store.put([replace(RECORD, state="failed", reason='it\'s "out"', figures={})])
    second, first = store.records()[::-1][:2]
    assert first.name == "b"
    assert first.seconds is None
    assert second == replace(RECORD, state="failed", reason='it\'s "out"', figures={})


def test_a_workdir_tells_its_state(tmp_path):
    config, identity = (
        {"seed": 2, "init": "scratch"},
        {"identity": "ab", "commit": None, "sources": {"m": "d"}},
    )
    done = write_run(
        tmp_path / "done", config=config, identity=identity, summary={"train/seconds": 2.0}
    )
    failure = {"status": 2, "reason": "no room"}
    failed = write_run(tmp_path / "failed", config=config, identity=identity, failure=failure)
    missing = write_run(tmp_path / "missing", config=config)
    records = [read_run(workdir) for workdir in (done, failed, missing)]
    assert [(r.state, r.reason, r.identity, r.seconds) for r in records if r] == [
        ("done", "", "ab", 2.0),
        ("failed", "no room", "ab", None),
        ("missing", "", "", None),
    ]
    early = write_run(tmp_path / "early", failure={"reason": "no corpus", "identity": "cd"})
    record = read_run(early)
    assert record is not None
    assert (record.state, record.reason, record.identity) == ("failed", "no corpus", "cd")
    assert read_run(tmp_path) is None
    (done / "summary.json").write_text("{")
    with pytest.raises(UserError, match=r"done/summary.json:1:2: not valid JSON"):
        read_run(done)


def test_it_is_rebuilt_from_workdirs_alone(tmp_path):
    store = Store(tmp_path / "results.sqlite")
    store.put([RECORD])
    first = write_run(
        tmp_path / "runs" / "a", config={"seed": 0, "init": "x"}, summary={"test/loss": 1.0}
    )
    write_run(tmp_path / "runs" / "deep" / "b", config={"seed": 1, "init": "x"})
    write_run(tmp_path / "runs" / "a" / "export", config={"model_type": "gpt2"})
    assert [record.name for record in store.rebuild([tmp_path / "runs"])] == ["a", "b"]
    before = store.records()
    store.path.unlink()
    assert store.rebuild([tmp_path / "runs"]) == before
    assert before[0].workdir == str(first)


def test_a_transaction_that_fails_leaves_nothing(tmp_path):
    store = Store(tmp_path / "results.sqlite")
    with pytest.raises(TypeError, match="not JSON serializable"):
        store.put([RECORD, replace(RECORD, workdir="/b", config={"x": object()})])
    assert store.records() == []


def test_four_processes_write_at_once_and_nothing_is_lost(tmp_path):
    path = tmp_path / "results.sqlite"
    root = Path(run.__file__).parent
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, str(number)], cwd=root)
        for number in range(4)
    ]
    while any(writer.poll() is None for writer in writers):
        names = [record.name for record in Store(path).records()]
        assert all(names.count(name) == 2 for name in names)  # pairs come whole
    assert [writer.returncode for writer in writers] == [0] * 4
    assert len(Store(path).records()) == 4 * 25 * 2
