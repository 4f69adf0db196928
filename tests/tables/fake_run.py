"""Stands in for `run.py train`: says what it was given and ends as its seed tells it to.

Seed 0 ends well, 1 fails, 2 kills itself, 3 waits until it is told to stop, "saves", and ends well
when it is called again.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

verb, *words = sys.argv[1:]
settings = dict(word.removeprefix("--").partition("=")[::2] for word in words)
workdir = Path(settings["workdir"])
seed = int(settings["config.seed"])
told = {"pid": os.getpid(), "cores": sorted(os.sched_getaffinity(0)), "verb": verb}
(workdir / "told.json").write_text(json.dumps(told))
(workdir / "config.json").write_text(json.dumps({"seed": seed, "init": "scratch"}))


def save(*_: object) -> None:
    time.sleep(0.5)
    (workdir / "saved").write_text("whole")
    sys.exit(130)


print("begins", flush=True)
if seed == 1:
    sys.exit("error: train.steps=0 must be above 0")
if seed == 2:
    os.kill(os.getpid(), signal.SIGKILL)
if seed == 3 and not (workdir / "saved").exists():
    signal.signal(signal.SIGTERM, save)
    (workdir / "metrics.jsonl").write_text('{"step": 5, "updates": 5, "train/loss": 1.25}\n')
    time.sleep(120)
(workdir / "summary.json").write_text('{"test/bleu": 0.5}')
