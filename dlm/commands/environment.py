"""What a run ran on: versions, devices and the commit, for `environment.json`."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

LIBRARIES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain"),
    *("tensorflow-datasets", "tokenizers", "ml-collections"),
)


def describe_environment() -> dict[str, Any]:
    """Versions, hardware, command line and commit, as plain values."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": [device.device_kind for device in jax.devices()],
        "processes": jax.process_count(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": commit(),
    }


def commit() -> str | None:
    """The commit of the code, with `+changes` where files differ from it; None outside git."""
    folder = Path(__file__).parent
    try:
        head = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+changes" if changed else "")


def _git(folder: Path, *words: str) -> str:
    run = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True)
    return run.stdout.strip()
