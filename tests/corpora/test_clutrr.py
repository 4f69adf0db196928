"""CLUTRR: rows in the published format by hand, and the real sets if present."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.corpora import clutrr, registry
from dlm.corpora.clutrr import derivation, parse_row
from dlm.dialogue.schema import Dialogue, Message

STORY = "[Jenny] and her daughter, [Anne]. [Anne]'s dad, [Rich]. [Rich]'s daughter [Kim]."
PROOF = (
    "[{('Jenny', 'daughter', 'Kim'): [('Jenny', 'daughter', 'Anne'), ('Anne', 'sister', 'Kim')]},"
    " {('Anne', 'sister', 'Kim'): [('Anne', 'father', 'Rich'), ('Rich', 'daughter', 'Kim')]}]"
)
ROW = {
    "story": STORY,
    "query": "('Jenny', 'Kim')",
    "target": "daughter",
    "proof_state": PROOF,
    "task_name": "task_1.3",
}


def test_story_derivation_and_relation_by_hand():
    """Premises come before what follows from them; facts stand in the order of the path."""
    reason = (
        "Anne father Rich, Rich daughter Kim > Anne sister Kim\n"
        "Jenny daughter Anne, Anne sister Kim > Jenny daughter Kim"
    )
    facts = [["Jenny", "daughter", "Anne"], ["Anne", "father", "Rich"], ["Rich", "daughter", "Kim"]]
    assert parse_row(ROW, "f:2", "x") == Dialogue(
        "x",
        (
            Message("context", STORY),
            Message("user", "Who is Kim to Jenny?"),
            Message("assistant", reason, "reason"),
            Message("assistant", "daughter", "reply"),
        ),
        task="k3",
        meta={"answers": ["daughter"], "facts": facts},
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": "aunt"},  # nothing proves it
        {"query": "Jenny, Kim"},
        {"proof_state": "[1]"},
        {"proof_state": "[{('Jenny', 'daughter', 'Kim'): [(1, 2, 3)]}]"},
        {"proof_state": "[{('Jenny', 'daughter', 'Kim'): [('Jenny', 'daughter', 'Kim')]}]"},
    ],
)
def test_a_bad_row_is_told(wrong):
    with pytest.raises(UserError, match=r"f\.csv:7: query and proof_state do not prove a relation"):
        parse_row(ROW | wrong, "f.csv:7", "x")


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A set of irrelevant facts: 80 training rows of 40 stories, and tests of two kinds."""
    counts = {"3.2,3.3_train": 80, "3.3_test": 1, "1.3_test": 1}
    monkeypatch.setitem(clutrr.COUNTS, "523348e6", counts)
    (tmp_path / "data_523348e6").mkdir()
    for name, count in counts.items():
        with (tmp_path / f"data_523348e6/{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["", *ROW])
            writer.writeheader()
            for number in range(count):
                writer.writerow({"": number, **ROW, "story": f"{STORY} {number // 2}"})
    return tmp_path


def build(root: Path, **options) -> registry.Prepared:
    return registry.prepare("clutrr", {"path": str(root), **options}, root / "built")


def test_tests_are_named_and_repeated_stories_stay_together(small):
    corpus = build(small, set="523348e6")
    assert list(corpus.splits) == ["train", "validation", "test_k3", "test_clean_k3"]
    told = {
        split: {dialogue.messages[0].content for dialogue in corpus.splits[split]}
        for split in ("train", "validation")
    }
    assert told["train"].isdisjoint(told["validation"])
    assert [len(stories) for stories in told.values()] == [
        corpus.counts[split]["dialogues"] // 2 for split in told
    ]
    assert len(told["train"] | told["validation"]) == 40


def test_mistakes_are_told(small):
    with pytest.raises(
        UserError, match=r"data\.options\.set: unknown value 'k'; one of 089907f8, "
    ):
        build(small, set="k")
    with pytest.raises(UserError, match=r"no file data_7c5b0e70/1\.2,1\.3_train\.csv; take the fo"):
        build(small, set="7c5b0e70")
    path = small / "data_523348e6/1.3_test.csv"
    path.write_text(path.read_text() + path.read_text().partition("\n")[2])
    with pytest.raises(UserError, match=r"1\.3_test\.csv: 2 rows; the release has 1 rows"):
        build(small, set="523348e6")


@pytest.mark.slow
@pytest.mark.parametrize("name", clutrr.COUNTS)
def test_the_real_sets(corpus_dir, tmp_path, name):
    """Counts; 18 relations; a derivation rests on as many facts as the task says."""
    options = {"path": str(corpus_dir("clutrr")), "set": name}
    corpus = registry.prepare("clutrr", options, tmp_path)
    training, *tests = clutrr.COUNTS[name].values()
    found = [corpus.counts[split]["dialogues"] for split in corpus.splits]
    assert [found[0] + found[1], *found[2:]] == [training, *tests]
    if name == "089907f8":
        assert dict(zip(corpus.splits, found, strict=True)) == clutrr.CARD.counts
    relations = set()
    for source in corpus.splits.values():
        for dialogue in source:
            relations.add(dialogue.messages[-1].content)
            assert len(dialogue.meta["facts"]) == int(dialogue.task[1:])
    assert len(relations) == 18


def test_a_derivation_of_one_step():
    facts = [("a", "r", "b"), ("b", "s", "c")]
    assert derivation({("a", "t", "c"): facts}, ("a", "t", "c")) == (
        facts,
        [(("a", "t", "c"), facts)],
    )
