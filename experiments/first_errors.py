"""Where the wrong responses of a run go wrong first: channel, expected piece, and what is before.

    python experiments/first_errors.py --workdir=RUN [--workdir=RUN ...]
        --split=test [--split=SPLIT ...] [--dialogues=0]
        [--output=experiments/results/first_errors.json]

Teacher-forced: of every message that the run has to write and whose tokens are not all the argmax,
the first wrong token is counted by its channel, the piece that was expected (a digit is "0") and
the character before it. In bAbI dialog, task 5, a digit after `_` is mostly a restaurant's rating.
Data: those of the run. Hardware: a CPU core. Time: half a minute for 1,000 dialogues.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

from dlm.commands.environment import commit
from dlm.commands.setup import Setup, parse_options
from dlm.core.files import write_json
from dlm.dialogue.encoding import CHANNEL_NAMES
from dlm.evaluation.evaluate import make_score_step
from dlm.losses.cross_entropy import cross_entropy

MOST_SHOWN = 8


def first_errors(workdir: str, split: str, dialogues: int) -> dict[str, Any]:
    """Messages, how many of them are wrong, and how often the commonest first errors occur."""
    words = [f"--workdir={workdir}", f"--config.eval.at_most={dialogues}"]
    setup = Setup(parse_options(words, saved=True))
    params, pieces = setup.trained_params(), setup.pieces(split)
    batches = setup.batches(pieces)
    score = make_score_step(setup.model, cross_entropy, chunk=setup.settings.loss.chunk)
    messages, found = 0, Counter[str]()
    for step, batch in enumerate(batches.iterate(0, batches.num_steps(0))):
        _, correct = jax.device_get(score(params, jax.tree.map(jnp.asarray, batch)))
        for row in range(len(correct)):
            firsts = first_wrong(batch.loss_weights[row], correct[row])
            messages += len(firsts)
            for at in ((row, first) for first in firsts if first is not None):
                channel = CHANNEL_NAMES[int(batch.channel_ids[at])]
                before = setup.tokenizer.decode([int(batch.tokens[at])])[-1:]
                piece = re.sub(r"\d", "0", setup.tokenizer.decode([int(batch.targets[at])]))
                found[f"{channel}: {piece!r} after {before!r}"] += 1
        print(f"\r{workdir}: batch {step + 1}/{batches.num_steps(0)}", end="", flush=True)
    print()
    most = dict(found.most_common(MOST_SHOWN))
    return {"messages": messages, "wrong": sum(found.values()), "first": most}


def first_wrong(weights: np.ndarray, correct: np.ndarray) -> list[int | None]:
    """For every message of a row: the first position that is wrong; None where none is.

    A message is a stretch of positions with a weight; between two of them stands one without.

    Args:
      weights: of the positions, [S].
      correct: whether the argmax is the target, [S].
    """
    learned = np.flatnonzero(weights)
    stretches = np.split(learned, np.flatnonzero(np.diff(learned) > 1) + 1) if len(learned) else []
    return [next((int(at) for at in stretch if not correct[at]), None) for stretch in stretches]


def main() -> None:
    """Counts, prints and writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--workdir", action="append", required=True)
    parser.add_argument("--split", action="append", required=True)
    parser.add_argument("--dialogues", type=int, default=0, help="the first ones; 0: all")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    runs: dict[str, dict[str, Any]] = {}
    for workdir in options.workdir:
        found = {name: first_errors(workdir, name, options.dialogues) for name in options.split}
        runs[Path(workdir).name] = found
        print(json.dumps(found, indent=2))
    if options.output:
        write_json(
            options.output, {"dialogues": options.dialogues, "runs": runs, "commit": commit()}
        )


if __name__ == "__main__":
    main()
