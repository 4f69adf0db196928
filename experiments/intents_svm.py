"""The control of `experiments/intents.py`: a linear SVM over words, on CLINC150 (Full).

    python experiments/intents_svm.py [--output=experiments/results/intents_svm.json]

As the paper has it, a query is a bag of its words (here weighed by TF-IDF) and out of scope is a
class like the others. The SVM's C is chosen on the validation split; the test split is scored once,
with the choice. Needs scikit-learn (of the tests' requirements) and the release under
$DLM_DATA_DIR/clinc150. Time: a minute.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from dlm.commands.environment import commit
from dlm.core.files import write_json
from dlm.corpora.registry import prepare

OUT_OF_SCOPE = "oos"
COSTS = (0.1, 0.3, 1.0, 3.0)


def queries(split: Any) -> tuple[list[str], list[str]]:
    """Texts and labels of a split."""
    messages = [dialogue.messages for dialogue in split]
    return [asked.content for asked, _ in messages], [label.content for _, label in messages]


def figures(labels: list[str], found: list[str]) -> dict[str, float]:
    """Accuracy in scope and recall out of it, in percent, as the paper has them."""
    right: dict[bool, list[bool]] = {True: [], False: []}
    for label, got in zip(labels, found, strict=True):
        right[label != OUT_OF_SCOPE].append(label == got)
    share = {inside: 100 * sum(each) / len(each) for inside, each in right.items()}
    return {"in scope": share[True], "out-of-scope recall": share[False]}


def main() -> None:
    """Chooses on validation, scores test, prints and writes both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        splits = prepare("clinc150", {"variant": "full"}, Path(folder)).splits
        sets = {name: queries(split) for name, split in splits.items()}
    tried = {}
    for cost in COSTS:
        words = TfidfVectorizer(token_pattern=r"\S+")
        model = make_pipeline(words, LinearSVC(C=cost)).fit(*sets["train"])
        texts, labels = sets["validation"]
        tried[cost] = (figures(labels, model.predict(texts))["in scope"], model)
        print(f"C={cost}: validation {tried[cost][0]:.2f}", flush=True)
    chosen = max(tried, key=lambda cost: tried[cost][0])
    held_out, model = tried[chosen]
    texts, labels = sets["test"]
    result = {
        "commit": commit(),
        "C": chosen,
        "validation, in scope": held_out,
        "test": figures(labels, model.predict(texts)),
    }
    print(json.dumps(result, indent=2))
    if options.output:
        write_json(options.output, result)


if __name__ == "__main__":
    main()
