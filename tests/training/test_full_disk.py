"""A disk that is full: said in one line, and what was saved before stays whole."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from dlm.core.errors import UserError
from dlm.training.checkpoints import Checkpoints


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB, or the test is skipped where mounting is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("a full disk: there is no mount")
    if done.returncode:
        pytest.skip(f"a full disk: mounting a tmpfs is not allowed ({done.stderr.strip()})")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def noise(megabytes: float) -> dict[str, np.ndarray]:
    """A state that does not compress."""
    return {"params": np.random.default_rng(0).random(int(megabytes * 2**18), np.float32)}


# Orbax's own thread says what happened as well.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_is_told_and_costs_no_checkpoint(small_disk: Path):
    """Once there is room again the same step is saved."""
    state = noise(0.1)
    with Checkpoints(small_disk / "checkpoints", lower_is_better=True) as checkpoints:
        checkpoints.save(1, state)
        checkpoints.wait()
        other = small_disk / "other"
        other.write_bytes(bytes(int(1.7 * 2**20)))
        checkpoints.save(2, noise(1))
        with pytest.raises(UserError, match=r"checkpoint .*/2 could not be written: "):
            checkpoints.wait()
        assert checkpoints.latest_good() == 1
        restored = checkpoints.restore(1, state)
        np.testing.assert_array_equal(restored["params"], state["params"])
        other.unlink()
        checkpoints.save(2, noise(1))
        assert checkpoints.latest_good() == 2
        names = sorted(path.name for path in (small_disk / "checkpoints").iterdir())
        assert names == ["1", "2"]
