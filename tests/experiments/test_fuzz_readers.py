"""Damaged records end in a dialogue or one clear line; the fuzzer itself sees what does not."""

from __future__ import annotations

import pytest

from dlm.dialogue import readers
from experiments import fuzz_readers


def test_damaged_records_end_in_a_dialogue_or_one_line():
    """2,000 records over all formats: no traceback, no hang, and both outcomes occur."""
    result = fuzz_readers.fuzz(2000, seed=1)
    assert result["failures"] == []
    assert set(result["counts"]) == set(readers.FORMATS)
    for counts in result["counts"].values():
        assert counts["dialogue"] > 20
        assert counts["refused"] > 100


@pytest.mark.parametrize("error", [KeyError("x"), RecursionError(), ValueError("two\nlines")])
def test_a_traceback_is_seen(monkeypatch, error):
    """A reader that raises anything else is a failure, with its record."""

    def broken(record, where):
        raise error

    monkeypatch.setitem(readers.FORMATS, "dlm", broken)
    result = fuzz_readers.fuzz(40, seed=1)
    assert {failure["format"] for failure in result["failures"]} == {"dlm"}
    assert type(error).__name__ in result["failures"][0]["failure"]
