"""Measures what happens to data before a step: plans, encoding, batches, and what is learned.

    python experiments/bench_data.py [--dialogues=20000] [--plan=1000000] [--json]
    python experiments/bench_data.py --trl=PYTHON [--file=FILE.jsonl] [--tokenizer=FOLDER] [--json]

Each row is measured in this one run, on generated dialogues; `ratio` is to the row before it of
the same group. The third group trains a small model on dialogues of ever more turns: packed in one
pass, padded, and with each turn an example of its own; there `ratio` is the learned tokens a second
of the packed pass over the row's. The fourth holds the pipeline on one core against the train step
of the quickstart on all: `ratio` is the pipeline's tokens a second over the step's.

With --trl, an interpreter that has TRL, another group is measured alone: `prepare.py` prepares one
file (generated, or --file: `{"messages": [{"role", "content"}]}` a line) from text to packed rows,
cold and from what the first time left on the disk, each in a process of its own. Both sides take
the same tokenizer and format: ours, or a checkpoint's folder with a chat template that marks what
the assistant says. `ratio` is TRL's seconds, cold and with the better number of processes, over the
row's; so is `processor ratio`, of the seconds that all processes together computed, which other
work on the machine changes less. With --json, one JSON object a row.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
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


@contextmanager
def one_core() -> Iterator[None]:
    """Keeps this process, and what it starts meanwhile, on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def quickstart(folder: str, steps: int = 12) -> Iterator[dict[str, Any]]:
    """Tokens a second that the pipeline gives on one core and that the quickstart's step takes."""
    import jax

    from dlm.commands.build import Unclaimed, build, training_batches
    from dlm.commands.setup import parse_options
    from dlm.training.mesh import make_mesh

    root = Path(__file__).resolve().parents[1]
    config = f"--config={root / 'configs' / 'quickstart.py'}"
    setup = Unclaimed(parse_options([config, f"--config.data.cache_dir={folder}"]))
    source, template = setup.split("train"), setup.template
    with one_core():
        seconds, pieces = timed(
            lambda: build_or_load(
                *(source, template, PolicyConfig(), setup.settings.data.length),
                **{"name": "train", "data_digest": "one core", "cache_dir": folder},
            )
        )
        encoding = pieces.counts.tokens / seconds
        batches = training_batches(setup)
        epoch = batches.iterate(0, batches.num_steps())
        seconds, read = timed(lambda: sum(int((b.segment_ids > 0).sum()) for b in epoch))
        making = read / seconds
    mesh = make_mesh(setup.settings.mesh)
    with jax.set_mesh(mesh):
        params = setup.initial_params(mesh)
        training = build(setup, mesh, batches, params)
        state = jax.device_put(training.make_state(params), training.shardings)
        frozen = setup.frozen.params(mesh)
        seconds, held = float("inf"), 0
        for number in range(steps):
            batch = training.batches.batch(number)
            placed = training.place(batch)
            work = partial(training.step, state, placed, frozen)
            took, (state, _) = timed(lambda work=work: jax.block_until_ready(work()))
            if number:  # the first compiles
                seconds, held = min((seconds, held), (took, int((batch.segment_ids > 0).sum())))
    step = held / seconds
    yield {"what": "quickstart, its train step", "tokens/s": step}
    yield {"what": "quickstart, batches on one core", "tokens/s": making, "ratio": making / step}
    yield {
        "what": "quickstart, encoded on one core",
        "tokens/s": encoding,
        "ratio": encoding / step,
    }


MARKED = (  # the built-in template for messages of a role and a text, what is learned marked
    "{% for message in messages %}{{ '<|' + message.role + '|>' }}"
    "{% if message.role == 'assistant' %}"
    "{% generation %}{{ '<|reply|>' + message.content + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ message.content + '<|end|>' }}{% endif %}{% endfor %}"
)


def write_file(dialogues: list[Dialogue], path: Path) -> None:
    """Writes dialogues of plain messages, one a line."""
    with path.open("w", encoding="utf-8") as file:
        for dialogue in dialogues:
            said = [{"role": m.role, "content": m.content} for m in dialogue.messages]
            file.write(json.dumps({"messages": said}, ensure_ascii=False) + "\n")


def write_tokenizer(file: Path, folder: Path) -> None:
    """Learns a tokenizer from a file; written so that both sides load it."""
    texts = (
        message["content"]
        for line in file.open(encoding="utf-8")
        for message in json.loads(line)["messages"]
    )
    tokenizer = train(texts, (), TokenizerConfig(vocab_size=8192))
    tokenizer.save_pretrained(folder, MARKED)
    tokenizer.save(folder / "ours")


def beside_trl(python: str, file: Path, theirs: Path, ours: Path) -> Iterator[dict[str, Any]]:
    """What it takes both sides to prepare a file, cold and a second time."""
    script = str(Path(__file__).with_name("prepare.py"))
    cores = len(os.sched_getaffinity(0))
    best, least = float("inf"), float("inf")
    sides = [(python, "trl", theirs, n) for n in sorted({1, cores})]
    for interpreter, side, folder, processes in (*sides, (sys.executable, "dlm", ours, cores)):
        for how in ("cold", "from the cache"):
            if how == "cold":
                cache = tempfile.TemporaryDirectory()
            words = [interpreter, script, side, file, folder, cache.name, LONG, processes]
            env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": cache.name}
            said = subprocess.run(
                [str(word) for word in words],
                env=env,
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            ).stdout
            figures = json.loads(said.splitlines()[-1])
            if side == "trl" and how == "cold":
                best = min(best, figures["seconds"])
                least = min(least, figures["processor seconds"])
            row = {"what": f"{side}, {processes} cores, {how}", **figures}
            waste = 1 - figures["tokens"] / (figures["rows"] * LONG)
            ratios = {
                "ratio": best / figures["seconds"],
                "processor ratio": least / figures["processor seconds"],
            }
            yield row | {"waste": waste, **ratios}
        cache.cleanup()


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dialogues", type=int, default=20_000, help="encoded and batched")
    parser.add_argument("--plan", type=int, default=1_000_000, help="dialogues of the plans")
    parser.add_argument("--trl", metavar="PYTHON", help="an interpreter that has TRL")
    parser.add_argument("--file", type=Path, help="what is prepared beside TRL")
    parser.add_argument("--tokenizer", type=Path, help="a checkpoint's, for both sides")
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    options = parser.parse_args()

    def show(row: dict[str, Any]) -> None:
        if options.json:
            print(json.dumps(row), flush=True)
            return
        figures = (f"{name} {value:,.4g}" for name, value in row.items() if name != "what")
        print(f"{row['what']:<34} " + ", ".join(figures), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        if options.trl:
            file, theirs = options.file or Path(folder, "file.jsonl"), options.tokenizer
            if not options.file:
                write_file(generated(options.dialogues), file)
            ours = theirs or Path(folder, "tokenizer", "ours")
            if not theirs:
                theirs = ours.parent
                write_tokenizer(file, theirs)
            for row in beside_trl(options.trl, file, theirs, ours):
                show(row)
            return
        for row in plans(options.plan):
            show(row)
        for row in encodings(generated(options.dialogues), folder):
            pieces = row.pop("pieces")
            show(row)
        for row in (*batches(pieces), *supervision(folder), *quickstart(folder)):
            show(row)


if __name__ == "__main__":
    main()
