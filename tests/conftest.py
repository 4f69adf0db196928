"""What all tests share: JAX on the CPU, repeatable generated cases, real corpora if present."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Generated cases are the same in every run, and a slow machine is no failure.
hypothesis.settings.register_profile("dlm", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("dlm")


@pytest.fixture(scope="session")
def corpus_dir() -> Callable[[str], Path]:
    """Returns the folder of a real corpus under DLM_DATA_DIR, or skips the test with its name."""

    def find(name: str) -> Path:
        root = os.environ.get("DLM_DATA_DIR", "")
        folder = Path(root) / name
        if not root or not folder.is_dir():
            pytest.skip(f"corpus {name} is absent; set DLM_DATA_DIR to the folder that holds it")
        return folder

    return find
