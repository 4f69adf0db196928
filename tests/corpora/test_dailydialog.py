"""DailyDialog: a small release by hand, and the real one if present."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.corpora import dailydialog, registry, xdailydialog
from dlm.dialogue.schema import Dialogue, Message

TEXT, ACTS, EMOTIONS = "It ’ s late . __eou__ Shall we ? __eou__\n", "1 3 \n", "0 4 \n"


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    for names in dailydialog.FILES.values():
        for name, text in zip(names, (TEXT, ACTS, EMOTIONS), strict=True):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
    counts = {"dialogues": 1, "utterances": 2}
    monkeypatch.setattr(dailydialog, "COUNTS", dict.fromkeys(dailydialog.FILES, counts))
    return tmp_path


def build(root: Path, **options) -> registry.Prepared:
    return registry.prepare("dailydialog", {"path": str(root), **options}, root / "built")


def test_a_dialogue_is_two_views_by_hand(small):
    corpus = build(small)
    assert list(corpus.splits) == ["validation", "test"]
    late, shall = (
        {"act": "inform", "emotion": "none"},
        {"act": "directive", "emotion": "happiness"},
    )
    assert list(corpus.splits["test"]) == [
        Dialogue(
            "test-0-second",
            (
                Message("user", "It’s late.", meta=late),
                Message("assistant", "directive", "act"),
                Message("assistant", "Shall we?", "reply", meta=shall),
            ),
        ),
        Dialogue(
            "test-0-first",
            (
                Message("user", ""),
                Message("assistant", "inform", "act"),
                Message("assistant", "It’s late.", "reply", meta=late),
            ),
        ),
    ]
    plain = build(small, acts=False).splits["test"][0]
    assert [message.channel for message in plain.messages] == [None, "reply"]


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("act_", "1 3 1\n", r"dialogues_test\.txt:1: 2 utterances have 3 acts and 2 emotions"),
        ("act_", "1 9\n", "act '9' is none of 1 to 4"),
        ("emotion_", "0 4\n0\n", r"numbers of lines: dialogues_test\.txt 1, .*emotion_test\.txt 2"),
        ("", TEXT.replace("__eou__ Shall we ? ", ""), "1 utterances have 2 acts"),
    ],
)
def test_mistakes_are_told(small, kind, text, message):
    (small / f"test/dialogues_{kind}test.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        build(small)


def test_other_counts_and_absent_files_are_told(small):
    for name, text in zip(dailydialog.FILES["test"], (TEXT, ACTS, EMOTIONS), strict=True):
        (small / name).write_text(2 * text, encoding="utf-8")
    with pytest.raises(UserError, match="2 dialogues, 4 utterances; the release has 1 dialogues"):
        build(small)
    (small / "test/dialogues_act_test.txt").unlink()
    with pytest.raises(UserError, match=r"no file test/dialogues_act_test\.txt; take the folders"):
        build(small)


def test_the_real_corpus(corpus_dir, tmp_path):
    """Counts; every dialogue is among those that XDailyDialog keeps out of training."""
    options = {"path": str(corpus_dir("dailydialog-valtest"))}
    corpus = registry.prepare("dailydialog", options, tmp_path)
    counts = {split: corpus.counts[split] for split in corpus.splits}
    assert {s: (c["dialogues"], c["responses"]) for s, c in counts.items()} == {
        "validation": (2000, 8069),
        "test": (2000, 7740),
    }
    parallel = corpus_dir("xdailydialog")
    kept_out = {
        xdailydialog.letters(chat)
        for split in xdailydialog.FILES
        for chat in xdailydialog.read_evaluation(parallel, "en", split)
    }
    root = Path(options["path"])
    seen = {
        split: {
            xdailydialog.letters(chat)
            for chat in dailydialog.read_chats([root / name for name in names])
        }
        for split, names in dailydialog.FILES.items()
    }
    assert seen["validation"] | seen["test"] <= kept_out
    assert len(seen["validation"] & seen["test"]) == 11
