"""One pass over a dialogue against an example for each turn, at equal supervised tokens.

    python run.py table --experiment=experiments/turn_expansion.py --workdir=runs/turn_expansion

The first two rows learn every message of every dialogue as often: the epochs are equal, the batches
are not. A turn as an example of its own is read with its history, so a dialogue of n turns is read
about n / 2 times; the tasks differ in their number of turns. The third row has as much time as the
second, on task 5. Data: the dialog bAbI release under
$DLM_DATA_DIR/dialog-babi. Hardware: two CPU cores. Time: --dry-run says it. Expected: not measured
yet.
"""

from __future__ import annotations

from dlm.tables.spec import Column, Table, Task, Variant

CONFIG = "configs/babi_dialog.py:task={}"
EQUAL = {"train.steps": None, "train.eval_every": None, "eval.splits": ("test",)}
EPOCHS = {1: 4.0, 4: 4.0, 5: 0.5}  # a few minutes a run
AS_LONG = 3.2  # epochs of task 5 in a single pass take as long as its 0.5 expanded
TURNS = {1: 6.0, 4: 3.5, 5: 18.3}  # of the bot, the mean of a training dialogue


def get_table() -> Table:
    """Three tasks of bAbI, three seeds."""
    tasks = [
        Task(f"babi{task}", CONFIG.format(task), {**EQUAL, "train.epochs": epochs})
        for task, epochs in EPOCHS.items()
    ]
    columns = []
    for task, number in zip(tasks, EPOCHS, strict=True):
        columns += [
            Column(f"Task {number}, responses", task.name, "test/response_accuracy"),
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
            + ", ".join(
                f"task {task} {epochs:g} epochs ({TURNS[task]:g} bot turns a dialogue)"
                for task, epochs in EPOCHS.items()
            )
            + ". Responses: share of bot turns whose every token is the argmax given the gold "
            "history, in percent; loss: nats a supervised token; seconds: of training, evaluation "
            "left out. The rows of a batch are equally long, so the second row makes more updates; "
            f"the third is a single pass of task 5 over {AS_LONG:g} epochs, which takes as long."
        ),
        tasks=tuple(tasks),
        columns=tuple(columns),
        variants=(
            Variant("single pass"),
            Variant("an example a turn", {"policy.expand": True}),
            Variant("single pass, as long", {"train.epochs": AS_LONG}, tasks=("babi5",)),
        ),
        seeds=(0, 1, 2),
        tradeoff=("Task 5, supervised tokens/s", "Task 5, responses"),
        quick={"train.epochs": 0.2, "eval.at_most": 20, "eval.dialogues": 2},
    )
