"""Tokenizers of checkpoints: the same ids as elsewhere, and two kinds of ids."""

from __future__ import annotations

import json
import random
import shutil
import struct
from itertools import pairwise

import pytest
from dialogue_cases import plain
from hypothesis import given, settings
from hypothesis import strategies as st

from dlm.core.errors import UserError
from dlm.dialogue import pretrained
from dlm.dialogue.tokenizer import TokenizerConfig

LINES = 10_000


@pytest.fixture(scope="session")
def gpt2_files(corpus_dir, tmp_path_factory):
    """GPT-2's vocabulary under the names that the transformers library knows."""
    folder = tmp_path_factory.mktemp("gpt2")
    source = corpus_dir("gpt2-bpe") / "GPT2"
    shutil.copy(source / "encoder.json", folder / "vocab.json")
    shutil.copy(source / "vocab.bpe", folder / "merges.txt")
    config = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def gpt2(gpt2_files):
    return pretrained.load(gpt2_files)


@pytest.fixture(scope="session")
def vocabulary(corpus_dir):
    """The file of llama2.c, and its pieces with their scores."""
    path, at, pieces = corpus_dir("llama2c-260k") / "data" / "tok512.bin", 4, []
    data = path.read_bytes()
    while at < len(data):
        score, size = struct.unpack_from("<fi", data, at)
        at += 8 + size
        pieces.append((data[at - size : at], score))
    return path, pieces


@pytest.fixture(scope="session")
def llama(vocabulary):
    return pretrained.from_llama2c(vocabulary[0])


@pytest.fixture(scope="session")
def lines(corpus_dir):
    """Lines of real text in many languages and notations."""
    found = []
    for path in sorted(corpus_dir("gpt2-bpe").parent.glob("*/**/*")):
        if path.suffix in (".txt", ".json", ".jsonl", ".csv", ".xml", ".md", ".tsv"):
            with path.open(encoding="utf-8", errors="ignore") as file:
                found += [line[:400] for _, line in zip(range(60), file, strict=False)]
    random.Random(0).shuffle(found)
    assert len(found) >= LINES
    return found[:LINES]


def test_gpt2_ids_are_those_of_the_transformers_library(gpt2, gpt2_files, lines):
    """Parity: 10,000 lines of real text, no id different."""
    import transformers

    theirs = transformers.AutoTokenizer.from_pretrained(gpt2_files)
    assert gpt2.encode_many(lines) == theirs(lines, add_special_tokens=False)["input_ids"]
    assert [gpt2.decode(gpt2.encode(line)) for line in lines[:1000]] == lines[:1000]


def merged_by_score(text, pieces):
    """llama2.c's `encode`: characters or bytes, then the best pair, again and again.

    Source: karpathy/llama2.c, run.c.
    """
    ids_of = {piece: i for i, (piece, _) in enumerate(pieces)}
    ids = []
    for character in text:
        known = ids_of.get(character.encode())
        ids += [byte + 3 for byte in character.encode()] if known is None else [known]
    while True:
        best = None
        for at, pair in enumerate(pairwise(ids)):
            whole = ids_of.get(pieces[pair[0]][0] + pieces[pair[1]][0])
            if whole is not None and (best is None or pieces[whole][1] > best[0]):
                best = pieces[whole][1], at, whole
        if best is None:
            return ids
        ids[best[1] : best[1] + 2] = [best[2]]


def test_llama2c_ids_are_those_of_its_own_algorithm(llama, vocabulary, lines):
    """Parity with an independent implementation, and with the greedy ids that were recorded."""
    for line in lines[:300]:
        assert llama.encode(line[:150]) == merged_by_score(line[:150], vocabulary[1])
    recorded = [319, 459, 355, 260, 275, 429, 339, 315, 374, 327, 446, 262, 421, 392, 275, 280]
    said = ' "Echoes of vectors unfold, a gentle hum of precision, as I'
    assert llama.encode(said)[: len(recorded)] == recorded


