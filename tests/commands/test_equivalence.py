"""However a batch is cut, a run is the same run: through the command line, over 50 updates.

Micro-batches, packing, devices and `pmap`: in float64 by AdamW within 1e-9 for every normaliser, in
float32 by SGD within 1e-5 and without a drift to one side. Rounding and `pmap` know nothing of
normalisers, so they are compared for one of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import run
from dlm.losses.api import NORMALISERS
from tests.commands.small_run import flags

pytestmark = pytest.mark.slow

SCRIPT, ROOT = Path(__file__).with_name("equivalent_run.py"), Path(run.__file__).parent
COLOURS = ("red", "green", "blue", "black", "white")
UPDATES = 50
TINY = {
    "data.rows": 8,
    "data.length": 48,
    "model.num_layers": 1,
    "model.width": 16,
    "model.dropout": 0.0,
    "train.steps": UPDATES,
    "train.log_every": UPDATES,
}
ONE_DEVICE = {
    "8 rows": {},
    "8 micro-batches": {"train.accumulate": 8},
    "padded": {"data.pack": False},
}
EIGHT_DEVICES: dict[str, dict] = {"8 devices": {}, "pmap": {}}
PMAPPED = ("token",)
ADAMW = {"train.dtype": "float64", "optimizer.name": "adamw", "optimizer.learning_rate": 0.003}
SGD = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.1}


def write_dialogues(path: Path) -> Path:
    """Dialogues of one to three turns of unequal lengths, some with two messages in a turn."""
    lines = []
    for number in range(60):
        messages = []
        for turn in range(1 + number % 3):
            words = " ".join(
                COLOURS[(number * number + turn + j) % 5] for j in range(1 + number % 4)
            )
            messages.append({"role": "user", "content": words})
            if number % 2:
                messages.append({"role": "assistant", "channel": "state", "content": words[:3]})
            messages.append({"role": "assistant", "content": words})
        lines.append(json.dumps({"id": f"d{number}", "messages": messages}) + "\n")
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("equivalence")


@cache
def outcomes(folder: Path, float64: bool) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """Losses and parameters of every run, by its normaliser and the way it is cut."""
    data = write_dialogues(folder / "unequal.jsonl")
    found = {}
    for devices, cases in ((1, ONE_DEVICE), (8, EIGHT_DEVICES)):
        words = {}
        for normaliser in NORMALISERS if float64 else NORMALISERS[:1]:
            for name, changes in cases.items():
                if name == "pmap" and normaliser not in PMAPPED:
                    continue
                settings = {**TINY, **(ADAMW if float64 else SGD), **changes}
                argv = flags(folder, **settings, **{"loss.normaliser": normaliser})
                argv.append(f"--config.data.path={data}")
                run_name = f"{normaliser} {name}"
                words[run_name] = [*argv, f"--workdir={folder / f'{float64} {run_name}'}"]
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_ENABLE_X64": str(float64),
            "JAX_DEFAULT_MATMUL_PRECISION": "highest",
            "PYTHONPATH": str(ROOT),
        }
        asked = json.dumps({"float64": float64, "cases": words})
        command = [sys.executable, str(SCRIPT), asked]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
        assert done.returncode == 0, done.stderr
        for name, arrays in json.loads(done.stdout.splitlines()[-1]).items():
            normaliser, _, way = name.partition(" ")
            found[normaliser, way] = {key: np.asarray(value) for key, value in arrays.items()}
    return found


@pytest.mark.parametrize(
    ("normaliser", "float64"), [*((name, True) for name in NORMALISERS), (NORMALISERS[0], False)]
)
def test_every_way_to_cut_a_batch_is_one_run(folder, normaliser, float64):
    found = {w: arrays for (n, w), arrays in outcomes(folder, float64).items() if n == normaliser}
    base = found.pop("8 rows")
    assert len(found) == (4 if normaliser in PMAPPED else 3)
    assert len(base["losses"]) == UPDATES
    assert base["losses"][-1] < 0.9 * base["losses"][0]  # something was learned
    for way, arrays in found.items():
        for key, wanted in base.items():
            tolerance = (1e-9 if float64 else 1e-5) * np.maximum(1, np.abs(wanted).max())
            np.testing.assert_allclose(
                arrays[key], wanted, rtol=0, atol=tolerance, err_msg=f"{way}: {key}"
            )
        if not float64:
            residuals = arrays["params"] - base["params"]
            error = residuals.std(ddof=1) / np.sqrt(residuals.size)
            assert abs(residuals.mean()) <= 3 * error, f"{way}: drifts by {residuals.mean()}"
