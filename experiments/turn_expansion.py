"""One pass over a dialogue against an example for each turn, at equal supervised tokens.

    python run.py table --experiment=experiments/turn_expansion.py --workdir=runs/turn_expansion

Both rows learn every message of every dialogue as often: the epochs are equal, the batches are not.
A turn as an example of its own is read with its history, so a dialogue of n turns is read about
n / 2 times; the tasks differ in their number of turns. Data: the dialog bAbI release under
$DLM_DATA_DIR/dialog-babi. Hardware: two CPU cores. Time: --dry-run says it. Expected:
`experiments/results/turn_expansion`.
"""

from __future__ import annotations

from dlm.tables.spec import Column, Table, Task, Variant

CONFIG = "configs/babi_dialog.py:task={}"
EQUAL = {"train.steps": None, "train.eval_every": None, "eval.splits": ("test",)}
EPOCHS = {1: 4.0, 4: 4.0, 5: 1.0}  # whole ones: of a part, the rows would see other dialogues
CALLS = (1, 5)  # tasks with calls
TURNS = {1: 6.0, 4: 3.5, 5: 17.3}  # the mean of a training dialogue


def get_table() -> Table:
    """Three tasks of bAbI, three seeds."""
    tasks = [
        Task(f"babi{task}", CONFIG.format(task), {**EQUAL, "train.epochs": epochs})
        for task, epochs in EPOCHS.items()
    ]
    columns = []
    for task, number in zip(tasks, EPOCHS, strict=True):
        columns.append(Column(f"Task {number}, responses", task.name, "test/response_accuracy"))
        if number in CALLS:
            columns.append(Column(f"Task {number}, calls", task.name, "test/call_accuracy"))
        columns += [
            Column(f"Task {number}, loss", task.name, "test/loss", False, 1.0, 3),
            Column(f"Task {number}, seconds", task.name, "train/seconds", False, 1.0, 0),
            Column(
                f"Task {number}, supervised tokens/s",
                task.name,
                "train/supervised_tokens_per_second",
                scale=1.0,
                digits=0,
            ),
        ]
    return Table(
        title="A single pass against per-turn expansion",
        caption=(
            "Dialog bAbI from scratch, equal supervised tokens: "
            + "; ".join(
                f"task {task}, {EPOCHS[task]:g} x 1,000 dialogues of {turns:.1f} turns"
                for task, turns in TURNS.items()
            )
            + ". Responses: share of bot turns whose every token is the argmax given the gold "
            "history, in percent (83.2, 57.2 and 67.7 without choosing any name right); calls "
            "likewise; loss: nats a supervised token; seconds: of training with its compilation, "
            "without evaluation, beside other work. Batches are equally long, so the second row "
            "makes more updates."
        ),
        tasks=tuple(tasks),
        columns=tuple(columns),
        variants=(
            Variant("single pass"),
            Variant("an example a turn", {"policy.expand": True}),
        ),
        seeds=(0, 1, 2),
        tradeoff=("Task 5, supervised tokens/s", "Task 5, responses"),
        quick={"train.epochs": 0.2, "eval.at_most": 20, "eval.dialogues": 2},
    )
