"""Measures the data pipeline: packing plans, encoding, the cache, batches, and what is learned.

    python experiments/bench_pipeline.py [--dialogues=20000] [--plan=1000000] [--json]

Each row is measured in this one run, on generated dialogues; `ratio` is to the row before it of
the same group. The last group trains a small model on dialogues of ever more turns: packed in one
pass, padded, and with each turn an example of its own; there `ratio` is the learned tokens a second
of the packed pass over the row's. With --json, one JSON object a row.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dlm.data.packing import Packing, efficiency, lower_bound
from dlm.data.pipeline import Batches
from dlm.data.store import Pieces, build_or_load
from dlm.dialogue.builtin_template import BuiltinTemplate
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.tokenizer import TokenizerConfig, train

LENGTH, ROWS = 256, 16
LONG = 1024  # positions of a row that holds 32 turns


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that `work` takes, and what it returns."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def plans(number: int) -> Iterator[dict[str, Any]]:
    """The plan of `number` dialogues for several row lengths: time, and waste beside the bound."""
    for length in (256, 1024, 8192):
        rng = np.random.default_rng(length)
        lengths = np.clip(rng.lognormal(np.log(length / 4), 0.6, number), 2, length).astype(int)
        packed, packing = timed(lambda values=lengths, t=length: Packing(values, t))
        shuffled, _ = timed(lambda p=packing: p.plan(digest="bench", seed=0, epoch=0))
        bound = efficiency(lengths, length, lower_bound(lengths, length))
        yield {
            "what": f"plan of {number:,} at T={length}",
            "seconds": packed + shuffled,
            "seconds of each further epoch": shuffled,
            "waste": 1 - efficiency(lengths, length, packing.num_rows),
            "waste at best": 1 - bound,
        }


def generated(number: int, turns: int = 0) -> list[Dialogue]:
    """Seeded dialogues of made-up words, of so many turns, or 2 to 6."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 7))) for _ in range(2000)]

    def message(role: str) -> Message:
        return Message(role, " ".join(rng.choices(words, k=rng.randint(3, 9))))

    roles = ("user", "assistant")
    sizes = (turns or rng.randint(2, 6) for _ in range(number))
    return [Dialogue(str(i), tuple(map(message, roles * n))) for i, n in enumerate(sizes)]


def encodings(dialogues: list[Dialogue], folder: str) -> Iterator[dict[str, Any]]:
    """Encoding cold and from the cache; the last row carries the pieces."""
    texts = (message.content for dialogue in dialogues[:2000] for message in dialogue.messages)
    template = BuiltinTemplate(train(texts, (), TokenizerConfig(vocab_size=1024)))
    cold = 0.0
    for what in ("encoding, cold", "encoding, from the cache"):
        seconds, pieces = timed(
            lambda: build_or_load(
                dialogues,
                template,
                PolicyConfig(),
                LENGTH,
                name="bench",
                data_digest="bench",
                cache_dir=folder,
            )
        )
        tokens = pieces.counts.tokens
        row = {"what": what, "seconds": seconds, "tokens/s": tokens / seconds, "pieces": pieces}
        yield row | ({"ratio": cold / seconds} if cold else {})
        cold = cold or seconds


def batches(pieces: Pieces) -> Iterator[dict[str, Any]]:
    """An epoch of batches, made one after another and by Grain, packed and unpacked."""
    before = 0.0
    for what, pack, ahead in (
        ("batches, packed, indexed", True, False),
        ("batches, packed, through Grain", True, True),
        ("batches, unpacked, through Grain", False, True),
    ):
        made = Batches(pieces, ROWS, LENGTH, pack=pack)
        steps = range(made.num_steps())
        source = made.iterate(0, len(steps)) if ahead else map(made.batch, steps)
        seconds, read = timed(lambda source=source: sum((b.segment_ids > 0).sum() for b in source))
        row = {"what": what, "seconds": seconds, "tokens/s": float(read / seconds)}
        yield row | ({"ratio": before / seconds} if before else {})
        before = seconds


def make_step(vocab_size: int) -> tuple[Callable[[Any], Any], Callable[[Any], int]]:
    """The loss's gradients of a small model on a batch, and the bytes that it needs meanwhile."""
    import jax

    from dlm.losses.api import Context
    from dlm.losses.cross_entropy import cross_entropy
    from dlm.losses.objective import make_objective
    from dlm.models.config import ModelConfig
    from dlm.models.decoder import Model

    model = Model(ModelConfig(vocab_size=vocab_size, num_layers=2, width=64, num_heads=4))
    objective = make_objective(cross_entropy, model, train=False)
    params = model.init(jax.random.key(0))

    @jax.jit
    def gradients(params: Any, batch: Any) -> Any:
        return jax.grad(lambda p: objective(p, batch, Context(None, 0, 0))["loss"].total)(params)

    def memory(batch: Any) -> int:
        return gradients.lower(params, batch).compile().memory_analysis().temp_size_in_bytes

    return lambda batch: jax.block_until_ready(gradients(params, batch)), memory


def supervision(folder: str, number: int = 48) -> Iterator[dict[str, Any]]:
    """What a second of training learns from dialogues of 4 to 32 turns, by how they are read."""
    texts = (message.content for dialogue in generated(500) for message in dialogue.messages)
    template = BuiltinTemplate(train(texts, (), TokenizerConfig(vocab_size=1024)))
    step, memory = make_step(template.tokenizer.vocab_size)
    for turns in (4, 8, 16, 32):
        best = 0.0
        for what, pack, expand in (
            ("packed", True, False),
            ("padded", False, False),
            ("expanded", True, True),
        ):
            pieces = build_or_load(
                *(generated(number, turns), template, PolicyConfig(expand=expand), LONG),
                **{"name": f"{turns}", "data_digest": f"{turns}", "cache_dir": folder},
            )
            made = Batches(pieces, 2, LONG, pack=pack)
            epoch = [made.batch(i) for i in range(min(4, made.num_steps()))]
            step(epoch[0])  # compiles
            seconds = min(
                sum(timed(lambda batch=batch: step(batch))[0] for batch in epoch) for _ in range(3)
            )
            held = sum(int((batch.segment_ids > 0).sum()) for batch in epoch)
            learned = sum(int((batch.loss_weights > 0).sum()) for batch in epoch) / seconds
            best = best or learned
            yield {
                "what": f"{turns} turns, {what}",
                "learned tokens/s": learned,
                "tokens/s": held / seconds,
                "waste": 1 - held / sum(batch.tokens.size for batch in epoch),
                "memory, MB": memory(epoch[0]) / 1e6,
                "ratio": best / learned,
            }


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dialogues", type=int, default=20_000, help="encoded and batched")
    parser.add_argument("--plan", type=int, default=1_000_000, help="dialogues of the plans")
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    options = parser.parse_args()

    def show(row: dict[str, Any]) -> None:
        if options.json:
            print(json.dumps(row))
            return
        figures = (f"{name} {value:,.4g}" for name, value in row.items() if name != "what")
        print(f"{row['what']:<34} " + ", ".join(figures))

    for row in plans(options.plan):
        show(row)
    with tempfile.TemporaryDirectory() as folder:
        for row in encodings(generated(options.dialogues), folder):
            pieces = row.pop("pieces")
            show(row)
        for row in (*batches(pieces), *supervision(folder)):
            show(row)


if __name__ == "__main__":
    main()
