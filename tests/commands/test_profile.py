"""The verb `profile` on a run of a second or two."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

import run
from tests.commands.small_run import flags


def test_a_profile_names_the_operations_of_a_step(tmp_path, capsys):
    assert run.guarded(["profile", *flags(tmp_path), "--steps=2", "--top=12"]) == 0
    told = capsys.readouterr().out
    rows = re.findall(r"^ +([\d.,]+) +([\d.]+)% +([\d,]*) +(.*)$", told, re.MULTILINE)
    assert len(rows) == 12 + 1
    assert re.search(r"% +\d+ more$", told, re.MULTILINE)
    milliseconds = [float(row[0].replace(",", "")) for row in rows]
    assert milliseconds[:-1] == sorted(milliseconds[:-1], reverse=True)
    assert sum(float(row[1]) for row in rows) == pytest.approx(100, abs=1)
    named = re.findall(
        r"(?:forward|backward) \w+ +layers/\*/\w+\S* +(dlm/models/\w+\.py):\d+", told
    )
    assert named

    trace = re.search(r"trace: (\S+\.json\.gz) ", told)
    assert trace
    events = json.loads(gzip.decompress(Path(trace[1]).read_bytes()))["traceEvents"]
    assert sum(event.get("name") == "train" for event in events) == 2
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["profile"]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("extra", "profile does not know 'extra'"),
        ("--steps=0", "--steps=0 is no number above 0"),
        ("--top=x", "--top=x is no number above 0"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, word, told):
    assert run.guarded(["profile", *flags(tmp_path), word]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
