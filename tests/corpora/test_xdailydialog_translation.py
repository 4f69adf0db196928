"""XDailyDialog as translation: a small release by hand, and the real one if present."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.corpora import registry, xdailydialog, xdailydialog_translation
from dlm.corpora.xdailydialog import Chat
from dlm.corpora.xdailydialog_translation import Options, translated
from dlm.dialogue.schema import Dialogue, Message
from tests.corpora.test_xdailydialog import write_release


def chat(*utterances: str) -> Chat:
    return Chat("f:1", list(utterances), "1", ["1"] * len(utterances), ["0"] * len(utterances))


def test_a_conversation_is_translated_by_hand():
    english, italian = chat("It ’ s late .", "Yes ."), chat("È tardi.", "Sì .")
    assert translated(english, italian, "x", Options()) == Dialogue(
        "x",
        (
            Message("context", "English to Italian"),
            Message("user", "It’s late."),
            Message("assistant", "È tardi.", "reply"),
            Message("user", "Yes."),
            Message("assistant", "Sì .", "reply"),
        ),
    )
    back = translated(italian, english, "x", Options(source="it", target="en"))
    assert [m.content for m in back.messages[:3]] == [
        *("Italian to English", "È tardi.", "It’s late.")
    ]


def test_other_numbers_of_utterances_are_told():
    with pytest.raises(UserError, match="f:1: 1 utterances, 2 in f:1"):
        translated(chat("a", "b"), chat("a"), "x", Options())


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """The release of the tests of `xdailydialog`: one of four training dialogues is learned."""
    write_release(tmp_path / "release")
    counts = {"train": (4, 8), "validation": (1, 2), "test": (1, 2)}
    for module in (xdailydialog, xdailydialog_translation):
        monkeypatch.setattr(module, "COUNTS", counts)
    monkeypatch.setattr(xdailydialog, "LABELS", 1)
    monkeypatch.setattr(xdailydialog, "LEAKED", {"en": 1, "it": 2})
    monkeypatch.setattr(xdailydialog_translation, "LEARNED", {"en it": 1})
    return tmp_path


def build(folder: Path, **options) -> registry.Prepared:
    options = {"path": str(folder / "release"), **options}
    return registry.prepare("xdailydialog_translation", options, folder / "built")


def test_what_leaks_in_either_language_is_not_learned(small):
    """Train-3 leaks in Italian only; what both refuse is listed once."""
    for pair in ({"source": "en", "target": "it"}, {"source": "it", "target": "en"}):
        corpus = build(small, **pair)
        assert [d.id for d in corpus.splits["train"]] == ["train-0"]
        assert corpus.counts["train"]["rejected"] == 3
        assert len(corpus.rejected.read_text().splitlines()) == 3


def test_german_is_for_tests_only(small):
    corpus = build(small, source="de")
    assert list(corpus.splits) == ["validation", "test"]
    assert [m.content for m in corpus.splits["test"][0].messages] == [
        *("German to Italian", "o", "R", "q", "S.")
    ]


def test_mistakes_are_told(small, monkeypatch):
    with pytest.raises(UserError, match=r"data\.options\.target='en' is the source; name another"):
        build(small, target="en")
    with pytest.raises(
        UserError, match=r"data\.options\.source: unknown value 'fr'; one of en, it"
    ):
        build(small, source="fr")
    with pytest.raises(UserError, match=r"no file data/zh_dev_human\.txt; take the folder data"):
        build(small, target="zh")
    monkeypatch.setattr(xdailydialog_translation, "LEARNED", {"en it": 2})
    with pytest.raises(UserError, match="train: 1 dialogues; the release has 2 dialogues"):
        build(small)


@pytest.mark.slow
@pytest.mark.parametrize(("pair", "learned"), [("en it", 7702), ("zh en", 7707), ("it zh", 7700)])
def test_the_real_corpus(corpus_dir, tmp_path, pair, learned):
    source, target = pair.split()
    options = {"path": str(corpus_dir("xdailydialog")), "source": source, "target": target}
    corpus = registry.prepare("xdailydialog_translation", options, tmp_path)
    counts = {split: corpus.counts[split]["dialogues"] for split in corpus.splits}
    assert counts == {"train": learned, "validation": 995, "test": 996}
    assert corpus.counts["train"]["rejected"] == 8096 - learned
    assert corpus.counts["test"]["responses"] == 7716
