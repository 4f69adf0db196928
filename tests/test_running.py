"""What the pages of docs/ name is there: the tests behind promises, the verbs, the settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import run
from dlm.commands.settings import base
from dlm.losses.api import LEVELS

ROOT = Path(run.__file__).parent
PAGE = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["running.md", "checks.md"])
def test_every_test_that_is_named_exists(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|experiments)/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 10
    for path, name in named:
        source = (ROOT / path).read_text(encoding="utf-8")
        assert not name or f"\ndef {name}(" in source, f"{path}::{name}"


def test_every_check_has_a_row():
    text = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| C(\d+) \|.*`tests/[\w/]+\.py::test_\w+`.*\|$", text, re.MULTILINE)
    assert {int(row) for row in rows} >= {*range(1, 16), 34, 48}


def test_every_command_and_setting_exists():
    verbs = re.findall(r"python run\.py (\w+)", PAGE)
    assert {"plan", "train", "profile"} <= set(verbs) <= set(run.documentation())
    config = base()
    settings = re.findall(r"--config\.([a-z_]+)\.([a-z_]+)=", PAGE)
    settings += re.findall(r"`(train|loss|data|mesh)\.([a-z_]+)(?:=\w+)?`", PAGE)
    assert len(settings) > 10
    for section, name in settings:
        assert name in config[section], f"{section}.{name}"
    for path in re.findall(r"--config=(\S+)", PAGE):
        assert (ROOT / path).is_file(), path


def test_every_loss_has_a_row():
    """docs/losses.md lists each file of dlm/losses that holds a loss, and nothing else."""
    text = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `(\w+)` \|", text.partition("\n## ")[0], re.MULTILINE))
    names = {path.stem for path in (ROOT / "dlm" / "losses").glob("[a-z]*.py")}
    texts = {n: (ROOT / "dlm" / "losses" / f"{n}.py").read_text(encoding="utf-8") for n in names}
    assert rows == {name for name in names if _is_loss(name, texts[name])}


def _is_loss(name: str, source: str) -> bool:
    pattern = rf"^def {name}\(\s*(?:{'|'.join(LEVELS)})\b"
    return re.search(pattern, source, re.MULTILINE) is not None
