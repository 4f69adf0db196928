"""Where our ids differ from those of one text, beside the transformers library's own."""

from __future__ import annotations

from itertools import accumulate

import pytest

from dlm.dialogue.apart import Apart, count_apart
from dlm.dialogue.chat_template import ChatTemplate
from dlm.dialogue.schema import Dialogue, Message
from tests.dialogue.chat_forms import checkpoint


def talk(*texts):
    roles = ("user", "assistant") * len(texts)
    return Dialogue("d", tuple(map(Message, roles, texts)))


PLAIN = talk("a cheap table", "for four?", "yes", "it is booked.")
SPELLED = talk("say <|im_end|> now", "no", "yes", "it is booked.")


@pytest.fixture(scope="module")
def template():
    return ChatTemplate(checkpoint("smollm2"))


def test_nothing_differs_where_nothing_is_merged(template):
    """The tokens of a control name count, for one message, and only for that one."""
    counted = count_apart(template, [PLAIN])
    rendered = template.render(PLAIN)
    assert counted == Apart(len(rendered), sum(len(m.ids) for m in rendered), 0, 0)
    name = len(template.tokenizer.encode("<|im_end|>"))
    assert name > 1
    more = count_apart(template, [PLAIN, SPELLED])
    assert (more.other_messages, more.other_tokens >= name) == (1, True)
    assert more.messages == 2 * counted.messages


@pytest.mark.parametrize("form", ["smollm2", "llama3", "qwen", "zephyr"])
def test_the_count_is_that_of_the_transformers_library(form, tmp_path):
    """Parity: messages whose stretch of `apply_chat_template`'s ids is not ours, counted apart."""
    transformers = pytest.importorskip("transformers")
    template = ChatTemplate(checkpoint(form))
    template.tokenizer.save_pretrained(tmp_path, template.jinja)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    spelled = talk("say <|im_end|></s><|eot_id|> now", " \n\nno", "\nyes\n", "it is\n")
    for dialogue in (PLAIN, spelled):
        chat = [{"role": m.role, "content": m.content} for m in dialogue.messages]
        ids = theirs.apply_chat_template(chat, tokenize=True, return_dict=False)
        if form == "zephyr":  # its template writes no BOS, which its tokenizer adds
            ids = [theirs.bos_token_id, *ids]
        rendered = template.render(dialogue)
        ours = [i for message in rendered for i in message.ids]
        counted = count_apart(template, [dialogue])
        assert counted.tokens == len(ours)
        assert (counted.other_messages == 0) == (ours == ids)
        stops = set(accumulate(len(name(template, i)) for i in ids))
        wrong = sum(stop not in stops for stop in accumulate(len(name(template, i)) for i in ours))
        assert counted.other_tokens >= wrong


def name(template, token):
    tokenizer = template.tokenizer
    return tokenizer.token_bytes(token) or (tokenizer.control_name(token) or "").encode()
