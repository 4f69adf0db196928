from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlm.core.errors import UserError
from dlm.training.checkpoints import Checkpoints, Damaged
from dlm.training.manifest import NAME


class State(NamedTuple):
    step: Any
    params: Any
    opt_state: Any
    key: Any


def make_state(seed: int = 0) -> State:
    """A small state with what real ones hold: bfloat16, masked moments, a typed key."""
    key = jax.random.key(seed)
    params = {
        "layers": {"0": {"kernel": jax.random.normal(key, (3, 5)), "bias": jnp.zeros(5)}},
        "head": jax.random.normal(key, (7, 3)).astype(jnp.bfloat16),
    }
    mask = {"layers": {"0": {"kernel": True, "bias": False}}, "head": True}
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.masked(optax.adamw(1e-3, mu_dtype="float32"), mask)
    )
    return State(jnp.int32(seed), params, optimizer.init(params), jax.random.fold_in(key, seed))


def assert_same(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.fixture
def said():
    return []


@pytest.fixture
def checkpoints(tmp_path, said):
    with Checkpoints(tmp_path / "checkpoints", say=said.append, lower_is_better=True) as opened:
        yield opened


def steps(checkpoints: Checkpoints) -> set[str]:
    checkpoints.wait()
    return {path.name for path in checkpoints.folder.iterdir()}


def test_a_state_comes_back_bit_for_bit(checkpoints):
    """Resume is bitwise: arrays, moments and typed random keys, with the extra values."""
    state = make_state(3)
    extra = {"best": 0.1 + 0.2, "patience_left": 3, "none": None}
    checkpoints.save(3, state, extra=extra)
    like = jax.eval_shape(lambda: make_state(3))
    restored = checkpoints.restore(3, like)
    assert_same(restored, state)
    assert isinstance(restored, State)
    assert checkpoints.extra(3) == extra
    draws = [jax.random.bits(s.key, (4,)).tolist() for s in (restored, state)]
    assert draws[0] == draws[1]


def test_buffers_may_be_donated_while_a_save_runs(checkpoints):
    step = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    tree = step({"a": jnp.zeros((512, 512)), "b": jnp.zeros(3)})
    expected = jax.tree.map(np.array, tree)
    checkpoints.save(1, tree)
    for _ in range(3):
        tree = step(tree)
    assert_same(checkpoints.restore(1, expected), expected)


def test_the_last_two_and_the_best_are_kept(checkpoints):
    for step, loss in enumerate([5.0, 2.0, 4.0, 3.0, None, float("nan")]):
        checkpoints.save(step, make_state(step), metric=loss)
    assert steps(checkpoints) == {"1", "4", "5"}
    assert checkpoints.best_good() == 1
    assert checkpoints.latest_good() == 5


def test_the_best_is_the_highest_where_higher_is_better(tmp_path):
    """Best respects the metric's direction, and the earliest of equals is the best."""
    with Checkpoints(tmp_path, lower_is_better=False) as checkpoints:
        for step, accuracy in enumerate([0.5, 0.75, 0.75, 0.25, 0.5]):
            checkpoints.save(step, make_state(step), metric=accuracy)
        assert steps(checkpoints) == {"1", "3", "4"}
    with Checkpoints(tmp_path, lower_is_better=False) as reopened:
        assert reopened.best_good() == 1
        assert reopened.latest_good() == 4


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def test_a_flipped_bit_anywhere_is_damage(checkpoints):
    """Damage is seen: the first, a middle and the last byte of every file, the manifest too."""
    checkpoints.save(1, make_state())
    checkpoints.wait()
    for path in files_of(checkpoints.folder / "1"):
        whole = path.read_bytes()
        for at in {0, len(whole) // 2, len(whole) - 1} if whole else ():
            flip(path, at)
            name = path.relative_to(checkpoints.folder / "1").as_posix()
            assert checkpoints.damage(1) == f"{name} was changed"
            path.write_bytes(whole)
    assert checkpoints.damage(1) is None


def test_any_byte_of_the_manifest_may_be_flipped(checkpoints):
    checkpoints.save(1, {"a": jnp.zeros(2)}, extra={"n": 1}, metric=0.5)
    checkpoints.wait()
    path = checkpoints.folder / "1" / NAME
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole)
        flip(path, at)
        with pytest.raises(Damaged, match=f"{NAME} was changed"):
            checkpoints.extra(1)
    path.write_bytes(whole)
    assert checkpoints.extra(1) == {"n": 1}


def respell(path):
    path.write_text(json.dumps(json.loads(path.read_text())))


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda folder: (folder / "state" / "_METADATA").unlink(), "state/_METADATA is missing"),
        (lambda folder: os.truncate(folder / "_CHECKPOINT_METADATA", 9), "was changed"),
        (lambda folder: (folder / "state" / "d" / "x").write_bytes(b""), "state/d/x was added"),
        (lambda folder: (folder / NAME).unlink(), "so its save never finished"),
        (lambda folder: (folder / NAME).write_text("[]"), f"{NAME} was changed"),
        (lambda folder: (folder / NAME).write_text("{"), f"{NAME} was changed"),
        (lambda folder: respell(folder / NAME), f"{NAME} was changed"),
    ],
)
def test_a_damaged_checkpoint_is_never_restored(checkpoints, harm, reason):
    checkpoints.save(1, make_state())
    checkpoints.wait()
    harm(checkpoints.folder / "1")
    with pytest.raises(Damaged, match=rf"checkpoint .*checkpoints/1 is damaged: .*{reason}"):
        checkpoints.restore(1, make_state())
    assert checkpoints.latest_good() is None


