"""Published files: found under a path or DLM_DATA_DIR, told where absent, counted."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from statistics import mode

import pytest

from dlm.core.errors import UserError
from dlm.corpora import registry
from dlm.corpora.published import (
    absent,
    counted,
    find_files,
    read_records,
    reading,
    root_of,
)
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


@pytest.mark.parametrize(
    ("take", "problem"),
    [
        (lambda: {}["a"], "no field 'a'"),
        (lambda: [][0], "list index out of range"),
        (lambda: ast.literal_eval("f("), "'(' was never closed (<unknown>, line 1)"),
        (lambda: int("a\x1b\n"), r"invalid literal for int() with base 10: 'a\x1b\n'"),
        (lambda: json.loads("[" * 100_000), "maximum recursion depth exceeded"),
        (lambda: dict([1]), "cannot convert dictionary update sequence element #0 to a sequence"),
        (lambda: mode([]), "no mode for empty data"),
        (lambda: fail("two\nlines\x1b" + "x" * 1000), r"two\nlines\x1b" + "x" * 190 + ";"),
    ],
)
def test_what_a_record_of_another_shape_raises_is_a_line(take, problem):
    with pytest.raises(UserError) as caught, reading("f:7", CARD):
        take()
    said = str(caught.value)
    assert said.startswith(f"f:7: no record of this corpus: {problem}")
    assert said.endswith("; take it from the shop")
    assert said.isprintable()


def test_records_are_a_list(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1, {}]")
    assert read_records(path, CARD) == [1, {}]
    path.write_text("{}")
    with pytest.raises(UserError, match=r"a\.json: no list of records; take it from the shop$"):
        read_records(path, CARD)


def fail(text):
    raise ValueError(text)


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
