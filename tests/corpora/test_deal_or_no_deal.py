"""Deal or No Deal: lines in the published format by hand, and the real corpus if present."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dlm.core.errors import UserError
from dlm.corpora import deal_or_no_deal, registry
from dlm.corpora.deal_or_no_deal import dialogue, parse_line
from dlm.dialogue.schema import Dialogue, Message
from dlm.dialogue.slots import parse_acts


def line(shown: str, said: str, output: str, partner: str) -> str:
    return (
        f"<input> {shown} </input> <dialogue> {said} </dialogue> <output> {output} </output> "
        f"<partner_input> {partner} </partner_input>"
    )


ANN, BEN = "1 4 4 1 1 2", "1 0 4 2 1 2"
SECOND = line(
    *(ANN, "THEM: 4 hats @ 2 : mine ? <eos> YOU: deal <eos> THEM: <selection>"),
    *("item0=1 item1=0 item2=1 item0=0 item1=4 item2=0", BEN),
)
FIRST = line(
    *(BEN, "YOU: 4 hats @ 2 : mine ? <eos> THEM: deal <eos> YOU: <selection>"),
    *("item0=0 item1=4 item2=0 item0=1 item1=0 item2=1", ANN),
)
ALONE = line(
    *(ANN, "YOU: the hats <eos> THEM: no <eos> YOU: <selection>"),
    *(" ".join(["<no_agreement>"] * 6), BEN),
)


def reply(text: str) -> Message:
    return Message("assistant", text, "reply")


def act(text: str) -> Message:
    return Message("assistant", text, "act")


def test_both_views_by_hand():
    """Values are shown, the outcome is an act; the other's values and the points are meta."""
    assert dialogue(parse_line(SECOND, "f:1"), "a") == Dialogue(
        "a",
        (
            Message("context", "1 book worth 4; 4 hat worth 1; 1 ball worth 2"),
            Message("user", "4 hats @ 2 : mine ?"),
            reply("deal"),
            Message("user", "<selection>"),
            act("select(book=1, hat=0, ball=1)"),
        ),
        meta={"partner": {"book": 0, "hat": 2, "ball": 2}, "points": [6, 8]},
    )
    assert dialogue(parse_line(FIRST, "f:1"), "b") == Dialogue(
        "b",
        (
            Message("context", "1 book worth 0; 4 hat worth 2; 1 ball worth 2"),
            Message("user", ""),
            reply("4 hats @ 2 : mine ?"),
            Message("user", "deal"),
            act("select(book=0, hat=4, ball=0)"),
        ),
        meta={"partner": {"book": 4, "hat": 1, "ball": 2}, "points": [8, 6]},
    )


def test_no_agreement_is_an_act_without_points():
    found = dialogue(parse_line(ALONE, "f:1"), "c")
    assert found.messages[-1] == act("no_agreement")
    assert "points" not in found.meta


def write(root: Path, *lines: str) -> Path:
    for name in deal_or_no_deal.FILES.values():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("".join(f"{text}\n" for text in lines))
    return root


def build(root: Path) -> registry.Prepared:
    return registry.prepare("deal_or_no_deal", {"path": str(root)}, root / "built")


def test_pairs_share_a_number_and_mirrorless_views_stay(tmp_path, monkeypatch):
    counts = {"views": 4, "without their mirror": 2}
    monkeypatch.setattr(deal_or_no_deal, "COUNTS", dict.fromkeys(deal_or_no_deal.FILES, counts))
    corpus = build(write(tmp_path, ALONE, SECOND, FIRST, ALONE))
    assert [d.id for d in corpus.splits["test"]] == [
        *("test-0-first", "test-1-second", "test-1-first", "test-2-first")
    ]
    with pytest.raises(UserError, match="4 views, 4 without their mirror; the release has 4 views"):
        build(write(tmp_path, SECOND, ALONE, FIRST, ALONE))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", r"train\.txt:1: no '<input> 6 numbers </input> <dialogue> YOU: "),
        (ALONE.replace("THEM: no", "WHO: no"), r"train\.txt:1: no '<input>"),
        (ALONE.replace("<selection>", "bye"), "the negotiation does not end with <selection>"),
        (
            FIRST.replace("item0=", "item0=x"),
            r"train\.txt:1: no record of this corpus: invalid",
        ),
        (
            ALONE.replace("<input> ", f"<input> {'9' * 5000}"),
            r"train\.txt:1: .*: Exceeds the",
        ),
        (ALONE, "1 views, 1 without their mirror; the release has 10095 views, 327 without"),
    ],
)
def test_mistakes_are_told(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        build(write(tmp_path, text))


def test_what_is_absent_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no file negotiate/train\.txt; take the folder src/data"):
        build(tmp_path)


@pytest.mark.slow
def test_the_real_corpus(corpus_dir, tmp_path):
    """Counts of views, pairs and outcomes; who agrees shares all there is."""
    options = {"path": str(corpus_dir("deal-or-no-deal"))}
    corpus = registry.prepare("deal_or_no_deal", options, tmp_path)
    counts = {split: corpus.counts[split]["dialogues"] for split in corpus.splits}
    assert counts == {"train": 10095, "validation": 1087, "test": 1052}
    train = list(corpus.splits["train"])
    outcomes = Counter(parse_acts(str(d.messages[-1].content))[0].name for d in train)
    assert outcomes == {"select": 7882, "disagree": 1179, "no_agreement": 978, "disconnect": 56}
    sizes = Counter(Counter(d.id.rpartition("-")[0] for d in train).values())
    assert sizes == {2: 4884, 1: 327}
