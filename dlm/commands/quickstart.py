"""Trains and scores a small dialogue system on the embedded corpus; what runs without a verb.

python run.py [--workdir=DIR]
"""

from __future__ import annotations

from pathlib import Path

from dlm.commands.setup import parse_options
from dlm.commands.train import train

CONFIG = Path(__file__).parents[2] / "configs" / "quickstart.py"


def run(argv: list[str]) -> int:
    """The verb `quickstart`: `train` with its config."""
    named = any(word.startswith("--config=") for word in argv)
    train(parse_options(argv if named else [f"--config={CONFIG}", *argv]))
    return 0
