"""Prepares a JSONL file of gigabytes and watches the memory that it takes.

    python experiments/large_file.py --workdir=DIR [--gigabytes=5] [--output=FILE]

Writes a file of made-up dialogues, prepares it with the verb `data` (which builds the corpus,
learns a tokenizer, encodes it in as many processes as there are cores, and packs a batch), and then
reads an epoch of its batches. Meanwhile the memory of all processes is looked at every second:

    own MB         what the process holds itself: `RssAnon`
    mapped MB      pages of files that it has touched, which the system takes back when it needs
                   them: `RssFile`
    own MB, all    of all processes together

Prints the peaks of each stage as JSON. Hardware: any; disk: eight times the file. Time:
about an hour for 5 GB on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dlm.commands.environment import commit  # noqa: E402
from dlm.core.files import write_json  # noqa: E402

EPOCH = "--epoch"
HELD_OUT = "validation.jsonl"


def write_file(path: Path, size: int) -> None:
    """Writes dialogues of 1 to 6 turns until the file has `size` bytes."""
    rng = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(20_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    sentences = [
        " ".join(rng.choices(words, weights, k=rng.randint(5, 25))).capitalize() + "."
        for _ in range(20_000)
    ]
    written = 0
    aside = path.with_suffix(".part")
    with aside.open("w", encoding="utf-8") as file:
        while written < size:
            said = []
            for _ in range(rng.randint(1, 6)):
                said.append({"role": "user", "content": " ".join(rng.choices(sentences, k=2))})
                reply = " ".join(rng.choices(sentences, k=rng.randint(1, 12)))
                said.append({"role": "assistant", "content": reply})
            written += file.write(json.dumps({"messages": said}) + "\n")
    aside.rename(path)


def memory(pid: int) -> dict[str, float]:
    """Own and mapped memory of a process in MB, nothing of one that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    fields = dict(line.split(":", 1) for line in status.splitlines())
    if "RssAnon" not in fields:
        return {}
    kilobytes = {
        "own MB": int(fields["RssAnon"].split()[0]) + int(fields["RssShmem"].split()[0]),
        "mapped MB": int(fields["RssFile"].split()[0]),
    }
    return {name: value * 1024 / 1e6 for name, value in kilobytes.items()}


def family(pid: int) -> list[int]:
    """A process and all that it has started, directly or not."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(folder.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def watched(command: list[str]) -> dict[str, float]:
    """Runs a command; returns its seconds and the peaks of its memory."""
    start = time.monotonic()
    peaks = {"own MB": 0.0, "mapped MB": 0.0, "own MB, all": 0.0, "processes": 0.0}
    process = subprocess.Popen(command, cwd=ROOT)
    while process.poll() is None:
        held = [found for pid in family(process.pid) if (found := memory(pid))]
        for name in ("own MB", "mapped MB"):
            peaks[name] = max([peaks[name], *(one[name] for one in held)])
        peaks["own MB, all"] = max(peaks["own MB, all"], sum(one["own MB"] for one in held))
        peaks["processes"] = max(peaks["processes"], len(held))
        time.sleep(1)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    seconds = time.monotonic() - start
    return {name: round(value, 1) for name, value in {"seconds": seconds, **peaks}.items()}


def flags(file: Path, workdir: Path) -> list[str]:
    """The config of the run."""
    return [
        f"--config={ROOT / 'configs' / 'jsonl.py'}",
        f"--config.data.path={file}",
        f"--config.data.validation_path={file.with_name(HELD_OUT)}",
        f"--config.data.cache_dir={workdir / 'cache'}",
        "--config.data.length=1024",
        f"--workdir={workdir / 'run'}",
    ]


def read_epoch(words: list[str]) -> None:
    """Reads the batches of an epoch, as training does, and says how many tokens they held."""
    from dlm.commands.build import Unclaimed, training_batches
    from dlm.commands.setup import parse_options
    from dlm.core.progress import Progress

    batches = training_batches(Unclaimed(parse_options(words)))
    steps, tokens = batches.num_steps(), 0
    with Progress(steps, "reading", "batch") as progress:
        for done, batch in enumerate(batches.iterate(0, steps), 1):
            tokens += int((batch.segment_ids > 0).sum())
            progress.update(done)
    print(f"{steps:,} batches, {tokens:,} tokens", flush=True)


def main() -> None:
    """Runs the stages and prints what they took."""
    if sys.argv[1:2] == [EPOCH]:
        read_epoch(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--output", type=Path, help="also written there")
    options = parser.parse_args()
    options.workdir.mkdir(parents=True, exist_ok=True)
    file = options.workdir / "dialogues.jsonl"
    result: dict[str, Any] = {"commit": commit(), "cores": len(os.sched_getaffinity(0))}
    if not file.exists():
        write_file(file, int(options.gigabytes * 1e9))
    with file.open(encoding="utf-8") as lines, file.with_name(HELD_OUT).open("w") as held_out:
        held_out.writelines(itertools.islice(lines, 100))
    result["gigabytes"] = round(file.stat().st_size / 1e9, 3)
    run = [sys.executable, str(ROOT / "run.py"), "data", *flags(file, options.workdir)]
    epoch = [sys.executable, __file__, EPOCH, *flags(file, options.workdir)]
    result["data"] = watched(run)
    result["epoch"] = watched(epoch)
    print(json.dumps(result, indent=2))
    if options.output:
        write_json(options.output, result)


if __name__ == "__main__":
    main()
