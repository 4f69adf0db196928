"""Where a run's model comes from."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from dlm.commands import start
from dlm.commands.settings import Settings, base
from dlm.commands.setup import CONFIG_FILE
from dlm.core.errors import UserError
from dlm.models.config import ModelConfig
from dlm.models.decoder import Model
from dlm.training.checkpoints import Checkpoints
from dlm.weights import export, sources

TINY = ModelConfig(vocab_size=11, num_layers=1, width=8, num_heads=2, max_length=16)


def settings(init: str, **model: object) -> Settings:
    return Settings(init=init, model=dataclasses.replace(ModelConfig(), **model))


@pytest.fixture
def workdir(tmp_path):
    """A run of two checkpoints whose first is the better one, and its two sets of parameters."""
    (tmp_path / CONFIG_FILE).write_text(json.dumps(base().to_dict()))
    (tmp_path / start.MODEL_FILE).write_text(json.dumps(dataclasses.asdict(TINY)))
    params = [Model(TINY).init(jax.random.key(seed)) for seed in (1, 2)]
    with Checkpoints(
        tmp_path / start.CHECKPOINTS, digests={"tokenizer": "t"}, lower_is_better=True
    ) as checkpoints:
        for step, (tree, loss) in enumerate(zip(params, (0.5, 0.7), strict=True)):
            state = {"params": tree, "step": np.asarray(step, np.int32)}
            checkpoints.save(step, state, metric=loss)
    return tmp_path, params


def test_scratch_is_the_config_itself():
    given = settings("scratch", width=64)
    assert start.model_config(given) == given.model


def test_a_preset_is_changed_by_what_the_config_says():
    """The vocabulary is that of the run's tokenizer; what stands at its default is not said."""
    shape = start.model_config(settings("gpt2", num_layers=2, dropout=0.1))
    assert (shape.num_layers, shape.width, shape.norm, shape.dropout) == (2, 768, "layer", 0.1)
    assert shape.vocab_size == 0


def test_how_layers_are_run_is_not_inherited():
    """A run on a CPU goes on from one on a GPU, without its dropout."""
    source = dataclasses.replace(TINY, dropout=0.3, attention="flash", remat="layers")
    assert start.changed(source, ModelConfig()) == TINY
    assert start.changed(TINY, ModelConfig(scan_layers=True)).scan_layers


def test_a_run_gives_its_shape_and_its_best_parameters(workdir):
    folder, params = workdir
    given = settings(str(folder), dropout=0.5)
    shape = start.model_config(given)
    assert shape == dataclasses.replace(TINY, dropout=0.5)
    restored = start.initial_params(given, Model(shape))
    jax.tree.map(np.testing.assert_array_equal, restored, params[0])


def test_the_best_parameters_are_those_of_the_metric_that_the_run_names(workdir):
    """The second checkpoint is worse by a loss of 0.7, and better by an accuracy of 0.7."""
    folder, params = workdir
    by_loss = start.trained_digest(folder)
    config = base()
    config.train.metric = "validation/response_accuracy"
    (folder / CONFIG_FILE).write_text(json.dumps(config.to_dict()))
    trained = start.trained_params(folder, Model(TINY), tokenizer="t")
    jax.tree.map(np.testing.assert_array_equal, trained, params[1])
    assert start.trained_digest(folder) != by_loss


def test_a_checkpoint_gives_its_shape_its_parameters_and_its_digest(tmp_path):
    """Of another library: the shape may be changed where it keeps the weights; digest, not path."""
    config = dataclasses.replace(TINY, num_kv_heads=2, head_width=4, ffn_width=24)
    params = Model(config).init(jax.random.key(1))
    export.write_huggingface(tmp_path, params, config)
    given = settings(str(tmp_path), dropout=0.5)
    shape = start.model_config(given)
    assert shape == dataclasses.replace(config, dropout=0.5)
    assert start.source_run(str(tmp_path)) is None
    assert not start.is_drawn(str(tmp_path))
    restored = start.initial_params(given, Model(shape), tokenizer="any")
    jax.tree.map(np.testing.assert_array_equal, restored, params)
    digest = sources.open_source(str(tmp_path)).digest
    assert start.source_digests(str(tmp_path)) == {"init": digest}
    assert start.source_digests("gpt2") == {}
    deeper = Model(dataclasses.replace(shape, num_layers=2))
    with pytest.raises(UserError, match=r"layers/1/.*: missing, wanted"):
        start.initial_params(given, deeper)


def test_the_seed_decides_what_is_drawn():
    model = Model(TINY)
    first, again, other = (
        start.initial_params(Settings(seed=seed), model)["embedding"]["tokens"]
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_does_not_fit_is_named(workdir, tmp_path):
    folder, _ = workdir
    with pytest.raises(
        UserError, match=r"init='gpt3' is neither the workdir of a run, nor a check"
    ):
        start.source_run("gpt3")
    with pytest.raises(UserError, match="holds no checkpoint; train it first"):
        start.find_checkpoints(tmp_path / "empty")
    wide = Model(dataclasses.replace(TINY, width=16))
    with pytest.raises(UserError, match=r"params/.*saved as float32"):
        start.trained_params(folder, wide)
    with pytest.raises(UserError, match="belongs to tokenizer t, this is other"):
        start.trained_params(folder, Model(TINY), tokenizer="other")
