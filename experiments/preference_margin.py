"""Whether DPO raises the margin of held-out pairs: configs/preference.py, both stages, five seeds.

    python experiments/preference_margin.py [--seeds=5] [--folder=DIR] [--output=FILE]

Each seed tunes a small model on the chosen replies of the preference demo and goes on with DPO from
there. The margin, log p(chosen) - log p(rejected) in nats, is that of the test pairs, which nothing
was chosen by: neither a setting nor a checkpoint (each stage is evaluated once, at its end). Prints
as JSON the figures of every seed before and after DPO, and the mean difference with its t interval
over seeds. Runs are kept in --folder, and those that are there already are not made again.
Hardware: two CPU cores. Time: some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dlm.commands.environment import commit, describe_environment  # noqa: E402
from dlm.core.files import read_json  # noqa: E402
from dlm.tables.statistics import paired  # noqa: E402

CONFIG = ROOT / "configs" / "preference.py"
FIGURES = ("margin", "preference_accuracy", "loss")
SPLITS = ("test", "validation")


def train(arguments: str, workdir: Path, seed: int) -> dict[str, float]:
    """One stage, unless it is there; its figures."""
    if not (workdir / "summary.json").exists():
        words = [f"--config={CONFIG}:{arguments}", f"--config.seed={seed}", f"--workdir={workdir}"]
        subprocess.run([sys.executable, "run.py", "train", *words], cwd=ROOT, check=True)
    return read_json(workdir / "summary.json")


def measure(folder: Path, seeds: int) -> dict[str, Any]:
    """Both stages of each seed, and what they differ by."""
    runs = []
    for seed in range(seeds):
        tuned = folder / f"sft{seed}"
        train("stage=sft", tuned, seed)
        runs.append(train(f"stage=dpo,init={tuned}", folder / f"dpo{seed}", seed))
    result: dict[str, Any] = {"seeds": seeds}
    for name in (f"{split}/{figure}" for split in SPLITS for figure in FIGURES):
        before = [run[f"before/{name}"] for run in runs]
        after = [run[name] for run in runs]
        compared = paired(after, before)
        result[name] = {"before": before, "after": after, **asdict(compared)}
    return result


def main() -> int:
    """Runs the experiment as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (args.folder or Path(scratch)).resolve()
        # Each start compiles the same programs, small as they are.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/compiled"
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        result = measure(folder, args.seeds)
    environment = describe_environment()
    kept = ("python", "devices", "libraries")
    result |= {"commit": commit(), **{name: environment[name] for name in kept}}
    text = json.dumps(result, indent=2)
    print(text)
    if args.output:
        args.output.write_text(text + "\n", encoding="utf-8")
    return 0 if result["test/margin"]["difference"]["low"] > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
