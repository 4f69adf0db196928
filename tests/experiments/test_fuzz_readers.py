"""Damaged records end in dialogues or one clear line; the fuzzer itself sees what does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.corpora.registry import CORPORA
from dlm.dialogue import readers
from dlm.dialogue.schema import Dialogue, Message
from experiments import fuzz_corpora, fuzzing
from experiments.fuzz_readers import damaged_records
from experiments.fuzzing import MISCOUNTED, READ, REFUSED, Case, fuzz, outcome

ROOT = Path(os.environ.get("DLM_DATA_DIR", ""))
SAID = (Message("user", "a"), Message("assistant", "b"))


def test_damaged_records_end_in_a_dialogue_or_one_line():
    """2,000 records over all formats: no traceback, no hang, and both outcomes occur."""
    result = fuzz(damaged_records(2000, seed=1))
    assert result["failures"] == []
    assert set(result["counts"]) == set(readers.FORMATS)
    for counts in result["counts"].values():
        assert counts[READ] > 20
        assert counts[REFUSED] > 100


@pytest.mark.parametrize("error", [KeyError("x"), RecursionError(), ValueError("two\nlines")])
def test_a_traceback_is_seen(monkeypatch, error):
    """A reader that raises anything else is a failure, with its record."""

    def broken(record, where):
        raise error

    monkeypatch.setitem(readers.FORMATS, "dlm", broken)
    result = fuzz(damaged_records(40, seed=1))
    assert {failure["source"] for failure in result["failures"]} == {"dlm"}
    assert type(error).__name__ in result["failures"][0]["failure"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("a.txt:3: no number", REFUSED),
        ("a.txt: 3 rows; the release has 4 rows", MISCOUNTED),
        ("a.txt:3: two\nlines", "not one clear line"),
        ("a.txt:3: \x1b[31m", "not one clear line"),
        ("a.txt:3: " + "x" * 1000, "not one clear line"),
        ("no number", "no place"),
    ],
)
def test_a_line_is_held_to_what_is_promised(line, found):
    def read():
        raise UserError(line)

    assert outcome(Case("x", "", read, ("a.txt",))).startswith(found)


def test_a_hang_is_seen(monkeypatch):
    def read():
        while True:
            pass

    monkeypatch.setattr(fuzzing, "SECONDS", 0.2)
    [failure] = fuzz([Case("x", "the record", read, ())])["failures"]
    assert failure["failure"].startswith("TimeoutError: longer than 0.2 s")
    assert failure["record"] == "the record"


def test_dialogues_must_come_back():
    """One that JSON gives back changed is a failure: a tuple in its meta."""
    assert outcome(Case("x", "", lambda: [Dialogue("a", SAID)], ())) == READ
    changed = Dialogue("a", SAID, meta={"x": (1,)})
    assert "another" in outcome(Case("x", "", lambda: [changed], ()))


def test_damaged_corpora_end_in_dialogues_or_one_line():
    """Some cases of every corpus that is there: no traceback, no hang, and all outcomes occur."""
    absent = fuzz_corpora.absent(ROOT)
    known = {source.corpus for source in fuzz_corpora.SOURCES}
    assert known == CORPORA.keys() - {"concierge", "jsonl", "mixture"}
    if known == set(absent):
        pytest.skip("no corpus is there; set DLM_DATA_DIR to the folder that holds them")
    result = fuzz(fuzz_corpora.damaged_files(320, 1, ROOT))
    assert result["failures"] == []
    assert result["counts"].keys() == known - set(absent)
    for found, least in ((READ, 0.2), (REFUSED, 0.2), (MISCOUNTED, 0)):
        share = sum(counts.get(found, 0) for counts in result["counts"].values()) / result["cases"]
        assert share > least, found
