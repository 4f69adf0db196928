"""The command line of a run that compiles in a second or two; its workdir is not there."""

from __future__ import annotations

import json
from pathlib import Path

import run

CONFIG = Path(run.__file__).parent / "configs" / "jsonl.py"
DIALOGUE = {
    "messages": [
        {"role": "user", "content": "red or blue"},
        {"role": "assistant", "channel": "act", "content": "choose"},
        {"role": "assistant", "content": "blue"},
    ]
}


def flags(folder: Path, **changes: object) -> list[str]:
    """Writes the run's data into the folder and names its workdir `folder / "run"`."""
    records = [{"id": f"d{number}", **DIALOGUE} for number in range(8)]
    path = folder / "data.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    config = {
        "data.path": path,
        "data.validation_path": path,
        "data.cache_dir": folder / "cache",
        "data.length": 32,
        "data.rows": 2,
        "model.num_layers": 2,
        "model.width": 32,
        "model.num_heads": 2,
        "model.max_length": 64,
        "tokenizer.vocab_size": 280,
        "optimizer.warmup": 0.0,
        "train.epochs": None,
        "train.steps": 30,
        **changes,
    }
    words = [f"--config.{name}={value}" for name, value in config.items()]
    return [f"--config={CONFIG}", f"--workdir={folder / 'run'}", *words]
