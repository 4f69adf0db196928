"""What the verb `plan` says of a run before it starts."""

from __future__ import annotations

import importlib.util
import json
import re

import jax
import pytest

import run
from dlm.commands.build import Unclaimed, training_batches
from dlm.commands.setup import CONFIG_FILE, Setup, parse_options
from dlm.core.paths import flatten
from dlm.training.flop import step_flop
from tests.commands.small_run import flags

FROZEN = r"((r'layers/0/.*', False), (r'.*', True))"
MISSING = importlib.util.find_spec("libtpu") is None


def figure(told: str, pattern: str) -> float:
    """The number that stands in the output where the pattern has its group."""
    found = re.search(pattern, told)
    assert found, told
    return float(found[1].replace(",", ""))


def test_a_plan_states_what_the_run_takes(tmp_path, capsys):
    words = flags(tmp_path, **{"train.trainable": FROZEN})
    assert run.guarded(["plan", *words, "--steps=1"]) == 0
    told = capsys.readouterr().out
    setup = Unclaimed(parse_options(words))
    params = setup.initial_params()
    layer, whole = (
        sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params["layers"]["0"], params)
    )
    assert f"parameters       {whole:,}, trained {whole - layer:,}\n" in told
    assert figure(told, r"  parameters +([\d.,]+)\n") == round(4 * whole / 1e6, 1)
    assert figure(told, r"  moments +([\d.,]+) ") == round(8 * (whole - layer) / 1e6, 1)
    assert "run              30 updates" in told
    assert "devices          1 x cpu: data 1 x fsdp 1 x tensor 1\n" in told

    trainable = {path: "layers/0" not in path for path in flatten(params)}
    batches = [training_batches(setup).batch(step) for step in (0, 1)]
    flop = sum(step_flop(setup.model.config, batch, trainable) for batch in batches) / 2
    assert figure(told, r"([\d.,]+) GFLOP a step = ") == pytest.approx(flop / 1e9, abs=0.005)
    step = figure(told, r"\nstep +([\d.e+-]+) s \(median of 1\), [\d,]+ tokens/s")
    assert step > 0
    assert not (tmp_path / "run").exists()
    hours = figure(told, r"\nwhole run +([\d.]+) hours = 30 updates x ")
    assert hours == pytest.approx(30 * step / 3600, abs=0.006)


def test_without_steps_nothing_is_made_or_written(tmp_path, capsys, monkeypatch):
    """Not even where a run had claimed the workdir and was stopped before it saved a tokenizer."""

    def refuse(*_: object) -> None:
        raise AssertionError("parameters were made")

    monkeypatch.setattr(Setup, "initial_params", refuse)
    words = flags(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CONFIG_FILE).write_text("{}")
    assert run.guarded(["plan", *words, "--steps=0"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"compiled +for cpu in [\d.]+ s; whether it fits is up to", told)
    assert "hours" not in told
    assert [path.name for path in (tmp_path / "run").rglob("*")] == [CONFIG_FILE]


def test_a_run_that_is_there_is_planned_by_its_own_config(tmp_path, capsys):
    options = parse_options(flags(tmp_path, **{"train.steps": 7}))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CONFIG_FILE).write_text(json.dumps(options.resolved))
    assert run.guarded(["plan", f"--workdir={tmp_path / 'run'}", "--steps=0"]) == 0
    assert "run              7 updates" in capsys.readouterr().out


def test_a_step_without_room_is_the_users_to_mend(tmp_path, capsys, monkeypatch):
    message = (
        "RESOURCE_EXHAUSTED: Ran out of memory.\nUsed 29.36G of 15.75G hbm. Exceeded by 13.61G."
    )

    def refuse(*_: object, **__: object) -> None:
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    words = flags(tmp_path)
    setup = parse_options(words)
    training_batches(Unclaimed(setup))  # whatever the data need is compiled before
    assert run.guarded(["plan", *words, "--steps=0"]) == 2
    error = capsys.readouterr().err
    assert "does not fit into the memory of a cpu: Used 29.36G of 15.75G hbm" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("extra", "plan does not know 'extra'"),
        ("--steps=many", "--steps=many is no number of steps"),
        ("--config.mesh.data=3", "needs 3 devices, found 1"),
        ("--config.train.epochs=2.0", "train.steps and train.epochs are both given; unset one"),
        ("--config.train.steps=None", "give train.steps or train.epochs"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, word, told):
    assert run.guarded(["plan", *flags(tmp_path), word]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_topology_without_its_compiler_says_what_to_install(tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "libtpu" else find(name)
    )
    assert run.guarded(["plan", *flags(tmp_path), "--topology=v5e:2x2"]) == 2
    error = capsys.readouterr().err
    assert f'pip install "jax[tpu]=={jax.__version__}"' in error
    assert error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(MISSING, reason="libtpu is absent: pip install jax[tpu], of jax's own version")
def test_a_step_is_compiled_for_a_tpu_that_is_not_here(tmp_path, capsys):
    """Four chips, the parameters cut over two of them; an unknown one is refused."""
    words = flags(tmp_path, **{"mesh.fsdp": 2, "data.rows": 4})
    assert run.guarded(["plan", *words, "--topology=v5e:2x2"]) == 0
    told = capsys.readouterr().out
    assert "devices          4 x TPU v5 lite: data 2 x fsdp 2 x tensor 1\n" in told
    assert re.search(r"compiled +for TPU v5 lite in [\d.]+ s; it fits\n", told)
    assert run.guarded(["plan", *words, "--topology=v5e:2x7"]) == 2
    assert "--topology=v5e:2x7: " in capsys.readouterr().err
