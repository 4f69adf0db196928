"""Files read in blocks: the same whatever the blocks and the processes are."""

from __future__ import annotations

import json

import pytest

from dlm.core.errors import UserError
from dlm.corpora import entries
from dlm.corpora.entries import Entry, entry, read_entries
from dlm.dialogue.readers import read
from dlm.dialogue.schema import Dialogue, Message, content_hash, restore, to_json


def line(text: str) -> str:
    return json.dumps({"messages": [{"role": "user", "content": text}]}, ensure_ascii=False)


LINES = ["\ufeff" + line("a"), "", line("é" * 70), "{", line("b") + "\r", "  ", line("c"), "[]"]


@pytest.mark.parametrize("end", ["", "\n"])
@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_blocks_cut_no_line(tmp_path, monkeypatch, block, end):
    """Whatever the size of a block: every line once, in order, with its number."""
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(LINES) + end, encoding="utf-8")
    monkeypatch.setattr(entries, "BLOCK", block)
    found = list(read_entries(path, "dlm", workers=1))
    rejected: list[dict] = []
    wanted = list(read(path, on_bad_record="skip", rejected=rejected))
    assert [one for one in found if isinstance(one, Entry)] == [entry(one) for one in wanted]
    noted = [one.noted(path) for one in found if not isinstance(one, Entry)]
    assert noted == rejected
    assert [note["where"] for note in noted] == [f"{path}:4", f"{path}:8"]
    assert len(wanted) == 4


def test_processes_change_nothing(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = ["{" if i % 1000 == 500 else line(f"say {i} " + "x" * 900) for i in range(5000)]
    path.write_text("\n".join(rows))
    assert path.stat().st_size > 4 * entries.BLOCK
    alone = list(read_entries(path, "dlm", workers=1))
    assert len(alone) == 5000
    assert list(read_entries(path, "dlm", workers=3)) == alone


def test_a_line_that_is_too_long_is_one_bad_record(tmp_path, monkeypatch):
    monkeypatch.setattr("dlm.dialogue.readers.MAX_LINE", 100)
    monkeypatch.setattr(entries, "BLOCK", 64)
    path = tmp_path / "a.jsonl"
    path.write_text(f"{line('a')}\n{line('b' * 1000)}\n{line('c')}\n")
    first, second, third = read_entries(path, "dlm", workers=1)
    assert (first.messages, third.messages, second.line) == (1, 1, 2)
    assert "longer than" in second.problem


def test_an_entry_is_its_dialogue():
    told = Dialogue("a", (Message("user", "hi"), Message("assistant", "ho")), meta={"é": 1})
    kept = entry(told)
    assert restore(json.loads(kept.text)) == told
    assert (kept.id, kept.messages, kept.responses, kept.content) == (
        "a",
        2,
        1,
        content_hash(to_json(told)),
    )
    other = kept.called("b")
    assert other.id == "b"
    assert restore(json.loads(other.text)) == Dialogue("b", told.messages, meta=told.meta)
    assert other.content == kept.content


@pytest.mark.parametrize("text", ["", "\n\n", "{\n"])
def test_a_file_without_a_dialogue_is_refused(tmp_path, text):
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match="holds no dialogue"):
        list(read_entries(path, "dlm"))
