"""MELD: small files in the published formats by hand, and the real sets if present."""

from __future__ import annotations

import pytest

from dlm.core.errors import UserError
from dlm.corpora import meld, registry
from dlm.corpora.meld import SETS, read_split
from dlm.dialogue.schema import Dialogue, Message

MELD = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\r\n"
    '1,"Oh, no.",Ross,sadness,negative,0,0\r\n'
    "2,What? ,Guy #1,surprise,positive,0,4\r\n"
    "3,Hi.,Ross,neutral,neutral,2,0\r\n"
)
EMORY = (
    "Utterance,Speaker,Emotion,Scene_ID,Utterance_ID,Season,Episode\n"
    "Coffee.,['Bonnie'],Joyful,1,1,1,15\n"
    'Yes.,["Phoebe\'s Assistant"],Mad,1,1,1,16\n'
)


def chosen(name: str, conversations: int, utterances: int) -> meld.Set:
    return SETS[name]._replace(counts={"test": (conversations, utterances)})


def heard(speaker: str, text: str, emotion: str, **meta) -> tuple[Message, Message]:
    said = Message("user", f"{speaker}: {text}", name=speaker, meta=meta)
    return said, Message("assistant", f"emotion={emotion}", "state")


def test_each_utterance_is_followed_by_its_emotion_by_hand(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(MELD.encode())
    assert list(read_split(path, chosen("meld", 2, 3), "test")) == [
        Dialogue(
            "test-0",
            (
                *heard("Ross", "Oh, no.", "sadness", sentiment="negative"),
                *heard("Guy #1", "What?", "surprise", sentiment="positive"),
            ),
        ),
        Dialogue("test-1", heard("Ross", "Hi.", "neutral", sentiment="neutral")),
    ]


def test_emorynlp_has_scenes_of_episodes_and_several_speakers(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(EMORY.replace("['Bonnie']", "\"['Bonnie', 'Rachel Green']\""))
    assert [d.messages for d in read_split(path, chosen("emorynlp", 2, 2), "test")] == [
        heard("Bonnie, Rachel Green", "Coffee.", "Joyful"),
        heard("Phoebe's Assistant", "Yes.", "Mad"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("meld", MELD, "2 conversations, 3 utterances; the release has 1 conversations, 1 utt"),
        ("meld", MELD.replace("Emotion", "X"), r"a\.csv:1: no column 'Emotion'; it has Sr No"),
        ("emorynlp", EMORY.replace("'Bonnie'", "1 2"), r"a\.csv:2: Speaker '\[1 2\]' is no list"),
    ],
)
def test_mistakes_are_told(tmp_path, name, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        list(read_split(path, chosen(name, 1, 1), "test"))


def test_what_is_absent_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no file data/MELD/train_sent_emo\.csv; take the folder"):
        registry.prepare("meld", {"path": str(tmp_path)}, tmp_path)
    with pytest.raises(UserError, match=r"data\.options\.set: unknown value 'x'; one of meld, dya"):
        registry.prepare("meld", {"path": str(tmp_path), "set": "x"}, tmp_path)


@pytest.mark.parametrize(
    ("name", "emotions", "most"),
    [("meld", 7, ("neutral", 1256)), ("dyadic", 7, None), ("emorynlp", 7, ("Neutral", 288))],
)
def test_the_real_sets(corpus_dir, tmp_path, name, emotions, most):
    """Counts of conversations and utterances, and of emotions in test."""
    options = {"path": str(corpus_dir("meld")), "set": name}
    corpus = registry.prepare("meld", options, tmp_path)
    for split, counts in SETS[name].counts.items():
        found = corpus.counts[split]
        assert (found["dialogues"], found["responses"]) == counts
    said = [m.content for d in corpus.splits["test"] for m in d.messages if m.channel == "state"]
    assert len(set(said)) == emotions
    if most:
        assert said.count(f"emotion={most[0]}") == most[1]
    names = {m.name for d in corpus.splits["train"] for m in d.messages[::2]}
    assert None not in names
