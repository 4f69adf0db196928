"""Published files as lines and tables, by hand."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from dlm.core.errors import UserError
from dlm.corpora.registry import Card
from dlm.corpora.tables import check_counts, csv_rows, reader_digest, text_lines

CARD = Card(task="t", description="d", remedy="take it from there")


def test_lines_have_places_and_none_is_empty(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\n\n zwei \n", encoding="utf-8")
    assert list(text_lines(path)) == [(f"{path}:1", "one"), (f"{path}:3", " zwei ")]


def test_a_table_keeps_quoted_line_ends_and_drops_the_byte_order_mark(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfa,b\r\n1,"x\r\ny"\r\n2,"say ""hi"""\r\n')
    assert list(csv_rows(path, ("a",))) == [
        (f"{path}:3", {"a": "1", "b": "x\r\ny"}),
        (f"{path}:4", {"a": "2", "b": 'say "hi"'}),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a,c\n1,2\n", r"a\.csv:1: no column 'b'; it has a, c"),
        (b"a,b\n1\n", r"a\.csv:2: more or fewer fields than the 2 columns"),
        (b"a,b\n1,2,3\n", r"a\.csv:2: more or fewer fields"),
        (b'a,b\n1,"2\n', r"a\.csv:2: no CSV: unexpected end"),
        (b"a,b\n1,\xff\n", r"a\.csv: not UTF-8 at byte"),
        (b"", r"a\.csv:1: no column 'a'; it has none"),
        (b'"x\ny",c\n', r"a\.csv:1: no column 'a'; it has x\\ny, c"),
    ],
)
def test_a_bad_table_is_told_in_a_line(tmp_path, data, message):
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message):
        list(csv_rows(path, ("a", "b")))


def test_text_that_is_no_utf8_is_told(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"ab\xff")
    with pytest.raises(UserError, match=r"a\.txt: not UTF-8 at byte 2"):
        list(text_lines(tmp_path / "a.txt"))


def test_other_counts_are_told_with_the_remedy(tmp_path):
    check_counts(tmp_path, {"rows": 2}, {"rows": 2}, CARD)
    with pytest.raises(
        UserError, match=r"2 rows, 1 texts; the release has 3 rows, 1 texts; .*it fr"
    ):
        check_counts(tmp_path, {"rows": 2, "texts": 1}, {"rows": 3, "texts": 1}, CARD)


def test_a_digest_knows_options_files_and_code_but_not_where_they_lie(tmp_path):
    @dataclass(frozen=True)
    class Options:
        set: str = "a"
        path: str = ""

    def made(folder: str, text: str = "x", chosen: str = "a", modules=(sys.modules[__name__],)):
        root = tmp_path / folder
        root.mkdir(exist_ok=True)
        (root / "f").write_text(text)
        return reader_digest(Options(chosen, str(root)), root, [root / "f"], *modules)

    assert made("one") == made("two")
    others = [made("one", text="y"), made("one", chosen="b"), made("one", modules=())]
    assert len({made("one"), *others}) == 4
