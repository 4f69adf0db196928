"""Measures the head and its loss, forward and backward, beside other ways to compute them.

    python experiments/bench_loss.py [--vocab=50257] [--supervised 0.25 0.5 1] [--gpu] [--json]

8,192 positions of width 384, in float32 on the CPU (all cores) or with --gpu in bfloat16 with
float32 sums: the mean cross-entropy of the supervised positions and its gradients by hidden states
and kernel. Each side has a process of its own; they take turns call by call, and a time is the
median.

    dlm             the chunked head of dlm/losses/head.py
    optax           full logits [N, V], `optax.softmax_cross_entropy_with_integer_labels`
    tokamax         `tokamax.linear_softmax_cross_entropy_loss`, where it is installed
    torch           full logits, `torch.nn.functional.cross_entropy`
    torch, chunked  supervised positions only, 256 at a time, logits made again for the gradient

    memory MB    peak resident memory (on a GPU: of its arrays), less operands and results
    temp MB      temporaries as compiled by XLA
    logits       temporaries as a share of full logits in float32, N V 4 bytes
    TFLOP/s      useful: 6 D V a supervised position
    of matmul    as a share of those of the side's own product [N, D] x [D, V]
    ratio        time of the side over that of dlm
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.sides import (
    add_fields,
    forget_peak,
    resident,
    show,
    show_header,
    take_turns,
    timed,
)

COLUMNS = ("supervised", "ms", "TFLOP/s", "of matmul", "temp MB", "logits", "memory MB", "ratio")
TORCH_CHUNK = 256


class Sizes(NamedTuple):
    """N positions of width D, V tokens; timed calls; a chunk of dlm, 0 = as the device likes."""

    positions: int = 8192
    width: int = 384
    vocab: int = 50257
    steps: int = 5
    chunk: int = 0
    gpu: bool = False


class Case(NamedTuple):
    """Operands: hidden [N, D], kernel [V, D], targets [N], weights [N] of 0 and 1."""

    hidden: np.ndarray
    kernel: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


class Side(NamedTuple):
    """One way: `call()` gives loss and gradients, `product()` the logits alone."""

    call: Callable[[], tuple[Any, Any, Any]]
    product: Callable[[], Any]
    peak_memory: Callable[[], float] | None
    temporaries: float | None


def make_case(sizes: Sizes, supervised: float) -> Case:
    """Seeded operands; the supervised share lies at the end of every stretch of 64 positions."""
    random = np.random.default_rng(0)
    shape = (sizes.positions, sizes.width)
    return Case(
        random.standard_normal(shape, np.float32),
        0.02 * random.standard_normal((sizes.vocab, sizes.width), np.float32),
        random.integers(0, sizes.vocab, sizes.positions, np.int32),
        (np.arange(sizes.positions) % 64 >= 64 * (1 - supervised)).astype(np.float32),
    )


def jax_side(name: str, sizes: Sizes, case: Case) -> Side:
    """A side in JAX, compiled; operands lie on the device."""
    import jax
    import jax.numpy as jnp

    if not sizes.gpu:
        jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    device = jax.devices()[0]
    loss = {"dlm": _ours, "optax": _optax, "tokamax": _tokamax}[name](sizes, case)
    dtype = jnp.bfloat16 if sizes.gpu else jnp.float32
    hidden, kernel, targets, weights = jax.device_put(
        (case.hidden.astype(dtype), *case[1:]), device
    )
    gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))
    call = gradients.lower(hidden, kernel, targets, weights).compile()
    multiply = jax.jit(lambda h, e: jnp.matmul(h, e.T, preferred_element_type=jnp.float32))
    operand = kernel.astype(dtype)

    def run() -> Any:
        value, grads = jax.block_until_ready(call(hidden, kernel, targets, weights))
        return value, *grads

    def peak_memory() -> float:
        return (device.memory_stats() or {}).get("peak_bytes_in_use", 0) / 1e6

    return Side(
        run,
        lambda: jax.block_until_ready(multiply(hidden, operand)),
        peak_memory if sizes.gpu else None,
        call.memory_analysis().temp_size_in_bytes / 1e6,
    )


def _ours(sizes: Sizes, case: Case) -> Callable[..., Any]:
    from dlm.losses.api import Aux
    from dlm.losses.cross_entropy import cross_entropy
    from dlm.losses.head import linear_total

    def loss(hidden: Any, kernel: Any, targets: Any, weights: Any) -> Any:
        scale, aux = weights / weights.sum(), Aux(weights, targets, targets)
        return linear_total(cross_entropy, kernel, hidden, targets, scale, aux, chunk=sizes.chunk)[
            0
        ]

    return loss


def _optax(sizes: Sizes, case: Case) -> Callable[..., Any]:
    import jax.numpy as jnp
    import optax

    def loss(hidden: Any, kernel: Any, targets: Any, weights: Any) -> Any:
        kernel = kernel.astype(hidden.dtype)
        logits = jnp.matmul(hidden, kernel.T, preferred_element_type=jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return (weights * losses).sum() / weights.sum()

    return loss


def _tokamax(sizes: Sizes, case: Case) -> Callable[..., Any]:
    sys.argv[1:] = []  # it reads flags from them
    import tokamax

    index = np.flatnonzero(case.weights)  # it knows no weights

    def loss(hidden: Any, kernel: Any, targets: Any, weights: Any) -> Any:
        del weights
        kernel = kernel.astype(hidden.dtype).T
        return tokamax.linear_softmax_cross_entropy_loss(
            hidden[index], targets[index], kernel, reduction="mean"
        )

    return loss


def torch_side(name: str, sizes: Sizes, case: Case) -> Side:
    """A side in torch, eager, as training loops call it."""
    import torch
    from torch.nn import functional
    from torch.utils.checkpoint import checkpoint

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    device = "cuda" if sizes.gpu else "cpu"
    dtype = torch.bfloat16 if sizes.gpu else torch.float32
    hidden = torch.tensor(case.hidden, dtype=dtype, device=device, requires_grad=True)
    kernel = torch.tensor(case.kernel, device=device, requires_grad=True)
    targets = torch.tensor(case.targets, dtype=torch.long, device=device)
    held = torch.tensor(case.weights > 0, device=device)
    count = held.sum()

    def total(h: Any, y: Any) -> Any:
        return functional.cross_entropy((h @ kernel.to(dtype).T).float(), y, reduction="sum")

    def full() -> Any:
        labels = torch.where(held, targets, -100)
        return functional.cross_entropy((hidden @ kernel.to(dtype).T).float(), labels)

    def chunked() -> Any:
        pairs = zip(hidden[held].split(TORCH_CHUNK), targets[held].split(TORCH_CHUNK), strict=True)
        return sum(checkpoint(total, h, y, use_reentrant=False) for h, y in pairs) / count

    loss = full if name == "torch" else chunked

    def finished(result: Any) -> Any:
        if sizes.gpu:
            torch.cuda.synchronize()
        return result

    def run() -> Any:
        hidden.grad = kernel.grad = None
        value = loss()
        value.backward()
        return finished((value.detach(), hidden.grad, kernel.grad))

    def product() -> Any:
        with torch.no_grad():
            return finished(hidden @ kernel.to(dtype).T)

    def peak_memory() -> float:
        return torch.cuda.max_memory_allocated() / 1e6

    return Side(run, product, peak_memory if sizes.gpu else None, None)


SIDES: dict[str, tuple[str, Callable[[str, Sizes, Case], Side]]] = {
    "dlm": ("jax", jax_side),
    "optax": ("optax", jax_side),
    "tokamax": ("tokamax", jax_side),
    "torch": ("torch", torch_side),
    "torch, chunked": ("torch", torch_side),
}


def session(name: str, sizes: Sizes, case: Case) -> Iterator[Any]:
    """A side's life: its first call's result, then seconds of each, then figures."""
    side = SIDES[name][1](name, sizes, case)
    before = resident("VmRSS")
    forget_peak()
    result = [np.asarray(_plain(array)) for array in side.call()]
    memory = resident("VmHWM") - before
    if side.peak_memory is not None:
        memory = side.peak_memory()
    outside = sum(array.nbytes for array in (case.hidden, case.kernel)) / 1e6
    yield result[0], [float(np.linalg.norm(gradient)) for gradient in result[1:]]
    for _ in range(sizes.steps):
        yield timed(side.call)
    side.product()
    product = min(timed(side.product) for _ in range(3))
    yield {"memory MB": memory - outside, "temp MB": side.temporaries, "product": product}


def _plain(array: Any) -> Any:
    """An array of any library as numpy takes it."""
    if hasattr(array, "detach"):
        return array.detach().float().cpu().numpy()
    return np.asarray(array).astype(np.float32)


def measure(names: list[str], sizes: Sizes, supervised: float) -> Iterator[dict[str, Any]]:
    """The rows of one supervised share.

    Raises:
      RuntimeError: a side computes something else than dlm does.
    """
    case = make_case(sizes, supervised)
    results, *turns, figures = take_turns(session, names, sizes.steps + 2, sizes, case)
    _check(results, 2e-2 if sizes.gpu else 1e-3)
    useful = 6 * int(case.weights.sum()) * sizes.width * sizes.vocab
    seconds = {name: statistics.median(turn[name] for turn in turns) for name in names}
    for name in names:
        product = 2 * sizes.positions * sizes.width * sizes.vocab / figures[name]["product"]
        row = {
            "what": name,
            "supervised": supervised,
            "ms": 1e3 * seconds[name],
            "TFLOP/s": useful / seconds[name] / 1e12,
            "of matmul": useful / seconds[name] / product,
            "memory MB": figures[name]["memory MB"],
            "ratio": seconds[name] / seconds["dlm"],
        }
        if (temporaries := figures[name]["temp MB"]) is not None:
            row["temp MB"] = temporaries
            row["logits"] = temporaries * 1e6 / (4 * sizes.positions * sizes.vocab)
        yield row


def _check(results: dict[str, Any], tolerance: float) -> None:
    """Every side has the loss of dlm, and gradients of the same norms."""
    ours = results["dlm"]
    for name, (value, norms) in results.items():
        pairs = zip((ours[0], *ours[1]), (value, *norms), strict=True)
        if any(abs(mine - other) > tolerance * abs(mine) for mine, other in pairs):
            raise RuntimeError(f"{name} computes {value}, {norms}; dlm {ours[0]}, {ours[1]}")


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_fields(parser, Sizes._field_defaults)
    parser.add_argument("--supervised", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    options = vars(parser.parse_args())
    as_json, shares = options.pop("json"), options.pop("supervised")
    names = [name for name, (needs, _) in SIDES.items() if importlib.util.find_spec(needs)]
    if left := [name for name in SIDES if name not in names]:
        print(f"not installed, left out: {', '.join(left)}", file=sys.stderr)
    if not as_json:
        show_header(COLUMNS)
    for share in shares:
        for row in measure(names, Sizes(**options), share):
            print(json.dumps(row)) if as_json else show(row, COLUMNS)


if __name__ == "__main__":
    main()
