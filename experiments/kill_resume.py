"""Kills a training run at random moments, again and again, and compares how it ends.

    python experiments/kill_resume.py [--kills=30] [--seed=0] [--output=FILE]

A tiny model is trained once undisturbed. Then the same run is started and killed (SIGKILL) at a
random moment, started again, and so on; each time that it comes to its end its parameters, moments,
counters, key and log lines must be those of the undisturbed run, bit for bit. It saves so often
that many kills land within a save. Prints the result as JSON; exit status 1 where anything differs.
Hardware: any. Time: some minutes on two CPU cores.
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import numpy as np  # noqa: E402

from dlm.commands.build import build, training_batches  # noqa: E402
from dlm.commands.environment import commit, describe_environment  # noqa: E402
from dlm.commands.setup import Setup, parse_options  # noqa: E402
from dlm.training.checkpoints import Checkpoints  # noqa: E402
from dlm.training.log import METRICS_FILE, read_metrics  # noqa: E402
from dlm.training.mesh import make_mesh  # noqa: E402

UPDATES, SAVE_EVERY = 400, 4
SETTINGS = {
    "data.length": 64,
    "data.rows": 4,
    "model.num_layers": 1,
    "model.width": 16,
    "model.num_heads": 2,
    "model.dropout": 0.1,
    "tokenizer.vocab_size": 300,
    "train.epochs": None,
    "train.steps": UPDATES,
    "train.eval_every": 100,
    "train.save_every": SAVE_EVERY,
    "train.log_every": 10,
    "eval.splits": "('validation',)",
    "eval.dialogues": 0,
}
COLOURS = ("red", "green", "blue", "black", "white")


def write_dialogues(path: Path, number: int) -> Path:
    """Writes dialogues of unequal lengths, one a line."""
    lines = []
    for i in range(number):
        words = " ".join(COLOURS[(i * i + j) % len(COLOURS)] for j in range(1 + i % 7))
        messages = [{"role": "user", "content": words}, {"role": "assistant", "content": words}]
        lines.append(json.dumps({"id": f"d{i}", "messages": messages}) + "\n")
    path.write_text("".join(lines))
    return path


def command_line(folder: Path, workdir: Path) -> list[str]:
    """The words after `python run.py train`."""
    files = {"path": 40, "validation_path": 5}
    named = {f"data.{name}": write_dialogues(folder / name, n) for name, n in files.items()}
    settings = {**SETTINGS, **named, "data.cache_dir": folder / "cache"}
    words = [f"--config.{name}={value}" for name, value in settings.items()]
    return [f"--config={ROOT / 'configs' / 'jsonl.py'}", f"--workdir={workdir}", *words]


def start(words: list[str]) -> subprocess.Popen:
    """Starts the run; what it prints can be read."""
    command = [sys.executable, str(ROOT / "run.py"), "train", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def wait_for_training(process: subprocess.Popen) -> None:
    """Returns once the first step is done, or the process has ended."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("training:"):
            return


def unfinished(workdir: Path, since: float) -> bool:
    """Whether a save that was begun after a time has not become a checkpoint."""
    for path in (workdir / "checkpoints").glob("*"):
        if not (path / "manifest.json").exists() and path.stat().st_ctime > since:
            return True
    return False


def outcome(words: list[str]) -> dict[str, Any]:
    """The last state of a run, leaf by leaf as bytes, and its log lines without their timings."""
    setup = Setup(parse_options(words))
    mesh = make_mesh(setup.settings.mesh)
    params = setup.initial_params(mesh)
    training = build(setup, mesh, training_batches(setup), params)
    with Checkpoints(setup.workdir / "checkpoints", lower_is_better=True) as checkpoints:
        step = checkpoints.latest_good()
        assert step is not None
        state = checkpoints.restore(step, training.make_state(params))
    state = state._replace(key=jax.random.key_data(state.key))
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    bits = {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}
    timings = ("tokens_per_second", "data_wait")
    lines = [
        {name: value for name, value in row.items() if not name.endswith(timings)}
        for row in read_metrics(setup.workdir / METRICS_FILE)
    ]
    return {"bits": bits, "lines": lines}


def kill_once(words: list[str], workdir: Path, draw: random.Random, seconds: float) -> str:
    """Starts the run and kills it: "during a save", "between saves" or "before training".

    Returns:
      One of these, or "" where the run came to its end first.
    """
    begun = time.time()
    process = start(words)
    early = draw.random() < 0.1
    if early:
        time.sleep(draw.uniform(0, 5))
    else:
        wait_for_training(process)
        time.sleep(draw.uniform(0, seconds))
    ended = process.poll() is not None
    process.kill()
    process.communicate()
    if ended:
        assert process.returncode == 0, "the run failed by itself"
        return ""
    if unfinished(workdir, begun):
        return "during a save"
    return "before training" if early else "between saves"


def finish(words: list[str]) -> float:
    """Lets the run go on to its end; returns the seconds since its first step."""
    process = start(words)
    wait_for_training(process)
    begun = time.monotonic()
    process.communicate()
    assert process.returncode == 0, "the run failed by itself"
    return time.monotonic() - begun


def measure(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kills runs in a folder until there were enough kills; compares each that ended."""
    draw = random.Random(seed)
    words = command_line(folder, folder / "undisturbed")
    seconds = finish(words)
    wanted = outcome(words)
    landed = {"during a save": 0, "between saves": 0, "before training": 0}
    equal = []
    while sum(landed.values()) < kills:
        workdir = folder / f"killed{len(equal)}"
        words = command_line(folder, workdir)
        while sum(landed.values()) < kills:
            where = kill_once(words, workdir, draw, seconds / 6)
            if not where:
                break
            landed[where] += 1
            print(f"kill {sum(landed.values())}: {where}", file=sys.stderr, flush=True)
        finish(words)
        equal.append(outcome(words) == wanted)
    return {
        "kills": sum(landed.values()),
        "landed": landed,
        "runs": len(equal),
        "runs equal to the undisturbed one, bit for bit": sum(equal),
        "updates a run": UPDATES,
        "updates between saves": SAVE_EVERY,
        "seed": seed,
    }


def main() -> int:
    """Runs the experiment as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Each start compiles the same programs, small as they are.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/compiled"
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        result = measure(Path(folder), args.kills, args.seed)
    environment = describe_environment()
    kept = ("python", "devices", "libraries")
    result |= {"commit": commit(), **{name: environment[name] for name in kept}}
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(text)
    return 0 if result["runs"] == result["runs equal to the undisturbed one, bit for bit"] else 1


if __name__ == "__main__":
    sys.exit(main())
