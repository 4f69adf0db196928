"""Writes what was measured of a run: report, summary, predictions and rejected records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from dlm.commands.measure import Measured
from dlm.commands.setup import Setup
from dlm.core.files import write_atomic
from dlm.data.store import Pieces
from dlm.dialogue.endings import completed
from dlm.evaluation import report
from dlm.evaluation.predict import Prediction
from dlm.evaluation.report import Report, Sample, side_by_side


def write_results(
    setup: Setup, folder: Path, before: Mapping[str, float], after: Measured
) -> dict[str, float]:
    """Writes a folder's report.md, report.html, summary.json, predictions and rejected.jsonl.

    Says where they are and what to type next.

    Args:
      setup: the run.
      folder: the workdir, or a folder of its own for a later evaluation.
      before: figures of the model as it started.
      after: what was measured of the trained one.

    Returns:
      All figures, those of `before` with `before/` in front.
    """
    figures = {**{f"before/{name}": value for name, value in before.items()}, **after.figures}
    for split, predictions in after.predictions.items():
        write_lines(folder / "predictions" / f"{split}.jsonl", [p.to_json() for p in predictions])
    pieces = {}
    if "train" in setup.corpus.splits:  # a corpus to be scored on may have none
        pieces["train"] = setup.pieces("train", evaluation=False)
    pieces |= {split: setup.pieces(split) for split in setup.settings.eval.splits}
    rejected = [
        {"split": split, **record} for split, held in pieces.items() for record in held.rejected
    ]
    for corpus in setup.corpus.corpora.values():
        if corpus.rejected is not None:
            rejected += map(json.loads, corpus.rejected.read_text(encoding="utf-8").splitlines())
    if rejected:
        write_lines(folder / "rejected.jsonl", rejected)
    next_command = f"python run.py chat --workdir={setup.workdir}"
    path = report.write(
        Report(
            name=setup.workdir.name,
            figures=figures,
            next_command=next_command,
            counts={split: counts(setup, split, held) for split, held in pieces.items()},
            signatures=after.signatures,
            samples=samples(setup, after.predictions),
        ),
        folder,
    )
    print(f"report: {path}\ntalk to it: {next_command}")
    return figures


def write_lines(path: Path, records: Sequence[Mapping]) -> None:
    """Writes one JSON object a line, atomically."""
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    write_atomic(path, "".join(lines))


def counts(setup: Setup, split: str, pieces: Pieces) -> dict[str, float]:
    """The row of a split in the report's table of data.

    Bad records of a file are counted where they were refused; a share of them that would have
    been held out for validation is counted with the rest of the file.
    """
    held, built = pieces.counts, setup.corpus.counts.get(split, {})
    return {
        "dialogues": held.dialogues,
        "turns": held.turns,
        "tokens": held.tokens,
        "supervised": sum(held.supervised.values()),
        "dropped turns": held.dropped_turns,
        "left out": sum(held.rejected.values()),
        "bad records": built.get("rejected", 0),
        "also in train": built.get("also_in_train", 0),
        "also in validation": built.get("also_in_validation", 0),
    }


def samples(setup: Setup, predictions: Mapping[str, Sequence[Prediction]]) -> list[Sample]:
    """Dialogues beside what the model wrote in them, the splits in turn."""
    wanted = setup.settings.eval.samples
    chosen = []
    for place in range(wanted):
        for split, written in predictions.items():
            if place < len(setup.split(split)):
                dialogue = completed(setup.split(split)[place])
                units = {p.unit: p.predicted for p in written if p.dialogue == dialogue.id}
                chosen.append(side_by_side(dialogue, units, f"{split}: {dialogue.id}"))
    return chosen[:wanted]
