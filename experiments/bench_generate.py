"""Measures our greedy decoding beside transformers' `generate`: same weights, same prompts.

    python experiments/bench_generate.py [--models gpt2-small smollm2-135m] [--rows 1 8] [--json]

On the CPU in float32, all cores, randomly initialised: a GPT-2 of 6 layers and width 384 with the
published vocabulary, and the shape of SmolLM2-135M. Prompts of 64 tokens, 128 new ones, no early
stop. Each side has a process and imports of its own and reads the same checkpoint; they take turns,
and a time is the median over the turns.

    prefill/s   tokens of prompts read a second, until the first new one is there
    decode/s    further new tokens a second, all rows together
    ms/step     for one further token of every row
    memory      peak resident memory of the process, less what it held before the model was loaded
    compile     what the first call takes longer than the median one
    same        share of the tokens that both sides wrote alike, up to the first that differs
    ratio       of our figure to that of transformers
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dlm.models import gpt2, llama
from dlm.models.config import ModelConfig
from experiments.sides import (
    SIDES,
    forget_peak,
    installed,
    resident,
    show,
    show_header,
    take_turns,
    timed,
)

MODELS = {
    "gpt2-tiny": gpt2.shape(1, 64, 1),
    "gpt2-small": gpt2.shape(6, 384, 6),
    "smollm2-135m": llama.PRESETS["smollm2-135m"],
}
RATIOS = ("prefill/s", "decode/s", "memory MB")
COLUMNS = ("rows", "prefill/s", "decode/s", "ms/step", "memory MB", "compile s", "same")

Write = Callable[[int], list[list[int]]]  # so many new tokens of every row


class Sizes(NamedTuple):
    """P tokens of a prompt, new tokens of a response, and timed turns."""

    prompt: int = 64
    new: int = 128
    turns: int = 3


def write_checkpoint(config: ModelConfig, folder: Path) -> None:
    """Draws a model and writes it as transformers reads it.

    Its weights are larger than those that training starts from, so that the likeliest token stands
    out and rounding does not decide.
    """
    import jax

    from dlm.models.decoder import Model
    from dlm.weights.export import write_huggingface

    config = replace(config, init_stddev=0.1)
    write_huggingface(folder, jax.jit(Model(config).init)(jax.random.key(0)), config)


def our_side() -> Callable[[Path, np.ndarray], Write]:
    """The engine that every verb decodes with, held back by no grammar."""
    import jax

    from dlm.generation.engine import GREEDY, Engine, Request
    from dlm.models.decoder import Model
    from dlm.weights.sources import open_source

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    jax.numpy.ones(2).block_until_ready()

    class Anything:
        done = False

        def forced(self) -> None:
            return None

        def allows(self, token: int) -> bool:
            return True

        def advance(self, token: int) -> None:
            pass

    def load(folder: Path, prompts: np.ndarray) -> Write:
        source = open_source(str(folder))
        model = Model(source.config)
        engine = Engine(model, source.load(model), 0, model.config.max_length)

        def write(new: int) -> list[list[int]]:
            requests = [Request(prompt, Anything(), new) for prompt in prompts.tolist()]
            return [list(done.ids) for done in engine.generate(requests, GREEDY)]

        return write

    return load


def their_side() -> Callable[[Path, np.ndarray], Write]:
    """`generate` with its own cache and attention, nothing set but what the task asks."""
    import torch
    import transformers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.ones(2)
    transformers.utils.logging.disable_progress_bar()

    def load(folder: Path, prompts: np.ndarray) -> Write:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokens = torch.tensor(prompts, dtype=torch.long)

        def write(new: int) -> list[list[int]]:
            with torch.inference_mode():
                ids = model.generate(
                    tokens,
                    attention_mask=torch.ones_like(tokens),
                    max_new_tokens=new,
                    min_new_tokens=new,
                    do_sample=False,
                    eos_token_id=None,
                    pad_token_id=0,
                )
            return ids[:, tokens.shape[1] :].tolist()

        return write

    return load


def session(side: str, folder: Path, rows: int, sizes: Sizes) -> Iterator[Any]:
    """A side's life, a turn at a time: seconds for one token and for all, then figures."""
    loader = our_side() if side == "dlm" else their_side()
    vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    prompts = np.random.default_rng(0).integers(0, vocab, (rows, sizes.prompt))
    before = resident("VmRSS")
    forget_peak()
    write, written = loader(folder, prompts), []
    for _ in range(1 + sizes.turns):
        yield timed(lambda: write(1)), timed(lambda: written.append(write(sizes.new)))
    assert all(len(ids) == sizes.new for ids in written[-1])
    yield {"memory MB": resident("VmHWM") - before}, written[-1]


def measure(sides: list[str], name: str, rows: int, sizes: Sizes) -> Iterator[dict[str, Any]]:
    """The rows of one model and batch: one a side, and the ratio of the two."""
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(MODELS[name], Path(folder))
        results = take_turns(session, sides, 1 + sizes.turns + 1, Path(folder), rows, sizes)
        first, *turns, figures = results
    table = []
    for side in sides:
        one = statistics.median(turn[side][0] for turn in turns)
        rest = statistics.median(turn[side][1] for turn in turns) - one
        rates = {
            "prefill/s": rows * sizes.prompt / one,
            "decode/s": rows * (sizes.new - 1) / rest,
            "ms/step": 1e3 * rest / (sizes.new - 1),
            "compile s": sum(first[side]) - 2 * one - rest,
        }
        table.append({"what": side, "model": name, "rows": rows, **rates, **figures[side][0]})
    yield from table
    if len(table) == 2:
        ratios = {figure: table[0][figure] / table[1][figure] for figure in RATIOS}
        same = share_alike(*(figures[side][1] for side in sides))
        yield {"what": "ratio", "model": name, "rows": rows, **ratios, "same": same}


def share_alike(one: list[list[int]], other: list[list[int]]) -> float:
    """The share of tokens before the first that differs, over all rows."""
    alike = [np.cumprod(np.equal(a, b)).sum() for a, b in zip(one, other, strict=True)]
    return float(sum(alike) / sum(map(len, one)))


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=["gpt2-small", "smollm2-135m"]
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8], help="B")
    for name, default in Sizes._field_defaults.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    options = vars(parser.parse_args())
    as_json, models, counts = (options.pop(name) for name in ("json", "models", "rows"))
    sides = installed()
    if len(sides) < len(SIDES):
        print("torch or transformers is not installed: ours alone", file=sys.stderr)
    for model in models:
        if not as_json:
            print(model)
            show_header(COLUMNS)
        for rows in counts:
            for row in measure(sides, model, rows, Sizes(**options)):
                print(json.dumps(row), flush=True) if as_json else show(row, COLUMNS)


if __name__ == "__main__":
    main()
