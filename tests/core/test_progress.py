from __future__ import annotations

import io
import sys

import pytest

from dlm.core import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves by hand."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_come_at_most_every_five_seconds_and_at_the_end(clock, capsys):
    with progress.Progress(10, "training") as shown:
        for done in range(1, 10):
            shown.update(done, loss=1 / done, tokens_per_second=12345.6)
            clock[0] += 2.0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "training: step 1/10, loss 1, tokens/s 12,346, ?:?? left",
        "training: step 4/10, loss 0.25, tokens/s 12,346, 0:12 left",
        "training: step 7/10, loss 0.1429, tokens/s 12,346, 0:06 left",
        "training: step 9/10, loss 0.1111, tokens/s 12,346, 0:02 left",
    ]


def test_of_a_task_of_unknown_length_the_time_left_is_not_said(clock, capsys):
    with progress.Progress(None, "preparing", "dialogue") as shown:
        shown.update(1)
        shown.update(2345, files=2)
    assert capsys.readouterr().out.splitlines() == [
        "preparing: dialogue 1",
        "preparing: dialogue 2,345, files 2",
    ]


def test_the_end_is_said_once(clock, capsys):
    with progress.Progress(7, "scoring", unit="batch") as shown:
        shown.update(7)
    assert capsys.readouterr().out == "scoring: batch 7/7, 0:00 left\n"


def test_time_left_is_that_of_the_pace_since_the_first_update(clock, capsys):
    with progress.Progress(1001, "training") as shown:
        clock[0] += 500.0  # compilation
        shown.update(1)
        clock[0] += 100.0
        shown.update(11)
    assert capsys.readouterr().out.splitlines()[-1] == "training: step 11/1,001, 2:45:00 left"


def test_nothing_is_said_of_a_task_that_never_began(capsys):
    with progress.Progress(7, "training"):
        pass
    assert capsys.readouterr().out == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_that_lines_do_not_tear(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress.Progress(10, "training [x]") as shown:
        shown.update(5, loss=2.5)
        shown.say("saved [step 5]")
    text = terminal.getvalue()
    assert "training [x]" in text
    assert "step 5/10, loss 2.5, ?:?? left" in text
    assert "saved [step 5]\n" in text


def test_a_bar_may_stand_under_another(clock, monkeypatch):
    """Validation while training: both are drawn at once, and the outer one goes on after it."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress.Progress(10, "training") as outer:
        outer.update(5)
        with progress.Progress(3, "scoring", "batch") as inner:
            inner.update(3)
        outer.update(6)
    text = terminal.getvalue()
    assert "batch 3/3" in text
    assert text.rindex("step 6/10") > text.rindex("batch 3/3")


def test_say_prints_where_there_is_no_bar(capsys):
    with progress.Progress(10, "training") as shown:
        shown.say("saved [step 5]")
    assert capsys.readouterr().out == "saved [step 5]\n"
