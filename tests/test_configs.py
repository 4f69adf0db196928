"""Every config file is a run that could start."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import run
from dlm.commands import start
from dlm.commands.settings import Settings
from dlm.core import config as border
from dlm.corpora.registry import CORPORA

CONFIGS = sorted((Path(run.__file__).parent / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_parses(path):
    config, name, rest = border.load([f"--config={path}"])
    settings = border.parse(Settings, config, str(path))
    assert (name, rest) == (path.stem, [])
    assert settings.data.name in CORPORA
    if start.is_drawn(settings.init):  # else the shape is the checkpoint's, which is not here
        assert start.model_config(settings).max_length >= settings.data.length
    assert (settings.train.steps is None) != (settings.train.epochs is None)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_says_how_it_is_run(path):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert "python run.py" in text
    for word in ("Hardware:", "Time:", "xpected"):
        assert word in text, word


def test_a_babi_config_takes_its_task():
    path = next(path for path in CONFIGS if path.stem == "babi_dialog")
    config, name, _ = border.load([f"--config={path}:task=2"])
    assert (config.data.options.task, name) == (2, "babi_dialog-task=2")
