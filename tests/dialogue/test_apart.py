"""Where our ids differ from those of one text, beside the transformers library's own."""

from __future__ import annotations

import json
import shutil
from itertools import accumulate, pairwise

import pytest

from dlm.corpora import xdailydialog
from dlm.dialogue import pretrained
from dlm.dialogue.apart import Apart, count_apart
from dlm.dialogue.chat_template import ChatTemplate
from dlm.dialogue.schema import Dialogue, Message
from tests.dialogue.chat_forms import CHATML, checkpoint


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


TIGHT = """
{%- for m in messages -%}
<|im_start|>[{{ m.role }}]{{ m.content }}[/{{ m.role }}]<|im_end|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_start|>[assistant]{%- endif -%}
"""
MESSAGES = 2000


@pytest.mark.parametrize(("jinja", "fewest"), [(CHATML, 0), (TIGHT, MESSAGES // 10)])
def test_the_count_of_real_text_in_real_pieces(jinja, fewest, corpus_dir, tmp_path):
    """Parity: GPT-2's pieces, 2,000 messages of everyday chat, the transformers library's ids.

    Where a bracket stands right behind a text, its last mark is one token with the bracket.
    """
    transformers = pytest.importorskip("transformers")
    source = corpus_dir("gpt2-bpe") / "GPT2"
    shutil.copy(source / "encoder.json", tmp_path / "vocab.json")
    shutil.copy(source / "vocab.bpe", tmp_path / "merges.txt")
    control = {50257: "<|im_start|>", 50258: "<|im_end|>"}
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "eos_token": "<|im_end|>",
        "chat_template": jinja,
        "added_tokens_decoder": {
            str(i): {"content": content, "special": True} for i, content in control.items()
        },
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    template = ChatTemplate(pretrained.load(tmp_path))
    chats = xdailydialog.read_evaluation(corpus_dir("xdailydialog"), "en", "test")
    options = xdailydialog.Options(acts=False)
    dialogues, said = [], 0
    for view in (next(xdailydialog.views(chat, "x", options)) for chat in chats):
        dialogues.append(view)
        said += len(view.messages)
        if said >= MESSAGES:
            break

    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = [0, 0, 0, 0]
    for dialogue, rendered in zip(dialogues, template.render_many(dialogues), strict=True):
        chat = [{"role": m.role, "content": m.content} for m in dialogue.messages]
        ids = theirs.apply_chat_template(chat, tokenize=True, return_dict=False)
        stops = accumulate((len(theirs.convert_ids_to_tokens(i)) for i in ids), initial=0)
        whole = [(*place, i) for place, i in zip(pairwise(stops), ids, strict=True)]
        start = 0
        for message in rendered:
            sizes = (len(theirs.convert_ids_to_tokens(i)) for i in message.ids)
            stops = list(accumulate(sizes, initial=start))
            ours = [(*place, i) for place, i in zip(pairwise(stops), message.ids, strict=True)]
            inside = [token for token in whole if start <= token[0] and token[1] <= stops[-1]]
            other = len(set(ours) - set(inside))
            found = (1, len(ours), inside != ours, other)
            expected = [a + b for a, b in zip(expected, found, strict=True)]
            start = stops[-1]
    counted = count_apart(template, dialogues)
    assert counted == Apart(*expected)
    assert counted.messages >= MESSAGES
    assert fewest <= counted.other_messages < counted.messages
    assert counted.other_messages <= counted.other_tokens


def name(template, token):
    tokenizer = template.tokenizer
    return tokenizer.token_bytes(token) or (tokenizer.control_name(token) or "").encode()