def test_the_last_good_one_is_used_and_said_so(checkpoints, said):
    for step in (1, 2):
        checkpoints.save(step, make_state(step), metric=float(3 - step))
    checkpoints.wait()
    flip(files_of(checkpoints.folder / "2" / "state" / "d")[0], 5)
    assert checkpoints.latest_good() == 1
    assert len(said) == 1
    assert "checkpoints/2 is damaged and not used: state/d/" in said[0]
    assert checkpoints.best_good() == 1
    assert_same(checkpoints.restore(1, make_state()), make_state(1))


def test_a_resumed_run_replaces_a_damaged_step_and_keeps_the_good_one_until_then(checkpoints):
    """Retention never deletes the only good one."""
    for step in (10, 30):
        checkpoints.save(step, make_state(step))
    checkpoints.wait()
    flip(files_of(checkpoints.folder / "30" / "state" / "d")[0], 5)
    assert checkpoints.latest_good() == 10
    checkpoints.save(20, make_state(20))
    assert steps(checkpoints) == {"10", "20", "30"}
    checkpoints.save(30, make_state(30))
    assert steps(checkpoints) == {"20", "30"}
    assert checkpoints.latest_good() == 30


def test_an_unfinished_save_is_never_the_latest_and_is_cleared_away(checkpoints):
    checkpoints.save(1, make_state(1))
    checkpoints.wait()
    (checkpoints.folder / "2").mkdir()
    (checkpoints.folder / "2" / "half").write_bytes(b"x")
    (checkpoints.folder / "1.orbax-checkpoint-tmp").mkdir()
    (checkpoints.folder / "3.orbax-checkpoint-tmp").mkdir()
    (checkpoints.folder / "notes").mkdir()
    assert checkpoints.latest_good() == 1
    checkpoints.save(2, make_state(2))
    assert steps(checkpoints) == {"1", "2", "notes"}
    assert_same(checkpoints.restore(2, make_state()), make_state(2))


def test_a_good_step_is_not_written_again(checkpoints):
    checkpoints.save(1, make_state(1), extra={"n": 1})
    checkpoints.save(1, make_state(2), extra={"n": 2})
    assert_same(checkpoints.restore(1, make_state()), make_state(1))
    assert checkpoints.extra(1) == {"n": 1}


def change(tree: Any, path: str, leaf: Any) -> Any:
    """A copy of a tree of dicts with one leaf replaced, added, or (None) removed."""
    first, _, rest = path.partition("/")
    inner = change(tree.get(first, {}), rest, leaf) if rest else leaf
    return {k: v for k, v in {**tree, first: inner}.items() if v is not None}


@pytest.mark.parametrize(
    ("path", "leaf", "message"),
    [
        ("layers/1/kernel", jnp.ones(3), r"params/layers/1/kernel: missing, wanted float32\[3\]"),
        ("layers/0/bias", None, r"params/layers/0/bias: extra, float32\[5\]"),
        ("head", jnp.ones((3, 7), jnp.bfloat16), r"params/head: saved as bfloat16\[7,3\], wanted"),
        ("head", jnp.ones((7, 3)), r"saved as bfloat16\[7,3\], wanted float32\[7,3\]"),
    ],
    ids=["missing", "extra", "shape", "dtype"],
)
@pytest.mark.parametrize("partial", [False, True])
def test_restore_is_strict(checkpoints, path, leaf, message, partial):
    """Nothing is zero-filled, dropped or cast: the leaf that does not fit is named."""
    state = make_state()
    checkpoints.save(1, state)
    params = change(state.params, path, leaf)
    like = {"params": params} if partial else state._replace(params=params)
    with pytest.raises(UserError, match=message):
        checkpoints.restore(1, like, partial=partial)


