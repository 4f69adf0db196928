"""Token losses and normalisers on a task and on chat, at a small budget.

    python run.py table --experiment=experiments/losses_small.py --workdir=runs/losses_small

Data: dialog bAbI and XDailyDialog under $DLM_DATA_DIR. Hardware: two CPU cores. Time: a few minutes
a run; --dry-run says it. Expected: `experiments/results/losses_small`.
"""

from __future__ import annotations

from dlm.tables.spec import Column, Table, Task, Variant

SHORT = {
    "train.epochs": None,
    "train.steps": 120,
    "train.eval_every": 120,
    "eval.splits": ("test",),
    "eval.at_most": 300,
}
CHAT = {
    "model.num_layers": 2,
    "model.width": 128,
    "model.num_heads": 4,
    "tokenizer.vocab_size": 2048,
    "train.steps": 200,
    "train.eval_every": 200,
    "eval.scorers": ("bleu", "distinct"),
    "eval.dialogues": 50,
}
SMOOTHED = {"loss.name": "label_smoothing", "loss.args.epsilon": 0.1}
UNITS = ("turn", "dialogue")


def get_table() -> Table:
    """Seven losses, two corpora, three seeds."""
    return Table(
        title="Losses and normalisers",
        caption=(
            "From scratch, two layers of width 128; the first 300 dialogues of the test split. "
            "bAbI task 5, 120 updates of 9,216 tokens: share of bot turns whose every token is the "
            "argmax given the gold history, in percent; loss in nats a supervised token. Chat, "
            "XDailyDialog in English, 200 updates of 4,096 tokens: greedy replies to the gold "
            "histories of 50 dialogues, BLEU of 100, distinct n-grams over all n-grams in percent. "
            "Loss and perplexity are those of plain cross-entropy, whatever was trained."
        ),
        tasks=(
            Task("babi5", "configs/babi_dialog.py:task=5", SHORT),
            Task("chat", "configs/xdailydialog.py:language=en", {**SHORT, **CHAT}),
        ),
        columns=(
            Column("bAbI 5, responses", "babi5", "test/response_accuracy"),
            Column("bAbI 5, loss", "babi5", "test/loss", False, 1.0, 3),
            Column("Chat, perplexity", "chat", "test/perplexity", False, 1.0),
            Column("Chat, BLEU", "chat", "test/bleu"),
            Column("Chat, distinct-1", "chat", "test/distinct_1"),
            Column("Chat, distinct-2", "chat", "test/distinct_2"),
        ),
        variants=(
            Variant("cross-entropy"),
            Variant("label smoothing 0.1", SMOOTHED),
            Variant("focal, gamma 2", {"loss.name": "focal", "loss.args.gamma": 2.0}),
            Variant("unlikelihood", {"loss.name": "unlikelihood", "loss.args.alpha": 1.0}),
            *(Variant(f"mean over each {unit}", {"loss.normaliser": unit}) for unit in UNITS),
            Variant("token sums over dialogues", {"loss.normaliser": "risk"}),
        ),
        seeds=(0, 1, 2),
        tradeoff=("Chat, distinct-2", "Chat, BLEU"),
        quick={"train.steps": 10, "train.eval_every": 5, "eval.at_most": 20, "eval.dialogues": 2},
    )
