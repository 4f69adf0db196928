"""A tokenizer goes into GGUF fields and comes back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from chat_forms import FORMS, checkpoint

from dlm.dialogue import pretrained
from dlm.dialogue.gguf_tokenizer import to_gguf
from dlm.dialogue.tokenizer import CONTROL, TokenizerConfig, train

TEXTS = ["The cat can't sit  on 12345 mats.", "  \n\nÄpfel & 犬\t!", "<|im_end|> is text"]


@pytest.mark.parametrize("form", FORMS)
def test_what_goes_in_comes_back(form):
    """Equal ids of text, control tokens and roles; ours among them; rows without one are unused."""
    tokenizer = checkpoint(form).with_control(CONTROL[:3])
    fields = to_gguf(tokenizer, "{{ messages }}", tokenizer.vocab_size + 3)
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == tokenizer.vocab_size + 3
    assert types[-6:] == [3, 3, 3, 5, 5, 5]
    assert tokens[-4:] == [CONTROL[2], *(f"[PAD{tokenizer.vocab_size + i}]" for i in range(3))]
    again = pretrained.from_gguf(fields, "x.gguf")
    assert again.encode_many(TEXTS) == tokenizer.encode_many(TEXTS)
    said, before = again.pretrained, tokenizer.pretrained
    assert (said.special, said.adds_bos) == (before.special, before.adds_bos)
    assert said.chat_template == "{{ messages }}"
    for token in range(tokenizer.vocab_size):
        if (name := tokenizer.control_name(token)) is not None:
            assert again.control(name) == token


@pytest.mark.parametrize(
    ("pre", "normalizer"),
    [("gpt-2", None), ("smollm", None), ("llama-bpe", None), ("qwen2", {"type": "NFC"})],
)
def test_the_cut_of_words_is_recognised(pre, normalizer):
    size = checkpoint("chatml").vocab_size
    fields = to_gguf(checkpoint("chatml"), "", size) | {"tokenizer.ggml.pre": pre}
    tokenizer = pretrained.from_gguf(fields, "x.gguf")
    assert tokenizer.pretrained.file["normalizer"] == normalizer
    assert to_gguf(tokenizer, "", size) == fields


def test_what_llama_cpp_has_no_name_for_is_none():
    """A tokenizer that was learned here; a checkpoint's that cuts or normalises otherwise."""
    assert to_gguf(train(["a cat"] * 9, (), TokenizerConfig(vocab_size=300)), "", 300) is None
    tokenizer = checkpoint("chatml")
    digits = {"type": "Digits", "individual_digits": False}
    steps = {
        "type": "Sequence",
        "pretokenizers": [digits, tokenizer.pretrained.file["pre_tokenizer"]],
    }
    for change in ({"pre_tokenizer": steps}, {"normalizer": {"type": "Lowercase"}}):
        file = {**tokenizer.pretrained.file, **change}
        other = pretrained.build(replace(tokenizer.pretrained, file=file), "x")
        assert to_gguf(other, "", 600) is None