def controls(tokenizer):
    return [name for name in map(tokenizer.control_name, range(tokenizer.vocab_size)) if name]


@settings(max_examples=150)
@given(data=st.data())
def test_content_is_never_control(gpt2, llama, data):
    """Content is never control: names of control tokens, whole or cut, are text like any other."""
    for tokenizer in (gpt2, llama):
        names = controls(tokenizer)
        cut = [name[:end] for name in names for end in range(1, len(name))]
        piece = st.one_of(plain, st.sampled_from([*names, *cut]))
        content = "".join(data.draw(st.lists(piece, max_size=4)))
        ids = tokenizer.encode(content)
        assert not any(map(tokenizer.control_name, ids))
        assert tokenizer.decode(ids) == content


def test_control_tokens_keep_their_ids_and_ours_follow(gpt2, llama):
    assert [gpt2.control("<|endoftext|>"), gpt2.pad_id] == [50256, 50256]
    assert [llama.control(name) for name in ("<unk>", "<s>", "</s>")] == [0, 1, 2]
    assert (gpt2.text_size, gpt2.vocab_size, llama.vocab_size) == (50257, 50257, 512)
    longer = gpt2.with_control(["<|user|>", "<|endoftext|>", "<|pad|>"])
    assert [longer.control("<|user|>"), longer.control("<|pad|>")] == [50257, 50258]
    assert (longer.text_size, longer.vocab_size, longer.pad_id) == (50257, 50259, 50258)
    assert longer.digest != gpt2.digest


def test_saved_and_loaded_is_the_same(llama, tmp_path):
    longer = llama.with_control(["<|user|>"])
    longer.save(tmp_path)
    loaded = pretrained.make((), (), TokenizerConfig(path=str(tmp_path)))
    assert (loaded.digest, loaded.vocab_size) == (longer.digest, 513)
    assert loaded.pretrained == longer.pretrained
    assert loaded.encode("a hum <|user|> 東京") == longer.encode("a hum <|user|> 東京")


@pytest.mark.parametrize("kind", ["theirs", "ours"])
def test_what_is_given_away_loads_in_the_transformers_library(kind, llama, tokenizer, tmp_path):
    """Out: ids, special tokens and the chat template are the same there."""
    import transformers

    given_away = llama.with_control(["<|user|>"]) if kind == "theirs" else tokenizer
    form = "{% for m in messages %}<|user|>{{ m.content }}{{ eos_token }}{% endfor %}"
    given_away.save_pretrained(tmp_path, form)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "a hum, four tables 東京"
    lead = " " if kind == "theirs" else ""  # sentencepiece's, which the template adds with us
    assert theirs.encode(text, add_special_tokens=False) == given_away.encode(lead + text)
    end = "</s>" if kind == "theirs" else "<|end|>"
    ids = theirs.apply_chat_template([{"role": "user", "content": "hum"}], return_dict=False)
    assert (ids[0], ids[-1]) == (given_away.control("<|user|>"), given_away.control(end))
    assert len(theirs) == given_away.vocab_size
    assert pretrained.load(tmp_path).pretrained.chat_template == form


def gguf(tokens, **fields):
    named = {f"tokenizer.ggml.{name}": value for name, value in fields.items()}
    return {"tokenizer.ggml.tokens": tokens, **named}


