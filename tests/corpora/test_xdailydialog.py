"""XDailyDialog: small files in the published format by hand, and the real corpus if present."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from dlm.core.errors import UserError
from dlm.corpora import registry, xdailydialog
from dlm.corpora.xdailydialog import Chat, Options, natural_text, published_text, views
from dlm.dialogue.schema import Message, validate

TEXT = "It ’ s late . __eou__ Shall we go , Ann ? __eou__ Yes ... I ’ m at 9 a . m . ."
CHAT = Chat("f:1", TEXT.split(" __eou__ "), "6", ["1", "3", "4"], ["0", "4", "6"])


def said(text: str, act: str, emotion: str) -> list[Message]:
    meta = {"act": act, "emotion": emotion}
    return [Message("assistant", act, "act"), Message("assistant", text, "reply", meta=meta)]


def heard(text: str, act: str, emotion: str) -> Message:
    return Message("user", text, meta={"act": act, "emotion": emotion})


def test_a_chat_is_two_views_by_hand():
    """Each speaker once the assistant; acts before replies; no view ends with the other's words."""
    second, first = views(CHAT, "train-0", Options())
    odd = CHAT.utterances[2]  # ". ." cannot be undone: left as published, and marked
    assert (first.id, second.id) == ("train-0-first", "train-0-second")
    assert second.messages == (
        heard("It’s late.", "inform", "none"),
        *said("Shall we go, Ann?", "directive", "happiness"),
    )
    reply = Message(
        "assistant",
        odd,
        "reply",
        meta={"act": "commissive", "emotion": "surprise", "published": odd},
    )
    assert first.messages == (
        Message("user", ""),
        *said("It’s late.", "inform", "none"),
        heard("Shall we go, Ann?", "directive", "happiness"),
        Message("assistant", "commissive", "act"),
        reply,
    )
    for view in (first, second):
        validate(view, "test")
        assert view.meta == {"topic": "tourism", "language": "en"}


def test_acts_may_be_left_out_and_other_languages_stay_as_they_are():
    second, first = views(CHAT, "x", Options(language="it", acts=False))
    assert [m.content for m in second.messages] == CHAT.utterances[:2]
    assert [m.content for m in first.messages] == ["", *CHAT.utterances]
    assert {m.channel for m in (*first.messages, *second.messages)} == {None, "reply"}


@pytest.mark.parametrize(
    ("published", "natural"),
    [
        ("driver ’ s seat ?", "driver’s seat?"),
        ("Oh , great ! It's delicious .", "Oh, great! It's delicious."),
        ("Well ... no", "Well ... no"),
        ("3.5 % of it", "3.5% of it"),
    ],
)
def test_english_is_written_as_usual(published, natural):
    assert natural_text(published) == natural


@hypothesis.given(st.text(alphabet="ab .,?’!:'", max_size=12))
def test_what_was_published_can_be_had_back(text):
    """The change is made only where it can be undone, whatever the text is."""
    chat = Chat("f:1", ["hi", text], "1", ["1", "1"], ["0", "0"])
    reply = next(views(chat, "x", Options())).messages[-1]
    assert published_text(reply, "en") == text


