"""From runs to cells: worked examples with numbers by hand, and what blocks a cell."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from dlm.tables.cells import Results
from dlm.tables.collect import collect, signature_of
from dlm.tables.jobs import Job
from dlm.tables.layout import lay_out
from dlm.tables.render import comma_separated
from dlm.tables.spec import Column, Published, Table, Task, Variant
from dlm.tables.store import Record

SIGNED = {
    "loss, accuracies": "teacher-forced",
    "generated": "greedy",
    "bleu": "13a",
    "success": "?",
}
BLEU = {"plain": (0.701, 0.704, 0.698, 0.709, 0.703), "other": (0.695, 0.701, 0.699, 0.702, 0.696)}
LOSS = {"plain": (2.0, 2.1, 2.2, 2.3, 2.4), "other": (1.0, 1.2, 1.1, 1.3, 1.5)}
TASK = Task("a", "a.py")


def table(*published: Published, variants: tuple[Variant, ...] = ()) -> Table:
    columns = (Column("BLEU", "a", "test/bleu"), Column("Loss", "a", "test/loss", False, 1.0))
    rows = variants or (Variant("plain"), Variant("other"))
    return Table("T", "C", (TASK,), columns, rows, (0, 1, 2, 3, 4), published)


def run(variant: Variant, seed: int, task: Task = TASK) -> Job:
    words = ("--config=a.py", f"--config.seed={seed}")
    return Job(variant, task, seed, words, {}, "", Path(f"/runs/{variant.name}-{seed}"))


def record(row: str, seed: int) -> Record:
    figures = {"test/bleu": BLEU[row][seed], "test/loss": LOSS[row][seed]}
    config = {"seed": seed}
    return Record(
        *(f"/runs/{row}-{seed}", "", f"{row}-{seed}", seed, "done", "", 1.0, "c"),
        config=config,
        figures=dict(figures),
        signatures=SIGNED,
        sources={},
    )


def fill(
    table: Table,
    *,
    again: Mapping[str, float] | None = None,
    **changes: Record | None,
) -> Results:
    """The table's results; `changes` replaces records by their name, `plain_3`."""
    rows = [(variant, table.tasks_of(variant)[0]) for variant in table.variants]
    runs = [run(variant, seed, task) for variant, task in rows for seed in table.seeds]
    records = {}
    for one in runs:
        found = changes.get(f"{one.variant.name}_{one.seed}", record(one.variant.name, one.seed))
        if found is not None:
            records[str(one.workdir)] = found
    odd = "/runs/plain-3"
    return collect(
        table,
        runs,
        records,
        quick=False,
        provenance={},
        rescored=lambda r: {
            "test/bleu": r.figures["test/bleu"] or 0.0,
            **((again or {}) if r.workdir == odd else {}),
        },
    )


def changed(row: str, seed: int, **fields: object) -> Record:
    return Record(**{**record(row, seed).__dict__, **fields})  # type: ignore[arg-type]


def test_a_cell_holds_its_runs_in_the_order_of_the_seeds():
    cell = fill(table()).cells["plain", "BLEU"]
    assert cell.values == BLEU["plain"]
    assert cell.workdirs[2] == "/runs/plain-2"
    assert cell.commands[2] == (
        "python run.py train --config=a.py --config.seed=2 --workdir=/runs/plain-2"
    )
    assert cell.whole
    assert cell.summary is not None
    assert cell.summary.mean == pytest.approx(0.703)
    assert cell.summary.deviation == pytest.approx(0.00406202, abs=1e-8)


def test_comparisons_are_paired_and_adjusted_over_a_column():
    rows = (Variant("plain"), Variant("other"), Variant("third", base="other"))
    BLEU["third"], LOSS["third"] = BLEU["plain"], LOSS["plain"]
    results = fill(table(variants=rows))
    assert ("plain", "BLEU") not in results.comparisons  # it is the base
    first = results.comparisons["other", "BLEU"]
    assert first.paired.difference.mean == pytest.approx(-0.0044)
    assert first.paired.p == pytest.approx(0.0457373, abs=1e-7)
    third = results.comparisons["third", "BLEU"]
    assert third.paired.difference.mean == pytest.approx(0.0044)
    assert (first.p_holm, third.p_holm) == (pytest.approx(2 * 0.0457373),) * 2
    p = stats.ttest_rel(LOSS["other"], LOSS["plain"]).pvalue
    assert results.comparisons["other", "Loss"].p_holm == pytest.approx(2 * p)


def test_bold_is_the_best_mean_if_it_is_better_than_its_base():
    results = fill(table())
    assert results.best == {"BLEU": frozenset(), "Loss": frozenset({"other"})}  # BLEU fell
    rows = (Variant("other"), Variant("plain"))
    assert fill(table(variants=rows)).best == {"BLEU": frozenset({"plain"}), "Loss": frozenset()}
    three = (Variant("other"), Variant("plain"), Variant("third"))
    BLEU["third"], LOSS["third"] = BLEU["other"], LOSS["other"]
    assert fill(table(variants=three)).best["BLEU"] == frozenset({"plain"})  # third: no p
    assert fill(table(variants=three), third_2=None).best["BLEU"] == frozenset()  # it may be best
    BLEU["third"] = (0.696, 0.700, 0.700, 0.701, 0.697)
    assert fill(table(variants=three)).best["BLEU"] == frozenset()  # of two tests, p is 0.09


