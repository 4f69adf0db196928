"""How much host memory loading takes, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from dlm.models import families
from dlm.models.decoder import Model
from dlm.weights import export

SCRIPT = """
import json, sys
import jax, jax.numpy as jnp
from dlm.models.decoder import Model
from dlm.weights.sources import open_source

def memory(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

import gguf.quants
jnp.ones((256, 256)).block_until_ready()
source = open_source(sys.argv[1])
model = Model(source.config)
jax.eval_shape(model.init, jax.random.key(0))
before = memory("VmRSS")
params = jax.block_until_ready(source.load(model))
held = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
print(json.dumps([held, memory("VmHWM") - before]))
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, Path]:
    """A Llama of 47 million parameters, 187 MB as held, in each format."""
    folder = tmp_path_factory.mktemp("large")
    config = replace(
        families.preset("llama2-7b"),
        vocab_size=8009,
        num_layers=12,
        width=512,
        num_heads=8,
        num_kv_heads=4,
        ffn_width=1536,
    )
    params = jax.eval_shape(Model(config).init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params)
    for dtype in ("float32", "bfloat16"):
        (folder / dtype).mkdir()
        export.write_huggingface(folder / dtype, params, config, dtype=dtype)
    export.write_gguf(folder / "float16.gguf", params, config, dtype="float16")
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16.gguf"])
def test_loading_takes_little_more_than_what_it_holds(written, name):
    """Host memory at most 1.3 times the bytes of the parameters as held."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(written[name])],
        capture_output=True,
        text=True,
        check=True,
        cwd=root,
    )
    held, taken = json.loads(done.stdout)
    assert held > 180e6
    assert taken < 1.3 * held
