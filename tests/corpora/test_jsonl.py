"""Your own file as a corpus: splits, bad records, doubles, and builds keyed by content."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.corpora.registry import Prepared, prepare
from dlm.dialogue.schema import content_hash, to_json


def record(text: str, **fields) -> dict:
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "ok"}]
    return {"messages": messages, **fields}


def write(path: Path, records) -> str:
    lines = (r if isinstance(r, str) else json.dumps(r) for r in records)
    path.write_text("".join(line + "\n" for line in lines))
    return str(path)


def said(prepared: Prepared, split: str) -> list[str]:
    return [dialogue.messages[0].content for dialogue in prepared.splits[split]]


def test_a_share_is_held_out_by_content(tmp_path):
    """Each dialogue is in one split; a share is held out; file order and ids do not matter."""
    texts = [f"turn {i}" for i in range(200)]
    path = write(tmp_path / "a.jsonl", [record(t, id=f"a{i}") for i, t in enumerate(texts)])
    first = prepare("jsonl", {"path": path}, tmp_path / "built")
    held, kept = said(first, "validation"), said(first, "train")
    assert sorted(held + kept) == sorted(texts)
    assert 10 <= len(held) <= 30
    assert kept == [text for text in texts if text in kept]  # in the order of the file
    path = write(tmp_path / "b.jsonl", [record(t, id=f"b{i}") for i, t in enumerate(texts[::-1])])
    again = prepare("jsonl", {"path": path}, tmp_path / "built")
    assert said(again, "validation") == held[::-1]


def test_the_share_is_an_option(tmp_path):
    path = write(tmp_path / "a.jsonl", [record(f"turn {i}") for i in range(200)])
    options = {"path": path, "validation_share": 0.5}
    assert 80 <= len(said(prepare("jsonl", options, tmp_path), "validation")) <= 120
    with pytest.raises(UserError, match=r"validation_share=1\.0 is not between 0 and 1"):
        prepare("jsonl", {"path": path, "validation_share": 1.0}, tmp_path)


def test_two_dialogues_are_enough_and_one_is_not(tmp_path):
    """The smallest file gets a validation split; of one dialogue the error names the split."""
    path = write(tmp_path / "a.jsonl", [record("a"), record("b")])
    tiny = prepare("jsonl", {"path": path}, tmp_path / "built")
    assert len(tiny.splits["train"]) == len(tiny.splits["validation"]) == 1
    path = write(tmp_path / "a.jsonl", [record("a")])
    with pytest.raises(UserError, match="jsonl: no dialogue for the split 'train'"):
        prepare("jsonl", {"path": path}, tmp_path / "built")


def test_files_of_their_own_for_validation_and_test(tmp_path):
    options = {
        "path": write(tmp_path / "a.jsonl", [record("a")]),
        "validation_path": write(tmp_path / "v.jsonl", [record("v"), record("w")]),
        "test_path": write(tmp_path / "t.jsonl", [record("t")]),
    }
    prepared = prepare("jsonl", options, tmp_path / "built")
    assert {s: said(prepared, s) for s in prepared.splits} == {
        "train": ["a"],
        "validation": ["v", "w"],
        "test": ["t"],
    }


def test_another_format(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"prompt": f"p{i}", "response": "r"} for i in range(9)])
    prepared = prepare("jsonl", {"path": path, "format": "prompt_response"}, tmp_path / "built")
    assert sorted(said(prepared, "train") + said(prepared, "validation")) == [
        f"p{i}" for i in range(9)
    ]


def test_bad_records_are_raised_or_skipped_once(tmp_path):
    """raise: file and line. skip: each bad line is noted once, though the file is read often."""
    good = [record(f"turn {i}") for i in range(20)]
    path = write(tmp_path / "a.jsonl", [*good, "{nonsense", record("x", messages=[])])
    with pytest.raises(UserError, match=r"a.jsonl:21: malformed JSON"):
        prepare("jsonl", {"path": path}, tmp_path / "built")
    prepared = prepare("jsonl", {"path": path, "on_bad_record": "skip"}, tmp_path / "built")
    assert len(said(prepared, "train") + said(prepared, "validation")) == 20
    rejected = [json.loads(line) for line in prepared.rejected.read_text().splitlines()]
    assert [r["where"] for r in rejected] == [f"{path}:21", f"{path}:22"]
    assert prepared.counts["train"]["rejected"] == 2


def test_rejects_are_counted_where_they_stood(tmp_path):
    options = {
        "path": write(tmp_path / "a.jsonl", [record("a"), "{"]),
        "validation_path": write(tmp_path / "v.jsonl", [record("v")]),
        "test_path": write(tmp_path / "t.jsonl", ["[", record("t"), "1"]),
        "on_bad_record": "skip",
    }
    counts = prepare("jsonl", options, tmp_path / "built").counts
    assert {split: row.get("rejected") for split, row in counts.items()} == {
        "train": 1,
        "validation": None,
        "test": 2,
    }


def test_the_same_dialogue_twice_is_kept_twice(tmp_path):
    """Doubles stay on one side, each under an id of its own."""
    path = write(tmp_path / "a.jsonl", [record(f"turn {i % 30}") for i in range(60)])
    prepared = prepare("jsonl", {"path": path}, tmp_path / "built")
    held, kept = said(prepared, "validation"), said(prepared, "train")
    assert len(held + kept) == 60
    assert not set(held) & set(kept)
    ids = [dialogue.id for source in prepared.splits.values() for dialogue in source]
    assert len(set(ids)) == 60
    assert sum(name.endswith("#2") for name in ids) == 30


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_no_share_leaves_a_split_empty(tmp_path, share):
    """Of two dialogues one is held out, that of the lower hash, whatever the share."""
    path = write(tmp_path / "a.jsonl", [record("a"), record("b")])
    prepared = prepare("jsonl", {"path": path, "validation_share": share}, tmp_path / "built")
    (held,), (kept,) = prepared.splits["validation"], prepared.splits["train"]
    assert content_hash(to_json(held)) < content_hash(to_json(kept))


def test_an_id_for_a_repeat_is_none_that_stands_in_the_file(tmp_path):
    rows = [record("a", id="x"), record("b", id="x#2"), record("a", id="x"), record("a", id="x")]
    options = {
        "path": write(tmp_path / "a.jsonl", rows),
        "validation_path": write(tmp_path / "v.jsonl", [record("v")]),
    }
    train = prepare("jsonl", options, tmp_path / "built").splits["train"]
    assert [dialogue.id for dialogue in train] == ["x", "x#2", "x#3", "x#4"]


def test_one_id_and_another_label_are_two_dialogues(tmp_path):
    """What is said is the same, and the dialogue is not."""
    rows = [record("a", id="x", label=True), record("a", id="x", label=False)]
    options = {
        "path": write(tmp_path / "a.jsonl", rows),
        "validation_path": write(tmp_path / "v.jsonl", [record("v")]),
    }
    with pytest.raises(UserError, match="two dialogues have the id 'x'"):
        prepare("jsonl", options, tmp_path / "built")


def test_two_dialogues_of_one_id_are_a_bad_record(tmp_path):
    records = [record("a", id="x"), record("b", id="x"), record("c", id="y")]
    path = write(tmp_path / "a.jsonl", records)
    with pytest.raises(UserError, match=r"a.jsonl: id: two dialogues have the id 'x'; make ids"):
        prepare("jsonl", {"path": path}, tmp_path / "built")
    prepared = prepare("jsonl", {"path": path, "on_bad_record": "skip"}, tmp_path / "built")
    assert sorted(said(prepared, "train") + said(prepared, "validation")) == ["a", "c"]
    assert '"b"' in json.loads(prepared.rejected.read_text())["record"]


def test_builds_are_keyed_by_content(tmp_path):
    """The same bytes elsewhere are the same build; one byte or one option more is another."""
    built = tmp_path / "built"
    path = write(tmp_path / "a.jsonl", [record(f"turn {i}") for i in range(9)])
    prepare("jsonl", {"path": path}, built)
    Path(tmp_path / "b.jsonl").write_bytes(Path(path).read_bytes())
    prepare("jsonl", {"path": str(tmp_path / "b.jsonl")}, built)
    assert len(list((built / "jsonl").iterdir())) == 1
    prepare("jsonl", {"path": path, "validation_share": 0.2}, built)
    write(tmp_path / "a.jsonl", [record(f"turn {i}") for i in range(10)])
    prepare("jsonl", {"path": path}, built)
    assert len(list((built / "jsonl").iterdir())) == 3


def test_a_path_is_needed_and_must_exist(tmp_path):
    with pytest.raises(UserError, match=r"data\.path is empty; name your file"):
        prepare("jsonl", {}, tmp_path)
    with pytest.raises(UserError, match=r"gone.jsonl: no such file; check data.path"):
        prepare("jsonl", {"path": str(tmp_path / "gone.jsonl")}, tmp_path)
