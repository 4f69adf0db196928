"""One model for eight kinds of work beside eight models for one each.

    python experiments/all_tasks.py --workdir=DIR [--steps=1500] [--output=FILE]

Trains `configs/all_tasks.py`, counts the supervised tokens that each task had in it, and trains a
model for each task alone that stops when it has had as many. Then both answer the same dialogues of
the task. What is finished is not repeated, what was stopped goes on. Prints a table of the tasks'
figures, mixed and alone, with the trivial answer and the gold beside them, and writes it as JSON.
Figures are of the test split, of kinship, which has none under that name, of the validation split;
nothing was chosen by them.

Hardware: two CPU cores. Time: an hour for the mixed run, about as long for the others together, and
half an hour of answers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from configs.all_tasks import PARTS  # noqa: E402
from dlm.commands.build import training_batches  # noqa: E402
from dlm.commands.environment import commit  # noqa: E402
from dlm.commands.setup import Setup, parse_options  # noqa: E402
from dlm.core.files import read_json, write_json  # noqa: E402
from dlm.data.pipeline import Batches  # noqa: E402

CONFIG = ROOT / "configs" / "all_tasks.py"
METRICS = {
    "restaurants": ("joint_goal_accuracy", "call_match", "bleu"),
    "intents": ("intent_accuracy", "oos_recall"),
    "tools": ("call_match", "bleu"),
    "questions": ("hits_at_1", "hits_at_1_right_reason"),
    "kinship": ("hits_at_1", "hits_at_1_right_reason"),
    "chat": ("perplexity", "bleu", "distinct_2"),
    "translation": ("perplexity", "bleu"),
    "notes": ("rouge1", "rougeL", "perplexity"),
}
SPLIT = {"kinship": "validation"}
MIXED = "mixed"  # the workdir of the run of all tasks; of the others, `alone-TASK`


def main() -> int:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500, help="of the mixed run; default 1500")
    parser.add_argument("--output", type=Path, default=ROOT / "experiments/results/all_tasks.json")
    options = parser.parse_args()
    mixed = options.workdir / MIXED
    train(mixed, "", options.steps)
    tokens = learned(batches_of(mixed, "", options.steps), options.steps)
    rows: list[dict[str, Any]] = []
    for task in PARTS:
        alone = options.workdir / f"alone-{task}"
        steps = steps_for(batches_of(alone, task, options.steps), tokens[task])
        train(alone, task, steps)
        answered = options.workdir / f"{MIXED}-{task}"
        answer(mixed, task, answered)
        rows += compared(task, answered, alone, tokens[task], steps)
    show(rows)
    write_json(options.output, {"commit": commit(), "steps": options.steps, "rows": rows})
    return 0


def words(workdir: Path, task: str, steps: int) -> list[str]:
    """The command line of a run."""
    config = f"{CONFIG}:alone={task}" if task else str(CONFIG)
    every = max(1, steps // 6)
    changes = {"train.steps": steps, "train.eval_every": every}
    flags = [f"--config.{name}={value}" for name, value in changes.items()]
    if task:
        flags.append(f"--config.tokenizer.path={workdir.with_name(MIXED) / 'tokenizer'}")
    return [f"--config={config}", *flags, f"--workdir={workdir}"]


def train(workdir: Path, task: str, steps: int) -> None:
    """Runs or resumes one training, where it is not finished."""
    if (workdir / "summary.json").exists():
        return
    run("train", *words(workdir, task, steps))


def answer(mixed: Path, task: str, output: Path) -> None:
    """Scores the model of all tasks on what a task's own model is scored on, if it is not yet."""
    if (output / "summary.json").exists():
        return
    split = f"--config.eval.splits=('{SPLIT.get(task, 'test')}',)"
    run(
        "eval", f"--config={CONFIG}:alone={task}", split, f"--workdir={mixed}", f"--output={output}"
    )


def run(*words: str) -> None:
    """One command of the program."""
    command = [sys.executable, str(ROOT / "run.py"), *words]
    print(" ".join(command), flush=True)
    subprocess.run(command, check=True)


def batches_of(workdir: Path, task: str, steps: int) -> Batches:
    """The training batches of a run."""
    return training_batches(Setup(parse_options(words(workdir, task, steps))))


def learned(batches: Batches, steps: int) -> dict[str, int]:
    """Supervised tokens of each task in the first batches."""
    counts = dict.fromkeys(PARTS, 0)
    for step in range(steps):
        for name, number in of_step(batches, step).items():
            counts[name] += number
    return counts


def steps_for(batches: Batches, tokens: int) -> int:
    """How many batches hold so many supervised tokens."""
    step = seen = 0
    while seen < tokens:
        seen += sum(of_step(batches, step).values())
        step += 1
    return step


def of_step(batches: Batches, step: int) -> dict[str, int]:
    """Supervised tokens of each task in one batch."""
    batch, names = batches.batch(step), batches.pieces.task_names
    rows, places = np.nonzero(batch.loss_weights > 0)
    segments = batch.segment_ids[rows, places] - 1
    tasks, numbers = np.unique(batch.task_ids[rows, segments], return_counts=True)
    return {names[task]: int(n) for task, n in zip(tasks.tolist(), numbers, strict=True)}


def compared(
    task: str, answered: Path, alone: Path, tokens: int, steps: int
) -> list[dict[str, Any]]:
    """One row a metric of a task; `answered` holds what the model of all tasks has."""
    both = {
        side: read_json(folder / "summary.json")
        for side, folder in (("mixed", answered), ("alone", alone))
    }
    rows = []
    for metric in METRICS[task]:
        name = f"{SPLIT.get(task, 'test')}/task:{task}/{metric}"
        figures = {side: summary.get(name) for side, summary in both.items()}
        beside = {side: both["alone"].get(f"{side}/{name}") for side in ("commonest", "gold")}
        rows.append(
            {"task": task, "metric": metric, "supervised_tokens": tokens, "steps_alone": steps}
            | figures
            | beside
        )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the rows."""
    columns = ("task", "metric", "mixed", "alone", "commonest", "gold", "supervised_tokens")
    print("  ".join(f"{column:>22}" for column in columns))
    for row in rows:
        cells = (row[column] for column in columns)
        texts = (f"{cell:.4f}" if isinstance(cell, float) else str(cell or "") for cell in cells)
        print("  ".join(f"{text:>22}" for text in texts))
    print(json.dumps({"commit": commit()}))


if __name__ == "__main__":
    sys.exit(main())
