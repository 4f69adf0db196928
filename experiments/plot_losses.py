"""Draws each loss and its gradient as functions of the target's probability.

    python experiments/plot_losses.py [--output=docs/losses.png] [--cost]

Over a vocabulary of 1,000 whose other tokens share what the target leaves, with log Z = 2; for
unlikelihood all of them were said before. The gradient is that by the target's logit. Losses
against a second distribution are drawn with one that gives the target 0.7 (a teacher, or a second
pass). With --cost it also times forward and backward of each, 1,024 positions of width 128, 8,192
tokens, by the CPU time of one thread, and prints each as a multiple of cross-entropy's.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import matplotlib as mpl  # noqa: E402
import numpy as np  # noqa: E402

from dlm.losses.api import Aux, Term, told_apart  # noqa: E402
from dlm.losses.binary_cross_entropy import binary_cross_entropy  # noqa: E402
from dlm.losses.cross_entropy import cross_entropy  # noqa: E402
from dlm.losses.distillation import _lesson  # noqa: E402
from dlm.losses.focal import focal  # noqa: E402
from dlm.losses.head import Other, linear_total  # noqa: E402
from dlm.losses.label_smoothing import label_smoothing  # noqa: E402
from dlm.losses.r_drop import _agreement  # noqa: E402
from dlm.losses.unlikelihood import unlikelihood  # noqa: E402
from dlm.losses.weighted import weighted  # noqa: E402
from dlm.losses.z_loss import z_loss  # noqa: E402

VOCABULARY, SECOND, LOG_Z = 1000, 0.7, 2.0
PANELS: dict[str, dict[str, Callable[..., Any]]] = {
    "one distribution": {
        "cross_entropy": cross_entropy,
        "label_smoothing, epsilon 0.1": label_smoothing,
        "focal, gamma 2": focal,
        "z_loss, coefficient 0.1": partial(z_loss, coefficient=0.1),
        "unlikelihood, others said": unlikelihood,
    },
    "beside a second one (target 0.7)": {
        "cross_entropy": cross_entropy,
        "distillation, forward": partial(_lesson, temperature=1.0, alpha=1.0, direction="forward"),
        "distillation, reverse": partial(_lesson, temperature=1.0, alpha=1.0, direction="reverse"),
        "r_drop, alpha 1": partial(_agreement, alpha=1.0),
    },
}
COSTS: dict[str, Callable[..., Any]] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": partial(binary_cross_entropy, positive=1, negative=2),
    "label_smoothing": label_smoothing,
    "focal": focal,
    "z_loss": z_loss,
    "unlikelihood": unlikelihood,
    "weighted (cross-entropy, focal)": partial(
        weighted, terms=(Term("a", 1.0, cross_entropy), Term("b", 1.0, focal))
    ),
    "distillation": partial(_lesson, temperature=1.0, alpha=0.5, direction="forward"),
    "r_drop": partial(_agreement, alpha=1.0),
}
SIZES = {"positions": 1024, "width": 128, "vocabulary": 8192, "previous": 256}


def logits_of(p: jax.Array) -> jax.Array:
    """Logits [N, VOCABULARY] with probability p for token 0, the rest equal."""
    others = jnp.log((1 - p) / (VOCABULARY - 1))
    return LOG_Z + jnp.full((p.size, VOCABULARY), others[:, None]).at[:, 0].set(jnp.log(p))


def curve(loss: Callable[..., Any], p: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """A loss and its gradient by the target's logit, at each probability of the target."""
    targets = jnp.zeros(p.size, jnp.int32)
    said = jnp.tile(jnp.arange(1, VOCABULARY), (p.size, 1))
    aux = Aux(jnp.ones(p.size), targets, targets, said, logits_of(jnp.full_like(p, SECOND)))

    def losses(logits: jax.Array) -> jax.Array:
        return told_apart(loss(logits, targets, aux)).losses

    logits = logits_of(p)
    gradient = jax.grad(lambda z: losses(z).sum())(logits)
    return np.asarray(losses(logits)), np.asarray(gradient[:, 0])


def draw(path: Path) -> None:
    """Writes the figure: losses above, gradients below, a panel a group."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    p = jnp.linspace(0.002, 0.998, 400)
    figure, axes = plt.subplots(2, len(PANELS), figsize=(10, 7), sharex=True, layout="constrained")
    for column, (title, losses) in zip(axes.T, PANELS.items(), strict=True):
        for number, (name, loss) in enumerate(losses.items()):
            style = {"color": f"C{number}", "linewidth": 2.5 if number == 0 else 1.5}
            for axis, values in zip(column, curve(loss, p), strict=True):
                axis.plot(p, values, label=name, **style)
        column[0].set(title=title, ylim=(-0.2, 6))
        column[1].set(xlabel="probability of the target", ylim=(-1.8, 1.2))
        column[0].legend(frameon=False)
        column[1].axhline(0, color="0.7", linewidth=0.8)
    axes[0, 0].set_ylabel("loss, nats")
    axes[1, 0].set_ylabel("gradient by the target's logit")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def costs(rounds: int = 3) -> dict[str, float]:
    """CPU seconds of value and gradients of each loss over those of cross-entropy."""
    random = np.random.default_rng(0)
    number, width, vocabulary, previous = SIZES.values()
    hidden, again = (jnp.asarray(random.normal(size=(number, width)), "f4") for _ in range(2))
    kernel = jnp.asarray(random.normal(size=(vocabulary, width)) / width**0.5, "f4")
    targets = jnp.asarray(random.integers(0, vocabulary, number), jnp.int32)
    said = jnp.asarray(random.integers(0, vocabulary, (number, previous)), jnp.int32)
    weights = jnp.ones(number)
    runs = {}
    for name, loss in COSTS.items():
        two = {"distillation": Other(again, kernel), "r_drop": Other(again)}.get(name)

        def total(kernel: Any, hidden: Any, loss: Any = loss, two: Any = two) -> Any:
            aux = Aux(weights, targets, targets, said)
            found = linear_total(loss, kernel, hidden, targets, weights, aux, chunk=256, other=two)
            return found[0]

        runs[name] = jax.jit(jax.value_and_grad(total, (0, 1)))
        jax.block_until_ready(runs[name](kernel, hidden))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            jax.block_until_ready(run(kernel, hidden))
            seconds[name].append(time.process_time() - start)
    plain = statistics.median(seconds["cross_entropy"])
    return {name: statistics.median(values) / plain for name, values in seconds.items()}


def main() -> None:
    """Draws, and measures where it is asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "losses.png")
    parser.add_argument("--cost", action="store_true")
    args = parser.parse_args()
    draw(args.output)
    if args.cost:
        for name, ratio in costs().items():
            print(f"{name:<34}{ratio:6.2f}")


if __name__ == "__main__":
    main()
