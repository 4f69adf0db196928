from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from dialogue_cases import CUT, text
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm.core.errors import UserError
from dlm.dialogue.pretrained import make
from dlm.dialogue.tokenizer import CONTROL, Tokenizer, TokenizerConfig, train

SMALL = TokenizerConfig(vocab_size=400)


def vocabulary(tokenizer):
    return {tokenizer.token_bytes(i).decode("latin-1") for i in range(tokenizer.text_size)}


def assert_content_is_text(encode, tokenizer, content):
    ids = encode(content)
    assert all(token < tokenizer.text_size for token in ids)
    assert tokenizer.decode(ids) == content


@settings(max_examples=300)
@given(content=text)
def test_content_is_never_control(tokenizer, content):
    """Content is never control: any Unicode encodes to text ids and decodes back to itself."""
    assert_content_is_text(tokenizer.encode, tokenizer, content)


@pytest.mark.parametrize("content", [*CONTROL, *CUT, *(f"a {name}b" for name in CONTROL)])
def test_control_literals_are_text(tokenizer, content):
    """Content is never control: every control token's name, whole and cut at each character."""
    assert_content_is_text(tokenizer.encode, tokenizer, content)
    assert_content_is_text(tokenizer.encode, tokenizer, content + CONTROL[0])


def test_added_tokens_would_be_control(tokenizer, tmp_path):
    """Content is never control: a vocabulary with added tokens fails the check and is refused."""
    tokenizer.save(tmp_path)
    mutant = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    mutant.add_special_tokens(list(CONTROL))
    with pytest.raises(AssertionError):
        assert_content_is_text(lambda content: mutant.encode(content).ids, tokenizer, "a <|user|>")
    mutant.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="has added tokens, which text could spell"):
        Tokenizer.load(tmp_path)


@given(texts=st.lists(text, max_size=4))
def test_many_at_once_equal_one_by_one(tokenizer, texts):
    assert tokenizer.encode_many(texts) == [tokenizer.encode(content) for content in texts]


@given(content=text)
def test_bytes_of_tokens_spell_the_text(tokenizer, content):
    """What is streamed token by token is the text, whatever characters the tokens cut."""
    assert b"".join(map(tokenizer.token_bytes, tokenizer.encode(content))) == content.encode()


def test_remembered_chunks_are_bounded(tokenizer, monkeypatch):
    monkeypatch.setattr("dlm.dialogue.tokenizer._CACHED", 2)
    before = tokenizer.encode("one two three four")
    assert tokenizer.encode("one two three four") == before
    assert tokenizer.encode("five")
    assert len(tokenizer._ids) == 1


def test_control_tokens_come_after_the_text(tokenizer):
    ids = [tokenizer.control(name) for name in CONTROL]
    assert ids == list(range(tokenizer.text_size, tokenizer.vocab_size))
    assert [tokenizer.control_name(token) for token in ids] == list(CONTROL)
    assert tokenizer.control_name(0) is None
    assert tokenizer.decode([ids[1], *tokenizer.encode("hi"), ids[0]]) == "hi"
    with pytest.raises(KeyError):
        tokenizer.control("<|nobody|>")


def test_broken_characters_are_shown(tokenizer):
    assert tokenizer.decode(tokenizer.encode("é")[:1]) == "\ufffd"


def test_one_token_by_name_or_text(tokenizer):
    assert tokenizer.token_id("<|reply|>") == tokenizer.control("<|reply|>")
    assert tokenizer.decode([tokenizer.token_id(" table")]) == " table"
    with pytest.raises(
        UserError, match=r"'q z' is not one token of this tokenizer but 3: 'q', ' '"
    ):
        tokenizer.token_id("q z")


def test_saved_and_loaded_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer")
    loaded = make((), (), TokenizerConfig(path=str(tmp_path / "tokenizer")))
    assert loaded.digest == tokenizer.digest
    assert loaded.vocab_size == tokenizer.vocab_size
    assert loaded.encode("a cheap place, Élan") == tokenizer.encode("a cheap place, Élan")


def test_damaged_files_are_named(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"control\.json"):
        Tokenizer.load(tmp_path)
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer.load(tmp_path)


def test_training_is_deterministic():
    """Two processes with other hash seeds and thread counts learn the same, bit for bit."""
    script = (
        "from dlm.dialogue.tokenizer import train, TokenizerConfig\n"
        "texts = [f'word{i % 37} and other{i % 11} things' * (i % 5) for i in range(400)]\n"
        "print(train(texts, {'Anna', 'word3'}, TokenizerConfig(vocab_size=330)).digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": seed, "PATH": ""},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "12"
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64


def test_digest_follows_the_training(tokenizer):
    first = train(["a table " * 9], (), SMALL)
    assert first.digest == train(["a table " * 9], (), SMALL).digest
    assert first.digest != train(["a place " * 9], (), SMALL).digest
    unjoined = TokenizerConfig(vocab_size=400, join_spaces=False)
    assert first.digest != train(["a table " * 9], (), unjoined).digest


def test_names_are_spelled_alike_in_text_and_json(tokenizer):
    """A name has the same pieces after a space, after a quote and at the beginning."""
    name = tokenizer.encode("Marlo Venta")
    for sentence in ("near Marlo Venta.", '{"place": "Marlo Venta"}', "Marlo Venta"):
        pieces = tokenizer.encode(sentence)
        assert any(pieces[i : i + len(name)] == name for i in range(len(pieces)))


def test_words_of_entities_are_not_learned():
    """Known names get no pieces of their own: they are spelled as unknown ones are."""
    texts = ["book Marlo Venta or the Hotel of Koris, 4_stars_x of marlo"] * 50
    tokenizer = train(texts, ("Marlo Venta", "Hotel of Koris", "4_stars_x"), SMALL)
    assert {"Marlo", "Venta", "Hotel", "Koris", "stars"}.isdisjoint(vocabulary(tokenizer))
    assert {" of", " marlo", "book"} <= vocabulary(tokenizer)  # lower case in long names stays
    assert "Marlo" in vocabulary(train(texts, (), SMALL))


@pytest.mark.parametrize(
    ("joined", "pieces"),
    [
        (True, 'a| cheap| |Table| |4|2|_|x| "|y|"|\n  | z'),
        (False, 'a| |cheap| |Table| |4|2|_|x| |"|y|"|\n   |z'),
    ],
)
def test_words_that_pairs_never_cross(joined, pieces):
    content = 'a cheap Table 42_x "y"\n   z'
    config = TokenizerConfig(vocab_size=4000, join_spaces=joined)
    tokenizer = train([content] * 5, (), config)
    assert [tokenizer.decode([token]) for token in tokenizer.encode(content)] == pieces.split("|")


def test_wrong_configs_are_named():
    with pytest.raises(UserError, match=r"tokenizer\.vocab_size=200 must be at least 270"):
        train(["a"], (), TokenizerConfig(vocab_size=200))
    with pytest.raises(UserError, match=r"tokenizer\.kind='word' is unknown; did you mean 'bpe'\?"):
        train(["a"], (), TokenizerConfig(kind="word"))


def test_nothing_to_learn_from_still_spells_everything():
    tokenizer = train([], (), SMALL)
    assert tokenizer.vocab_size == 256 + len(CONTROL)
    assert tokenizer.decode(tokenizer.encode("Zoë 東京")) == "Zoë 東京"


def test_files_hold_no_control_token(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    model = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
    assert not set(CONTROL) & set(model["vocab"])
    assert json.loads((tmp_path / "control.json").read_text()) == list(CONTROL)