def test_missing_and_failed_runs_stand_in_the_cell():
    failed = changed("other", 1, state="failed", reason="no room", figures={})
    results = fill(
        table(), other_1=failed, other_4=None, plain_0=changed("plain", 0, state="missing")
    )
    cell = results.cells["other", "Loss"]
    assert cell.states == ("done", "failed", "done", "done", "missing")
    assert cell.reasons == ("", "no room", "", "", "")
    assert cell.values == (1.0, None, 1.1, 1.3, None)
    assert results.cells["plain", "Loss"].states[0] == "missing"
    assert not results.comparisons


def test_a_figure_that_its_predictions_do_not_give_blocks_the_cell():
    results = fill(table(), again={"test/bleu": 0.5})
    cell = results.cells["plain", "BLEU"]
    assert cell.states[3] == "failed"
    assert cell.reasons[3] == "its predictions score 0.5, it said 0.709"
    assert results.cells["plain", "Loss"].whole  # the predictions do not tell it


def test_another_signature_or_no_figure_blocks_the_cell():
    other = changed("other", 2, signatures={**SIGNED, "bleu": "intl"})
    nan = changed("plain", 1, figures={"test/bleu": None, "test/loss": 2.1})
    results = fill(table(), other_2=other, plain_1=nan)
    assert results.signatures == {"BLEU": "greedy; 13a", "Loss": "teacher-forced"}
    assert results.cells["other", "BLEU"].reasons[2] == (
        "it measured otherwise than the column's first run: greedy; intl"
    )
    assert results.cells["other", "Loss"].whole
    assert results.cells["plain", "BLEU"].reasons[1] == "it measured no finite test/bleu"


@pytest.mark.parametrize(
    ("value", "tolerance", "difference", "verdict"),
    [
        (70.0, {"BLEU": 0.31}, 0.3, "within tolerance"),
        (70.0, {"BLEU": 0.29}, 0.3, "outside"),
        (71.0, {"BLEU": 0.31}, -0.7, "outside"),
        (71.0, {}, -0.7, "no tolerance set"),
    ],
)
def test_a_published_cell_is_judged_by_the_tolerance_set_beforehand(
    value, tolerance, difference, verdict
):
    row = Published("P", "S", {"BLEU": value}, "V", tolerance, beside=("plain",))
    told = fill(table(row)).verdicts["P", "plain", "BLEU"]
    assert told.difference == pytest.approx(difference)
    assert (told.value, told.verdict) == (value, verdict)
    unfinished = fill(table(row), plain_0=None).verdicts["P", "plain", "BLEU"]
    assert (unfinished.difference, unfinished.verdict) == (None, "not run")


def test_a_published_row_is_held_against_those_of_our_rows_that_have_a_cell():
    row = Published("P", "S", {"BLEU": 70.0}, "V", {"BLEU": 0.2}, beside=("plain", "other"))
    both = fill(table(row))
    assert [(*key, told.verdict) for key, told in both.verdicts.items()] == [
        ("P", "plain", "BLEU", "outside"),
        ("P", "other", "BLEU", "within tolerance"),
    ]
    (beside, _) = lay_out(both).grids
    assert [line[:6] for line in beside.rows] == [
        ("P", "plain", "BLEU", "70.00", "70.30 ± 0.41 (5)", "+0.30"),
        ("P", "other", "BLEU", "70.00", "69.86 ± 0.30 (5)", "−0.14"),
    ]
    told = [r["verdict"] for r in csv.DictReader(io.StringIO(comma_separated(both)))]
    assert told == ["outside", "within tolerance", "", "", ""]
    apart = replace(
        table(),
        tasks=(TASK, Task("b", "b.py")),
        columns=(Column("BLEU", "a", "test/bleu"), Column("Elsewhere", "b", "test/bleu")),
        variants=(Variant("plain", tasks=("a",)), Variant("other", tasks=("b",))),
        published=(replace(row, cells={"Elsewhere": 1.0, "BLEU": 70.0}),),
    )
    assert list(fill(apart).verdicts) == [
        ("P", "plain", "BLEU"),
        ("P", "other", "Elsewhere"),
    ]


def test_the_signature_of_a_metric_is_that_of_its_scorer():
    said = {
        "loss, accuracies": "forced",
        "generated": "greedy",
        "bleu": "13a",
        "rouge": "stemmed",
        "call match": "json",
        "joint goal accuracy": "exact",
        "success, rollout": "replayed",
    }
    for metric, signature in {
        "test/loss": "forced",
        "test/task:x/response_accuracy": "forced",
        "test/bleu": "greedy; 13a",
        "test/rougeL": "greedy; stemmed",
        "test/call_name_match": "greedy; json",
        "test/average_goal_accuracy": "greedy",
        "rollout/test/success": "replayed",
        "train/seconds": "of the run's training; evaluations are left out of its time",
    }.items():
        assert signature_of(said, metric) == signature, metric