def test_a_part_is_loaded_only_where_it_is_asked_for(checkpoints):
    state = make_state(5)
    checkpoints.save(1, state)
    restored = checkpoints.restore(1, {"params": state.params}, partial=True)
    assert_same(restored, {"params": state.params})
    with pytest.raises(UserError, match=r"does not fit: key: extra, key<fry>\[\]; .* more$"):
        checkpoints.restore(1, {"params": state.params})


def test_another_digest_stops_the_restore(tmp_path):
    """Restore is strict about what a state belongs to; a reader names what it cares about."""
    digests = {"config": "c" * 64, "data": "d" * 64}
    with Checkpoints(tmp_path, digests=digests, lower_is_better=True) as checkpoints:
        checkpoints.save(1, make_state())
    with Checkpoints(tmp_path, digests={"data": "d" * 64}, lower_is_better=True) as checkpoints:
        assert_same(checkpoints.restore(1, make_state()), make_state())
    for other in ({"data": "e" * 64}, {"tokenizer": "t" * 64}):
        with (
            Checkpoints(tmp_path, digests=other, lower_is_better=True) as checkpoints,
            pytest.raises(UserError, match=f"belongs to {next(iter(other))} .*, this is"),
        ):
            checkpoints.restore(1, make_state())


def test_a_moved_run_keeps_its_checkpoints(tmp_path):
    with Checkpoints(tmp_path / "a", lower_is_better=True) as checkpoints:
        checkpoints.save(1, make_state(1))
    (tmp_path / "a").rename(tmp_path / "b")
    with Checkpoints(tmp_path / "b", lower_is_better=True) as checkpoints:
        assert_same(checkpoints.restore(1, make_state()), make_state(1))


def test_reading_makes_no_folder(tmp_path):
    with Checkpoints(tmp_path / "none", lower_is_better=True) as checkpoints:
        assert checkpoints.latest_good() is None
        assert checkpoints.best_good() is None
        with pytest.raises(Damaged, match="its save never finished"):
            checkpoints.restore(1, make_state())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("leaf", [3, 2.5, "text"])
def test_a_leaf_that_is_no_array_is_refused_before_the_save(checkpoints, leaf):
    with pytest.raises(TypeError, match="a state holds arrays only, not"):
        checkpoints.save(1, {"a": leaf})
    assert not checkpoints.folder.exists()


def test_extra_values_that_json_cannot_hold_are_refused_before_the_save(checkpoints):
    with pytest.raises(ValueError, match="Out of range float"):
        checkpoints.save(1, make_state(), extra={"best": float("inf")})
    assert not checkpoints.folder.exists()


def test_a_save_that_cannot_be_written_is_said_at_the_next_wait(checkpoints, monkeypatch):
    checkpoints.save(1, make_state(1))
    checkpoints.wait()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("dlm.training.manifest.files.write_atomic", full)
        checkpoints.save(2, make_state(2))
        with pytest.raises(UserError, match=r"checkpoints/2 could not be written: .*No space"):
            checkpoints.close()
    with Checkpoints(checkpoints.folder, lower_is_better=True) as reopened:
        assert reopened.latest_good() == 1


def test_an_exit_by_an_exception_finishes_the_save(tmp_path):
    code = (
        "import jax.numpy as jnp\n"
        "from dlm.training.checkpoints import Checkpoints\n"
        f"with Checkpoints({str(tmp_path)!r}, lower_is_better=True) as checkpoints:\n"
        "    checkpoints.save(7, {'a': jnp.ones((512, 512))})\n"
        "    raise SystemExit(5)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 5
    with Checkpoints(tmp_path, lower_is_better=True) as checkpoints:
        assert checkpoints.latest_good() == 7


def test_the_manifest_says_what_a_checkpoint_is(checkpoints):
    checkpoints.save(1, {"a": {"b": jnp.zeros((2, 3))}}, metric=0.5)
    checkpoints.wait()
    content = json.loads((checkpoints.folder / "1" / NAME).read_text())
    assert content["tree"] == {"a/b": "float32[2,3]"}
    assert (content["step"], content["metric"]) == (1, 0.5)
    assert "commit_success.txt" in content["files"]
