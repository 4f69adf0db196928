"""A table with every kind of cell, its figures such that means and deviations are known by hand."""

from __future__ import annotations

from dataclasses import replace

from dlm.tables.cells import Cell, Comparison, Results, Verdict
from dlm.tables.spec import Column, Published, Table, Task, Variant
from dlm.tables.statistics import paired

SEEDS = (3, 5, 7)
ACCURACY = Column("Accuracy", "book", "test/response_accuracy", digits=1)
SECONDS = Column("Time", "book", "train/seconds", higher_is_better=False, scale=1.0, digits=0)
BEATEN = Published(
    "MemN2N", "Bordes et al. 2017, Table 2", {"Accuracy": 96.1}, "V2", {"Accuracy": 0.5}, ("base",)
)
RECALLED = Published("GLMP", "Wu et al. 2019", {"Accuracy": 99.2, "Time": 60.0}, "R")
# mean 70, deviation 1; and seed by seed 1, 2, 3 above it: difference 2, deviation 1
BASE, BETTER = (0.69, 0.70, 0.71), (0.70, 0.72, 0.74)
FAILED = "error: the loss is not finite at step 412; its batch was saved"


def cell(values, states=(), reasons=(), name="run"):
    """A cell of three seeds; those without a value are missing where no state is given."""
    states = states or tuple("missing" if value is None else "done" for value in values)
    return Cell(
        tuple(values),
        tuple(states),
        tuple(reasons) or ("",) * len(values),
        tuple(f"runs/{name}-{seed}" for seed in SEEDS[: len(values)]),
        tuple(
            f"python run.py train --config.a='<b>' --config.seed={seed}"
            for seed in SEEDS[: len(values)]
        ),
    )


def sample(*, quick: bool = False, name: str = "better", note: str = "") -> Results:
    """The table; `name` and `note` are those of its second row, the title and the caption too."""
    variants = (
        Variant("base"),
        Variant(name, {"loss.name": "focal"}, note=note),
        Variant("broken"),
        Variant("partial"),
        Variant("later"),
        Variant("elsewhere", tasks=("other",)),
    )
    table = Table(
        f"Losses {name}",
        f"Per cent. {note}",
        (Task("book", "configs/babi_dialog.py:task=5"), Task("other", "configs/jsonl.py")),
        (ACCURACY, SECONDS),
        variants,
        SEEDS,
        (BEATEN, RECALLED),
        quick={"train.steps": 20},
        tradeoff=("Time", "Accuracy"),
    )
    states, reasons = ("failed", "done", "missing"), (FAILED, "", "")
    cells = {}
    for title, base, better in (("Accuracy", BASE, BETTER), ("Time", (9, 10, 11), (9, 11, 10))):
        cells |= {
            ("base", title): cell(base, name="base"),
            (name, title): cell(better, name="better"),
            ("broken", title): cell((None,) * 3, ("failed",) * 3, (FAILED,) * 3),
            ("partial", title): cell((None, better[1], None), states, reasons),
            ("later", title): cell((None,) * 3),
        }
    return Results(
        table=table,
        cells=cells,
        comparisons={(name, "Accuracy"): Comparison(paired(BETTER, BASE), 0.03)},
        verdicts={("MemN2N", "base", "Accuracy"): Verdict(BEATEN, 96.1, -26.1, "outside")},
        best={"Accuracy": frozenset({name})},
        signatures={"Accuracy": "teacher-forced, all dialogues"},
        quick=quick,
        provenance={"commit": "082c138"},
    )


def of_seeds(count: int) -> Results:
    """The base row alone, over the first seeds."""
    results = sample()
    table = replace(results.table, seeds=SEEDS[:count], variants=results.table.variants[:1])
    cells = {("base", "Accuracy"): cell(BASE[:count])}
    return replace(results, table=table, cells=cells, comparisons={}, verdicts={}, best={})