def write_release(root: Path, changes: dict[str, str] | None = None) -> None:
    """A release of four training dialogues: one good, one wrongly labelled, two that leak."""
    files = {
        "data-560899d/dialogues_text_En.txt": "a ?|b\nc|d\nE 1|f\ng|h\n",
        "data-560899d/dialogues_text_It.txt": "a|b\nc|d\nx|y\nr|s\n",
        "data-560899d/dialogues_topic.txt": "1\n2\n3\n10\n",
        "data-560899d/dialogues_action.txt": "2 1 \n1 1 1\n1 4\n1 2\n",
        "data-560899d/dialogues_emotion.txt": "0 6 \n0 0 0\n0 0\n0 0\n",
        "data/en_dev_human.txt": "e! __eou__ F 2 __eou__\t3\t1 4\t0 0\n",
        "data/en_test_human.txt": "m __eou__ n __eou__\t3\t1 4\t0 0\n",
        "data/it_dev_human.txt": "u __eou__ v __eou__\t3\t1 4\t0 0\n",
        "data/it_test_human.txt": "R __eou__ S. __eou__\t10\t1 2\t0 0\n",
        "data/de_dev_human.txt": "o __eou__ p __eou__\t3\t1 4\t0 0\n",
        "data/de_test_human.txt": "o __eou__ q __eou__\t3\t1 4\t0 0\n",
    } | (changes or {})
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text.replace("|", " __eou__ "), encoding="utf-8")


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A small release, and its counts in place of the real ones."""
    write_release(tmp_path / "release")
    monkeypatch.setattr(
        xdailydialog, "COUNTS", {"train": (4, 8), "validation": (1, 2), "test": (1, 2)}
    )
    monkeypatch.setattr(xdailydialog, "LABELS", 1)
    monkeypatch.setattr(xdailydialog, "LEAKED", {"en": 1, "it": 2})
    return tmp_path


def build(folder: Path, **options) -> registry.Prepared:
    options = {"path": str(folder / "release"), **options}
    return registry.prepare("xdailydialog", options, folder / "built")


def test_what_may_not_be_learned_is_left_out_and_listed(small):
    """By letters only: case, marks and digits hide no leak; nor does a translation."""
    english = build(small)
    assert [d.id for d in english.splits["train"]] == [
        *("train-0-second", "train-0-first", "train-3-second", "train-3-first")
    ]
    assert english.counts["train"]["rejected"] == 2
    lines = english.rejected.read_text(encoding="utf-8")
    assert '"id": "train-1"' in lines
    assert "3 acts of 2 utterances" in lines
    assert "dialogues_text_En.txt:3" in lines
    italian = build(small, language="it")
    assert {d.id for d in italian.splits["train"]} == {"train-0-second", "train-0-first"}
    assert {d.id for d in italian.splits["test"]} == {"test-0-second", "test-0-first"}


def test_german_has_no_training_dialogues(small):
    assert set(build(small, language="de").splits) == {"validation", "test"}


def test_mistakes_are_told(small):
    with pytest.raises(UserError, match=r"data\.options\.language='fr' is none of: en, it, zh, de"):
        build(small, language="fr")
    with pytest.raises(UserError, match=r"no file data/zh_dev_human\.txt; take the folder data"):
        build(small, language="zh")
    for name, text, message in (
        ("data/en_dev_human.txt", "a __eou__\t1\t1\n", "en_dev_human.txt:1: 3 fields, not text"),
        ("data/en_dev_human.txt", "a __eou__\t1\t1 1\t0\n", "en_dev_human.txt:1: 2 acts of 1 utt"),
        ("data/en_dev_human.txt", "a __eou__ b\t1\t5 1\t0 0\n", "act '5' is none of 1 to 4"),
        (
            "data/en_test_human.txt",
            "a __eou__\t1\t1\t0\n",
            "test: 1 dialogues, 1 utterances; the ",
        ),
        ("data-560899d/dialogues_topic.txt", "1\n", r"numbers of lines: .*topic\.txt 1, "),
        (
            "data-560899d/dialogues_emotion.txt",
            "0 6\n0 0\n0\n0 0\n",
            "left out of training: 2 labels, 0 leaked; the release",
        ),
    ):
        write_release(small / "release", {name: text})
        with pytest.raises(UserError, match=message):
            build(small)
        write_release(small / "release")


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "it", "zh"])
def test_the_real_corpus(corpus_dir, tmp_path, language):
    """Counts of each language; what leaks is gone; English can be had back as published."""
    root = corpus_dir("xdailydialog")
    corpus = registry.prepare("xdailydialog", {"language": language, "path": str(root)}, tmp_path)
    kept = 8096 - 62 - {"en": 325, "it": 332, "zh": 327}[language]
    counts = {split: corpus.counts[split]["dialogues"] for split in corpus.splits}
    assert counts == {"train": 2 * kept, "validation": 2 * 995, "test": 2 * 996}
    assert corpus.counts["train"]["rejected"] == 8096 - kept
    assert corpus.counts["test"]["responses"] == 7716  # every utterance once, by either view

    def plain(line: str) -> str:
        text = line.split("\t")[0].replace("__eou__", "").lower()
        return "".join(character for character in text if character.isalpha())

    def lines(name: str) -> list[str]:
        return (root / name).read_text(encoding="utf-8").split("\n")

    evaluated = lines(f"data/{language}_dev_human.txt") + lines(f"data/{language}_test_human.txt")
    seen = {plain(line) for line in evaluated} - {""}
    texts = lines(f"data-560899d/dialogues_text_{language.capitalize()}.txt")
    leaks = {i for i, line in enumerate(texts) if plain(line) in seen}
    learned = {int(dialogue.id.split("-")[1]) for dialogue in corpus.splits["train"]}
    assert len(leaks) > 200
    assert leaks.isdisjoint(learned)
