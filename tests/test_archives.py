"""Archives: nothing here opens one, so no name in one can become a path."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OPENERS = {"tarfile", "zipfile", "unpack_archive", "extractall", "py7zr", "rarfile", "patoolib"}


def opened(source: str) -> set[str]:
    """The names in a source that open archives."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(part for alias in node.names for part in alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            names.update([*(node.module or "").split("."), *(alias.name for alias in node.names)])
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
    return names & OPENERS


def test_no_archive_is_opened():
    """Whoever opens one has to refuse `..`, absolute paths, links and great ratios first."""
    for path in sorted((ROOT / "dlm").rglob("*.py")):
        found = opened(path.read_text(encoding="utf-8"))
        assert not found, f"{path}: {found}; members must be checked before anything is written"


@pytest.mark.parametrize(
    "source",
    [
        "import tarfile",
        "from zipfile import ZipFile as Z",
        "import shutil\nshutil.unpack_archive(a)",
    ],
)
def test_an_opener_is_seen(source):
    assert opened(source)
