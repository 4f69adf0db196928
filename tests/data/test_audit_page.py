"""The page of an audit: why each token is learned or not, and texts that stay texts."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from dlm.data.audit_page import WHY, audit_page, audit_rows
from dlm.data.pipeline import Batches
from dlm.dialogue.encoding import encode
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.schema import Dialogue, Message

ATTACK = '<script>alert(1)</script> & "quoted" <b>\u2028<|end|>'


def talk(*weights, text="hi"):
    """Turns of state and reply, the replies of these weights."""
    messages = [Message("system", "be brief")]
    for weight in weights:
        messages += [Message("user", text), Message("assistant", "s", "state")]
        messages.append(Message("assistant", "東京", weight=weight))
    return Dialogue(f"d{len(weights)}", tuple(messages))


def rows_of(build, template, source, policy=None, *, length=160, evaluation=False, **options):
    policy = policy or PolicyConfig()
    pieces = build(source=source, policy=policy, length=length, evaluation=evaluation)
    batches = Batches(pieces, 4, length, shuffle=False, **options)
    policy = policy.scored() if evaluation else policy
    return batches, audit_rows(batches, source, template.tokenizer, policy, 4)


def whys(rows):
    """By (turn, channel or role), why the tokens of a message are as they are; headers left out."""
    found = {}
    for row in rows:
        for segment in row.segments:
            for said in segment.said:
                kinds = {token.why for token in said.tokens} - {"header"}
                found.setdefault((said.turn, said.name), []).append("".join(kinds))
    return found


@pytest.mark.parametrize("pack", [True, False])
def test_every_token_of_a_batch_is_painted_once(build, template, dialogues, pack):
    """Tokens, learned ones and padding are those of the batch's own arrays, row by row."""
    batches, rows = rows_of(build, template, dialogues, pack=pack)
    batch = batches.batch(0)
    assert len(rows) == 4
    for number, row in enumerate(rows):
        tokens = [t for segment in row.segments for said in segment.said for t in said.tokens]
        used = int((batch.segment_ids[number] > 0).sum())
        assert len(tokens) == used + len(row.segments)  # a segment's first token is no target
        assert row.padding == 160 - used
        learned = int((batch.loss_weights[number] > 0).sum())
        assert Counter(token.why for token in tokens)["learned"] == learned
        assert [segment.number for segment in row.segments] == list(range(1, 1 + len(row.segments)))


def test_each_reason_by_hand(build, template):
    """The role, the policy's channel and turn, the corpus's weight, history: told apart."""
    source = [talk(1.0, 0.0, 0.5)]
    _, rows = rows_of(build, template, source, PolicyConfig(channels=("reply",), turns=-1))
    assert whys(rows) == {
        (-1, "system"): ["role"],
        **{(turn, "user"): ["role"] for turn in range(3)},
        **{(turn, "state"): ["channel"] for turn in range(3)},
        (0, "reply"): ["turn"],
        (1, "reply"): ["weight"],
        (2, "reply"): ["learned"],
    }
    weights = [said.weight for said in rows[0].segments[0].said]
    assert weights == [0, *[0] * 8, 0.5]
    _, expanded = rows_of(build, template, source, PolicyConfig(expand=True))
    assert whys(expanded)[0, "reply"] == ["learned", "history", "history"]
    assert whys(expanded)[2, "state"] == ["learned"]


def test_evaluation_is_painted_as_it_is_scored(build, template):
    """Turns that training leaves out are learned, here scored; cut ones are history elsewhere."""
    source = [talk(1.0, 1.0, 1.0)]
    policy = PolicyConfig(turns=-1)
    length = len(encode(source[0], template, policy).tokens) - 2
    _, rows = rows_of(build, template, source, policy, length=length, evaluation=True)
    assert sorted(whys(rows)[1, "reply"]) == ["history", "learned"]
    assert whys(rows)[0, "reply"] == ["learned"]


class Reader(HTMLParser):
    """What a browser would show, and every tag and address it would see."""

    def __init__(self):
        super().__init__()
        self.tags, self.links, self.text, self.classes = Counter(), [], "", []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.links += [value for name, value in attrs if name in ("src", "href")]
        self.classes += [value for name, value in attrs if name == "class" and tag == "span"]

    def handle_data(self, data):
        self.text += data


def read(page):
    reader = Reader()
    reader.feed(page)
    return reader


def test_a_text_with_markup_is_shown_as_text(build, template):
    source = [replace(talk(1.0, text=ATTACK), id="<i>d</i>", task="<u>t</u>")]
    _, rows = rows_of(build, template, source)
    page = read(audit_page("<h6>title</h6>", rows, "<table><td>1</td>"))
    assert page.tags["b"] == 2  # the names of the two messages that are learned
    assert not page.tags.keys() & {"script", "i", "u", "h6"}
    shown = page.text.replace("‥", "")  # stands for a token within a character
    assert '<script>alert(1)</script> & "quoted" <b>\\u2028<|end|>' in shown
    assert "<i>d</i>" in page.text
    assert "東京" in shown
    assert page.links == []


def test_a_page_fetches_nothing_and_knows_light_and_dark(build, template, dialogues):
    _, rows = rows_of(build, template, dialogues)
    page = audit_page("title", rows, "counts")
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r"https?:|url\(|@import|<script|<link|<img", page)


def test_the_legend_counts_what_is_painted(build, template, dialogues):
    batches, rows = rows_of(build, template, dialogues)
    page = audit_page("title", rows, "counts")
    cells = re.findall(r'sample (\w+)">\1</span></td>\s*<td class="count">([\d,]+)<', page)
    shown = {why: int(count.replace(",", "")) for why, count in cells}
    batch = batches.batch(0)
    assert shown["padding"] == (batch.segment_ids == 0).sum()
    assert shown["learned"] == (batch.loss_weights > 0).sum()
    assert set(shown) == {"learned", "role", "header", "padding"} <= set(WHY)
    painted = Counter(name.split()[1] for name in read(page).classes if name.startswith("t "))
    assert {why: painted[why] for why in ("learned", "role", "header")} == {
        why: shown[why] for why in ("learned", "role", "header")
    }
