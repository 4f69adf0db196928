"""What stands in a table's cells: worked by hand, and what a cell must never claim."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_table import ACCURACY, BASE, SECONDS, of_seeds, sample

from dlm.tables.cells import Cell
from dlm.tables.layout import Entry, complete, entry, figure, lay_out, printed
from dlm.tables.spec import Column, Variant


def texts(results, row: str) -> list[tuple[str, str]]:
    (found,) = [r for r in lay_out(results).ours if r.name.text == row]
    return [(e.text, e.under) for e in found.entries]


def test_a_whole_cell_is_mean_deviation_and_count_with_each_seed_below():
    # (69 + 70 + 71) / 3 = 70, s = sqrt((1 + 0 + 1) / 2) = 1
    assert texts(sample(), "base")[0] == ("70.0 ± 1.0 (3)", "69.0, 70.0, 71.0")
    # (70 + 72 + 74) / 3 = 72, s = sqrt((4 + 0 + 4) / 2) = 2
    assert texts(sample(), "better")[0] == ("72.0 ± 2.0 (3)", "70.0, 72.0, 74.0")
    assert texts(sample(), "base")[1] == ("10 ± 1 (3)", "9, 10, 11")


def test_one_seed_has_no_deviation_and_two_have():
    assert texts(of_seeds(1), "base")[0] == ("69.0 (1)", "")
    assert texts(of_seeds(2), "base")[0] == ("69.5 ± 0.7 (2)", "69.0, 70.0")


def test_five_seeds_are_not_listed():
    results = of_seeds(3)
    values = (0.701, 0.704, 0.698, 0.709, 0.703)
    five = Cell(values, ("done",) * 5, ("",) * 5, ("w",) * 5, ("c",) * 5)
    table = replace(results.table, seeds=(0, 1, 2, 3, 4))
    results = replace(results, table=table, cells={("base", "Accuracy"): five})
    column = replace(ACCURACY, digits=2)
    assert entry(results, Variant("base"), column) == Entry(
        "70.30 ± 0.41 (5)", number=pytest.approx(70.3)
    )


def test_failed_missing_and_partial_cells_say_so_and_give_no_mean():
    """C55: a seed that is not there blocks the mean, and is not dropped silently."""
    assert texts(sample(), "broken")[0] == ("failed: the loss is not finite at step…", "")
    assert texts(sample(), "later")[0] == ("not run", "")
    assert texts(sample(), "partial")[0] == ("1/3 seeds", "failed, 72.0, not run")
    assert texts(sample(), "elsewhere") == [("", ""), ("", "")]
    assert [e.number for e in lay_out(sample()).ours[3].entries] == [None, None]


def test_a_failure_is_told_whole_below_the_table():
    notes = lay_out(sample()).notes
    whole = "the loss is not finite at step 412; its batch was saved"
    assert f"Failed: broken, seeds 3, 5, 7: {whole}" in notes
    assert f"Failed: partial, seeds 3: {whole}" in notes


def test_bold_stands_only_where_the_results_allow_it():
    sheet = lay_out(sample())
    bold = {(r.name.text, i) for r in sheet.ours for i, e in enumerate(r.entries) if e.bold}
    assert bold == {("better", 0)}
    results = replace(sample(), best={"Accuracy": frozenset({"partial"})})
    assert not any(e.bold for row in lay_out(results).ours for e in row.entries)


def test_published_rows_come_first_with_source_mark_and_dagger():
    first, second = lay_out(sample()).published
    assert first.name == Entry("MemN2N", "Bordes et al. 2017, Table 2 [V2]")
    assert [e.text for e in first.entries] == ["96.1", ""]
    assert second.name == Entry("GLMP †", "Wu et al. 2019 [R]")
    assert [e.text for e in second.entries] == ["99.2", "60"]


def test_expected_measured_difference_tolerance_and_verdict_stand_side_by_side():
    beside, against = lay_out(sample()).grids
    (row,) = beside.rows
    assert row == (
        *("MemN2N", "base", "Accuracy", "96.1", "70.0 ± 1.0 (3)", "−26.1"),
        *("± 0.5", "outside"),
    )
    # differences 1, 2, 3: mean 2, s 1, t_{.975, 2} = 4.302653, 2 +- 4.302653 / sqrt(3) = 2.4841
    # t = 2 / (1 / sqrt(3)) = 3.4641, p = 1 - t / sqrt(2 + t^2) = 0.074180 with 2 degrees
    (row,) = against.rows
    assert row == (*("better", "base", "Accuracy", "3", "+2.0", "−0.5 to +4.5", "0.074", "0.030"),)
    assert 1 - math.sqrt(12) / math.sqrt(14) == pytest.approx(0.074180, abs=1e-6)


def test_a_quick_table_says_so():
    assert lay_out(sample()).title == "Losses better"
    sheet = lay_out(sample(quick=True))
    assert sheet.title == "Losses better (quick)"
    assert sheet.notes[0].startswith("Quick version: every run with train.steps=20.")


def test_signatures_notes_marks_and_provenance_are_said():
    notes = lay_out(sample(note="with a grain of salt")).notes
    assert "Accuracy: teacher-forced, all dialogues" in notes
    assert "better: with a grain of salt" in notes
    assert "commit 082c138" in notes
    assert any("†R: recalled" in note and "V2: verified at a second" in note for note in notes)


@pytest.mark.parametrize(
    ("signatures", "said"),
    [
        ({"Accuracy": "all", "Time": "all"}, {"Every column: all"}),
        ({"Accuracy": "all", "Time": "timed"}, {"Accuracy: all", "Time: timed"}),
        ({"Time": "timed"}, {"Time: timed"}),
    ],
)
def test_columns_that_are_measured_alike_are_told_once(signatures, said):
    notes = lay_out(replace(sample(), signatures=signatures)).notes
    assert {n for n in notes if n.endswith((": all", ": timed"))} == said


def test_what_does_not_stand_in_a_table_is_not_explained():
    said = "\n".join(lay_out(sample()).notes)
    assert "Seeds 3, 5, 7. ± is" in said
    assert "Bold: the best mean of ours in a column all of whose runs are done" in said
    assert "p (Holm) below 0.05" in said
    alone = lay_out(of_seeds(1)).notes
    assert "Seed 3 alone: no deviation." in alone
    assert not any("±" in note or "Bold" in note for note in alone)


def test_some_columns_that_are_measured_alike_share_a_line():
    third = replace(SECONDS, title="Memory")
    table = replace(sample().table, columns=(ACCURACY, SECONDS, third))
    results = replace(sample(), table=table, signatures={"Time": "idle", "Memory": "idle"})
    assert "Time; Memory: idle" in lay_out(results).notes


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "50.0"), (-0.00001, "0.0"), (0.0, "0.0"), (-0.123, "−12.3"), (0.99996, "100.0")],
)
def test_figures_are_scaled_and_rounded_once(value, text):
    assert figure(value, ACCURACY) == text


def test_a_difference_of_nothing_has_no_sign():
    assert printed(0.01, ACCURACY, "+") == "0.0"
    assert printed(0.06, ACCURACY, "+") == "+0.1"
    assert printed(-3.0, SECONDS, "+") == "−3"


@given(st.lists(st.sampled_from([0.5, 0.25, None]), min_size=3, max_size=3), st.booleans())
def test_no_mean_and_no_bold_unless_every_seed_has_a_figure(values, failed):
    state = "failed" if failed else "missing"
    states = tuple(state if value is None else "done" for value in values)
    cell = Cell(tuple(values), states, ("",) * 3, ("w",) * 3, ("c",) * 3)
    results = replace(
        sample(),
        cells={("base", "Accuracy"): cell},
        best={"Accuracy": frozenset({"base"})},
    )
    shown = entry(results, Variant("base"), ACCURACY)
    whole = None not in values
    assert complete(cell) == whole == shown.bold == ("±" in shown.text)
    assert (shown.number is not None) == whole


def test_columns_point_to_their_better_end():
    assert lay_out(sample()).header == ("Accuracy ↑", "Time ↓")
    assert figure(BASE[0], Column("loss", "book", "test/loss", scale=1.0, digits=3)) == "0.690"