def test_gguf_fields_give_the_tokenizer_back(gpt2, llama, vocabulary, lines):
    """A vocabulary told by GGUF fields is the one told by its own files."""
    file = gpt2.pretrained.file
    tokens = sorted(file["model"]["vocab"], key=file["model"]["vocab"].__getitem__)
    types = [1] * 50256 + [3]
    merges = [" ".join(pair) for pair in file["model"]["merges"]]
    fields = {"model": "gpt2", "pre": "gpt-2", "merges": merges, "token_type": types}
    again = pretrained.from_gguf(
        gguf(tokens, **fields, eos_token_id=50256, padding_token_id=50256), "x.gguf"
    )
    assert again.encode_many(lines[:500]) == gpt2.encode_many(lines[:500])
    special = again.pretrained.special
    assert special == {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    assert not again.pretrained.adds_bos

    tokens = list(llama.pretrained.file["model"]["vocab"])
    scores = [score for _, score in vocabulary[1]]
    types = [2, 3, 3] + [6] * 256 + [1] * 253
    fields = {"model": "llama", "scores": scores, "token_type": types, "unknown_token_id": 0}
    again = pretrained.from_gguf(gguf(tokens, **fields, bos_token_id=1, eos_token_id=2), "x.gguf")
    assert again.encode_many(lines[:500]) == llama.encode_many(lines[:500])
    assert again.pretrained.special == llama.pretrained.special
    assert again.pretrained.adds_bos


def small(pieces, added=(), **model):
    """A `tokenizer.json` of single bytes and some pairs."""
    from tokenizers import pre_tokenizers

    alphabet = [c for c in sorted(pre_tokenizers.ByteLevel.alphabet()) if c not in model]
    merges = [[piece[:-1], piece[-1]] for piece in pieces]
    return {
        "version": "1.0",
        "added_tokens": list(added),
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "model": {
            "type": "BPE",
            "vocab": {piece: i for i, piece in enumerate([*alphabet, *pieces])},
            "merges": merges,
        },
    }


def test_words_are_cut_as_the_file_says():
    """Digits one by one, up to three, or all together: the name of the cut tells."""
    model = small(["in", "19", "199", "1999"])["model"]
    fields = {"model": "gpt2", "merges": [" ".join(pair) for pair in model["merges"]]}
    wanted = {
        "gpt-2": ["in", "1999", "!"],
        "smollm": ["in", "1", "9", "9", "9", "!"],
        "llama-bpe": ["in", "199", "9", "!"],
        "qwen2": ["in", "1", "9", "9", "9", "!"],
    }
    for pre, words in wanted.items():
        tokenizer = pretrained.from_gguf(gguf(list(model["vocab"]), pre=pre, **fields), "x")
        assert [tokenizer.decode([i]) for i in tokenizer.encode("in1999!")] == words


GAPS = ["ĠĠ", "Ġa", "Ġ!", "Ġ1", "ĊĠ", "ĊĊ", "!Ċ", "!Ġ", "aĠ", "1Ġ", "ĠĊ", "čĊ", "11", "aa", "Ġaa"]


@settings(max_examples=600)
@given(
    cut=st.sampled_from(["gpt-2", "smollm", "llama-bpe", "qwen2"]),
    text=st.text(st.sampled_from(" \n\r\t\x1c\x85\xa0\u2003\u2028a!1é\u0301"), max_size=14),
)
def test_what_is_encoded_apart_changes_no_id(cut, text):
    """Pieces that are remembered give the ids that the whole text has, whatever the white space."""
    model = small(GAPS)["model"]
    fields = {"model": "gpt2", "merges": [" ".join(pair) for pair in model["merges"]]}
    tokenizer = pretrained.from_gguf(gguf(list(model["vocab"]), pre=cut, **fields), "x")
    assert tokenizer.encode(text) == tokenizer._text.encode(text, add_special_tokens=False).ids


def built(file):
    said = pretrained.Pretrained(file, special={}, chat_template="", adds_bos=False)
    return pretrained.build(said, "here")


def test_an_added_token_that_text_spells_anyway_is_text():
    """Content is never control; a piece that the pairs make themselves is no control token."""
    file = small(["ab", "<a"])
    number = file["model"]["vocab"].__len__()
    for token, special in (("ab", False), ("<a", True), ("<call>", False)):
        place = file["model"]["vocab"].get(token, number)
        file["added_tokens"].append(pretrained.added_token(place, token, special=special))
    tokenizer = built(file)
    assert controls(tokenizer) == ["<a", "<call>"]
    assert [tokenizer.decode([i]) for i in tokenizer.encode("ab<a<call>")] == [
        *("ab", "<", "a", "<", "c", "a", "l", "l", ">")
    ]


def test_a_control_token_is_no_piece_of_text_either():
    """Content is never control: some vocabularies take a word whole that they have as a piece."""
    file = small(["zz"])
    file["model"]["ignore_merges"] = True
    place = file["model"]["vocab"]["zz"]
    file["added_tokens"] = [pretrained.added_token(place, "zz", special=True)]
    tokenizer = built(file)
    assert [tokenizer.decode([i]) for i in tokenizer.encode("zz a")] == ["z", "z", " ", "a"]


def test_characters_that_a_checkpoint_cannot_spell_are_shown_as_such():
    """Some vocabularies lack control characters and rare planes; the library would drop them."""
    missing = {"\u0104", "\u00f2"}  # the symbols of 0x04 and of 0xF2
    tokenizer = built(small([], **dict.fromkeys(missing)))
    text = "a\x04b\U00080000c\U00010000"
    assert tokenizer.decode(tokenizer.encode(text)) == "a\ufffdb\ufffdc\U00010000"


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (
            lambda f: f["model"].update(type="Unigram"),
            "here: a tokenizer of kind Unigram; only BPE",
        ),
        (lambda f: f["model"]["vocab"].pop("\u0122"), "here: a tokenizer that cannot spell most"),
        (lambda f: f.update(pre_tokenizer={"type": "Magic"}), "here: not a tokenizer"),
    ],
)
def test_other_kinds_are_refused(spoil, error):
    spoil(file := small([]))
    with pytest.raises(UserError, match=error):
        built(file)


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no tokenizer\.json, nor vocab\.json with merges\.txt"):
        pretrained.load(tmp_path)
    with pytest.raises(UserError, match=r"a\.gguf: holds no tokenizer"):
        pretrained.from_gguf({}, "a.gguf")
    with pytest.raises(UserError, match=r"a\.gguf: tokenizer of kind 'bert' is unknown"):
        pretrained.from_gguf(gguf(["a"], model="bert"), "a.gguf")
    with pytest.raises(UserError, match=r"a\.gguf: words are cut as 'dbrx', which is unknown"):
        pretrained.from_gguf(gguf(["a"], model="gpt2", pre="dbrx"), "a.gguf")
    (tmp_path / "tok.bin").write_bytes(b"\0\0\0\0\0")
    with pytest.raises(UserError, match=r"tok\.bin: damaged at byte 4"):
        pretrained.from_llama2c(tmp_path / "tok.bin")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tokenizer.json", "[]"),
        ("tokenizer.json", '{"model": 3}'),
        ("tokenizer.json", '{"model": {"type": "BPE"}, "added_tokens": [{"id": 1}]}'),
        ("tokenizer_config.json", "[1]"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"a": 2}}'),
    ],
)
def test_damaged_files_are_told_in_one_line(llama, tmp_path, name, text):
    llama.save_pretrained(tmp_path, "")
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match="its tokenizer files are damaged") as caught:
        pretrained.from_directory(tmp_path)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_chat_template_is_found_where_checkpoints_keep_it(llama, tmp_path):
    llama.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for value in (
        "{{ 1 }}",
        [{"name": "x", "template": "no"}, {"name": "default", "template": "{{ 1 }}"}],
    ):
        (tmp_path / "tokenizer_config.json").write_text(
            json.dumps({**config, "chat_template": value, "eos_token": {"content": "</s>"}})
        )
        said = pretrained.load(tmp_path).pretrained
        assert (said.chat_template, said.special["eos_token"]) == ("{{ 1 }}", "</s>")
    (tmp_path / "chat_template.jinja").write_text("{{ 2 }}")
    assert pretrained.load(tmp_path).pretrained.chat_template == "{{ 2 }}"
