"""Measures what loading a GGUF file takes, in time and memory, beside the transformers library.

    python experiments/bench_load.py FILE.gguf [--json]

Each loader runs in a process of its own; its imports are over before the clock starts. `peak` is
the growth of the process's largest resident size over that at the start, `held` the float32
parameters' bytes, `ratio` the seconds over ours. With --json, one JSON object a row.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def ours(path: str) -> Callable[[], int]:
    """Header, metadata, digest and parameters."""
    import gguf.quants  # noqa: F401
    import jax

    from dlm.models.decoder import Model
    from dlm.weights.sources import open_source

    jax.numpy.ones(2).block_until_ready()

    def load() -> int:
        source = open_source(path)
        assert source.digest
        params = jax.block_until_ready(source.load(Model(source.config)))
        return sum(leaf.nbytes for leaf in jax.tree.leaves(params))

    return load


def transformers(path: str) -> Callable[[], int]:
    """The model in float32."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint  # noqa: F401

    def load() -> int:
        folder, name = Path(path).parent, Path(path).name
        model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=name, dtype=torch.float32, local_files_only=True
        )
        return sum(4 * parameter.numel() for parameter in model.parameters())

    return load


LOADERS = {"dlm": ours, "transformers": transformers}


def measure(name: str, path: str) -> dict[str, Any]:
    """Loads once in this process."""
    load = LOADERS[name](path)
    before = peak()
    start = time.perf_counter()
    held = load()
    seconds = time.perf_counter() - start
    grown = peak() - before
    return {
        "what": f"{name}, {Path(path).name}",
        "seconds": seconds,
        "peak MB": grown / 1e6,
        "held MB": held / 1e6,
        "peak / held": grown / held,
    }


def peak() -> int:
    """The largest resident size of this process so far, in bytes (Linux counts in kilobytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", help="a GGUF file")
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    parser.add_argument("--loader", choices=LOADERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loader:
        print(json.dumps(measure(options.loader, options.path)))
        return
    first: float | None = None
    for name in LOADERS:
        words = [sys.executable, __file__, options.path, f"--loader={name}"]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        row["ratio"] = 1.0 if first is None else row["seconds"] / first
        first = first or row["seconds"]
        if options.json:
            print(json.dumps(row))
        else:
            figures = (f"{key} {value:,.4g}" for key, value in row.items() if key != "what")
            print(f"{row['what']:<50} " + ", ".join(figures))


if __name__ == "__main__":
    main()
