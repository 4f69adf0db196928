"""Intents of CLINC150 (Full) and BANKING77: a decoder from scratch and SmolLM2-135M's top layers.

    python run.py table --experiment=experiments/intents.py --workdir=runs/intents

SmolLM2 is tuned in its two highest layers, its last norm and the tokens that it never had, for one
epoch, at the one of two rates (1e-3, 3e-3) whose training loss fell sooner; its weights are in
$SMOLLM2 (a GGUF file, a folder or the hub's name, the default). The control, a linear SVM, is
of `experiments/intents_svm.py`. Data: CLINC150 and BANKING77 under $DLM_DATA_DIR. Hardware: two CPU
cores, 5 GB. Time: a few minutes a run from scratch, half an hour a run of SmolLM2 (its quick
version: some minutes); --dry-run says it.
Expected: `experiments/results/intents`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from dlm.models.config import ModelConfig
from dlm.tables.spec import Column, Published, Table, Task, Variant

SVM = Path(__file__).with_name("results") / "intents_svm.json"
SHAPE = ("num_layers", "max_length", "init_stddev", "dropout")  # what the configs say of it
TOP = (r"layers/2[89]/.*", r"norm/.*", r"embedding/new_tokens")
SMOLLM2 = {
    "init": os.environ.get("SMOLLM2", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    **{f"model.{name}": getattr(ModelConfig(), name) for name in SHAPE},  # its own
    "train.trainable": (*((rule, True) for rule in TOP), (r".*", False)),
    "optimizer.learning_rate": 3e-3,
    "train.epochs": 1.0,
    "train.eval_every": 1000,
    "data.rows": 8,
}
SVM_PUBLISHED, SVM_TOLERANCE = 91.0, 1.0
EPOCHS = {"train.steps": None, "train.epochs": 10.0}
IN, OUT, BANKING = "CLINC150, in scope", "CLINC150, out-of-scope recall", "BANKING77"
LARSON = "Larson et al. 2019, table 2"
CASANUEVA = "Casanueva et al. 2020, table 3"
PUBLISHED = (
    Published("SVM", LARSON, {IN: SVM_PUBLISHED, OUT: 14.5}, "R"),
    Published("BERT", LARSON, {IN: 96.9, OUT: 40.3}, "R"),
    Published("BERT-tuned (large)", CASANUEVA, {BANKING: 93.66}, "V2"),
    Published("USE+ConveRT", CASANUEVA, {BANKING: 93.36}, "V2"),
)


def get_table() -> Table:
    """Two corpora, two models, three seeds."""
    short = {"eval.splits": ("test",), "eval.dialogues": 4}
    return Table(
        title="Intents",
        caption=(
            "Share of test queries whose label is the argmax in every token, in percent; out of "
            "scope is a label like the others. From scratch: at most ten epochs, dropout 0.2; "
            "SmolLM2: one epoch, no dropout, one seed. " + control()
        ),
        tasks=(
            Task("clinc150", "configs/clinc150.py:variant=full", short),
            Task("banking77", "configs/banking77.py", {**short, **EPOCHS}),
        ),
        columns=(
            Column(IN, "clinc150", "test/task:in_scope/response_accuracy"),
            Column(OUT, "clinc150", "test/task:out_of_scope/response_accuracy"),
            Column(BANKING, "banking77", "test/response_accuracy"),
        ),
        variants=(
            Variant("from scratch"),
            Variant("SmolLM2-135M, top 2 layers, one epoch", SMOLLM2),
        ),
        seeds=(0, 1, 2),
        published=PUBLISHED,
        quick={"train.epochs": 0.01},  # all of test: its queries stand in the order of intents
    )


def control() -> str:
    """What the SVM scored, where it was run."""
    if not SVM.exists():
        return "The control, a linear SVM, was not run."
    found = json.loads(SVM.read_text(encoding="utf-8"))["test"]["in scope"]
    return (
        f"The control, a linear SVM of ours on CLINC150, has {found:.2f} in scope; the paper's has "
        f"{SVM_PUBLISHED:.1f} (recalled), and within {SVM_TOLERANCE:.1f} counts as the same."
    )
