"""Published files: found under a path or DLM_DATA_DIR, told where absent, counted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.corpora import registry
from dlm.corpora.published import absent, counted, find_files, root_of
from dlm.corpora.registry import Card
from dlm.dialogue.schema import Dialogue, Message

CARD = Card("toys", "Toys.", folder="toys", files=("data/a.txt",), remedy="take it from the shop")


def test_files_lie_under_a_path_or_the_cards_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DLM_DATA_DIR", str(tmp_path))
    assert root_of(CARD) == tmp_path / "toys"
    assert root_of(CARD, "/else/where") == Path("/else/where")
    assert absent(CARD) == str(tmp_path / "toys")
    file = tmp_path / "toys/data/a.txt"
    file.parent.mkdir(parents=True)
    assert absent(CARD) == str(file)
    message = f"^{re.escape(str(tmp_path / 'toys'))}: no file data/a.txt; take it from the shop$"
    with pytest.raises(UserError, match=message):
        find_files(CARD, tmp_path / "toys", CARD.files)
    file.touch()
    assert absent(CARD) == ""
    assert find_files(CARD, tmp_path / "toys", CARD.files) == [file]


def test_counts_are_held_against_the_release():
    """Dialogues and responses both; every dialogue comes through first."""
    said = (Message("user", "a"), Message("assistant", "b"))
    toys = [Dialogue("x", said), Dialogue("y", said * 2)]
    assert list(counted(toys, (2, 3), Path("f"), CARD)) == toys
    for wanted in ((3, 3), (2, 2)):
        message = f"^f: 2 dialogues with 3 responses, the release has {wanted[0]} with {wanted[1]};"
        with pytest.raises(UserError, match=message):
            list(counted(toys, wanted, Path("f"), CARD))


def test_every_corpus_has_a_card():
    """Each says its task and what it is, and of files where they come from."""
    for name, card in registry.cards().items():
        assert card.task, name
        assert card.description.endswith("."), name
        if card.folder:
            assert card.citation, name
            assert card.licence, name
            assert f"$DLM_DATA_DIR/{card.folder}" in card.remedy, name
            assert "data.options.path" in card.remedy, name
