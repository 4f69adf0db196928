"""A mixture: parts read as themselves under names of their own, shares, leaks, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dlm.core.errors import UserError
from dlm.corpora.mixture import Chosen, tempered, weighted
from dlm.corpora.notices import notices
from dlm.corpora.registry import Card, Prepared, prepare

CITY = {
    "name": "concierge",
    "options": {"dialogues": 6, "held_out": 2, "cities": 2, "unseen_cities": 1},
}


def write(path: Path, texts) -> str:
    records = [
        {"id": f"d{i}", "task": "its own", "messages": [{"role": "user", "content": text}, OK]}
        for i, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


OK = {"role": "assistant", "content": "ok"}


def own(folder: Path, name: str, train, validation, test=(), **fields) -> dict:
    """A part of a user's own files."""
    texts = {"path": train, "validation_path": validation, "test_path": test}
    paths = {
        option: write(folder / f"{name}-{option}.jsonl", said)
        for option, said in texts.items()
        if said
    }
    return {"name": "jsonl", "options": paths, **fields}


def mix(folder: Path, parts: dict, **options) -> Prepared:
    return prepare("mixture", {"parts": parts, **options}, folder / "built")


def ids(prepared: Prepared, split: str) -> list[str]:
    return [dialogue.id for dialogue in prepared.splits[split]]


def test_parts_come_in_turn_under_their_names(tmp_path):
    """The task is the part, ids stay unique, and a split begins with dialogues of every part."""
    a = own(tmp_path, "a", ["one", "two", "three"], ["four"])
    b = own(tmp_path, "b", ["five"], ["six", "seven"], ["eight"])
    mixed = mix(tmp_path, {"b": b, "a": a})
    assert list(mixed.splits) == ["train", "validation", "test"]
    assert ids(mixed, "train") == ["a/d0", "b/d0", "a/d1", "a/d2"]
    assert ids(mixed, "validation") == ["a/d0", "b/d0", "b/d1"]
    assert ids(mixed, "test") == ["b/d0"]
    first, second = mixed.splits["train"][0], mixed.splits["train"][1]
    assert (first.task, second.task) == ("a", "b")
    assert [d.messages[0].content for d in (first, second)] == ["one", "five"]
    assert len(mixed.splits["train"]) == 4
    assert mixed.splits["train"][-1].id == "a/d2"
    assert "test holds nothing of a" in notices(mixed)


def test_a_slice_of_a_split_is_its_dialogues(tmp_path):
    """Of a mixture's split, and of a part of which some dialogues are taken in an order."""
    texts = [[f"{part}{i}" for i in range(5)] for part in "abcd"]
    a, b = own(tmp_path, "a", *texts[:2]), own(tmp_path, "b", *texts[2:])
    mixed = mix(tmp_path, {"a": a, "b": b}).splits["train"]
    for dialogues in (mixed, Chosen(mixed, np.array([9, 0, 7, 1, 2, 3, 4, 5, 6, 8]))):
        one_by_one = list(dialogues)
        assert len(one_by_one) == len(dialogues) == 10
        for part in (slice(2, 5), slice(None, None, -3), slice(-2, None), slice(8, 99), slice(0)):
            assert dialogues[part] == one_by_one[part]


def test_parts_are_built_as_themselves(tmp_path):
    """A part's build is that of the corpus alone, and so are its dialogues, but for id and task."""
    alone = prepare("concierge", CITY["options"], tmp_path / "built")
    (build,) = (tmp_path / "built/concierge").iterdir()
    mixed = mix(tmp_path, {"city": CITY, "a": own(tmp_path, "a", ["one"], ["two"])})
    assert list((tmp_path / "built/concierge").iterdir()) == [build]
    found = [d for d in mixed.splits["test_unseen"] if d.task == "city"]
    own_ids = {d.id.removeprefix("city/"): d for d in found}
    assert len(own_ids) == len(found) == len(alone.splits["test_unseen"])
    for dialogue in alone.splits["test_unseen"]:
        assert own_ids[dialogue.id].messages == dialogue.messages
        assert own_ids[dialogue.id].meta == dialogue.meta  # its tools' world hangs on it


def test_the_first_of_what_is_held_out_are_a_fair_sample(tmp_path):
    """Training dialogues stay in their order; others come by content, whatever their own order."""
    texts = [f"turn {i}" for i in range(30)]
    orders = []
    for number, order in enumerate((texts, texts[::-1])):
        part = own(tmp_path, f"a{number}", texts, order)
        mixed = mix(tmp_path, {"a": part})
        assert [d.messages[0].content for d in mixed.splits["train"]] == texts
        orders.append([d.messages[0].content for d in mixed.splits["validation"]])
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == sorted(texts)
    assert orders[0] not in (texts, texts[::-1])


def test_leaks_between_parts_are_counted(tmp_path):
    """No leak unseen: a part's held-out dialogues in another's train, and in its validation."""
    a = own(tmp_path, "a", ["one", "two", "three"], ["four", "nine"])
    b = own(tmp_path, "b", ["five"], ["two", "three", "six"], ["four", "five", "eight"])
    mixed = mix(tmp_path, {"a": a, "b": b})
    assert mixed.counts == {
        "train": {"dialogues": 4},
        "validation": {"dialogues": 5, "also_in_train": 2},
        "test": {"dialogues": 3, "also_in_train": 1, "also_in_validation": 1},
    }
    lines = notices(mixed)
    assert "2 of 3 dialogues of b/validation are also in a/train, word for word" in lines
    assert "1 of 3 dialogues of b/test are also in a/validation, word for word" in lines
    assert "1 of 3 dialogues of b/test are also in b/train, word for word" in lines
    assert sum("also in" in line for line in lines) == 3


def test_at_most_takes_some_of_the_same(tmp_path):
    """Fewer training dialogues are some of more, whatever their order; other splits stay whole."""
    texts = [f"turn {i}" for i in range(40)]

    def taken(at_most: int, order=texts) -> set[str]:
        part = own(tmp_path, "a", order, texts[:2], at_most=at_most)
        mixed = mix(tmp_path, {"a": part})
        train = [d.messages[0].content for d in mixed.splits["train"]]
        assert train == [text for text in order if text in train]
        assert mixed.counts["train"]["dialogues"] == len(train)
        assert mixed.counts["validation"]["dialogues"] == 2
        known = len(set(texts[:2]) & set(train))
        assert mixed.counts["validation"].get("also_in_train", 0) == known
        return set(train)

    few, more, every = taken(7), taken(19), taken(0)
    assert (len(few), len(more), len(every)) == (7, 19, 40)
    assert few < more < every == taken(40)
    assert taken(7, texts[::-1]) == few


def test_weight_0_trains_on_nothing(tmp_path):
    """Such a part has no training split: it is not read for one, and nothing leaks from it."""
    a = own(tmp_path, "a", ["one", "two"], ["three"], weight=1.0)
    b = own(tmp_path, "b", ["three", "four"], ["two", "five"], weight=0.0)
    mixed = mix(tmp_path, {"a": a, "b": b})
    assert ids(mixed, "train") == ["a/d0", "a/d1"]
    assert ids(mixed, "validation") == ["a/d0", "b/d0", "b/d1"]
    assert mixed.counts["validation"]["also_in_train"] == 1
    assert "train holds nothing of b" in notices(mixed)
    assert mixed.shares({"a": 7}) == {"a": 1.0}
    assert mixed.digest != mix(tmp_path, {"a": a, "b": {**b, "weight": 1.0}}).digest


def test_digest_follows_parts_names_and_at_most(tmp_path):
    """What changes the dialogues, their names or their number changes the digest; shares do not."""
    a = own(tmp_path, "a", ["one", "two", "three"], ["four"])
    b = own(tmp_path, "b", ["five"], ["six"])

    def digest(parts, **options) -> str:
        return mix(tmp_path, parts, **options).digest

    base = digest({"a": a, "b": b})
    assert base == digest({"b": b, "a": a}, temperature=2.0)
    assert base == digest({"a": {**a, "weight": 2.0}, "b": {**b, "weight": 1.0}})
    others = ({"a": a}, {"a": a, "c": b}, {"a": {**a, "at_most": 2}, "b": b}, {"a": b, "b": a})
    assert len({base, *map(digest, others)}) == 5


def test_licences_are_named_and_non_commercial_ones_warned_of(tmp_path):
    """One line a part with licence and citation; one warning for all parts that forbid selling."""
    mixed = mix(tmp_path, {"city": CITY, "a": own(tmp_path, "a", ["one"], ["two"])})
    assert {"licence of a: not stated", "licence of city: Apache-2.0"} <= {
        line.partition("; cite")[0] for line in notices(mixed)
    }
    assert not any(line.startswith("warning") for line in notices(mixed))


@pytest.mark.parametrize(
    ("licence", "restricted"),
    [
        ("CC BY-NC-SA 4.0 (the repository: Apache-2.0)", True),
        ("CC BY-NC 4.0", True),
        ("intended for non-commercial research purpose only", True),
        ("for research use only", True),
        ("Noncommercial use", True),
        ("CC BY 4.0", False),
        ("CC BY-SA 4.0", False),
        ("Apache-2.0", False),
        ("NCSA", False),
        ("", False),
    ],
)
def test_non_commercial_is_read_from_the_licence(licence, restricted):
    part = Prepared("x", {}, "", Card("chat", "X.", "Who 2000", licence), {})
    whole = Prepared("mixture", {}, "", Card("any", "Both."), {}, parts={"p": part, "q": part})
    assert part.card.non_commercial is restricted
    warnings = [line for line in notices(whole) if line.startswith("warning")]
    assert len(warnings) == restricted
    assert all("not for commercial use: p, q;" in line for line in warnings)
    assert f"licence of q: {licence or 'not stated'}; cite: Who 2000" in notices(whole)


def test_shares_by_hand():
    """3 : 1 by weight; by temperature 2 the square roots of the sizes, 100 : 10."""
    assert weighted({"a": 3.0, "b": 1.0, "c": 0.0}, {"a": 10, "b": 990}) == {"a": 0.75, "b": 0.25}
    found = tempered(2.0, {"a": 10_000, "b": 100})
    np.testing.assert_allclose([found["a"], found["b"]], [10 / 11, 1 / 11], rtol=1e-15)
    with pytest.raises(UserError, match="part b has nothing to learn from; give it weight 0"):
        weighted({"a": 1.0, "b": 1.0}, {"a": 10})


def test_shares_are_asked_for(tmp_path):
    """None where every dialogue comes once; by weights or by temperature otherwise."""
    a, b = (own(tmp_path, name, [name], ["two"]) for name in "ab")
    assert mix(tmp_path, {"a": a, "b": b}).shares is None
    heavy = mix(tmp_path, {"a": {**a, "weight": 3.0}, "b": {**b, "weight": 1.0}})
    assert heavy.shares({"a": 5, "b": 5}) == {"a": 0.75, "b": 0.25}
    warm = mix(tmp_path, {"a": a, "b": b}, temperature=2.0)
    assert warm.shares({"a": 9, "b": 1}) == {"a": 0.75, "b": 0.25}


@pytest.mark.parametrize(
    ("parts", "options", "message"),
    [
        ({}, {}, "parts is empty"),
        ({"a/b": {"name": "jsonl"}}, {}, "part 'a/b': name it with letters"),
        ({"a": {"name": "mixture"}}, {}, "part a is a mixture itself"),
        ({"a": {"name": "jsonl", "wieght": 1.0}}, {}, r"did you mean 'parts\.a\.weight'"),
        ({"a": {"name": "jsonl", "weight": -1.0}}, {}, r"weight=-1\.0 must be"),
        ({"a": {"name": "jsonl", "at_most": -1}}, {}, "at_most=-1 must be"),
        ({"a": {"name": "jsonl", "weight": 0.0}}, {}, "every part has weight 0"),
        ({"a": {"name": "jsonl"}}, {"temperature": 0.5}, r"temperature=0\.5 must be"),
        ({"a": {"name": "jsonl", "weight": 1.0}, "b": {"name": "jsonl"}}, {}, "b has none"),
        ({"a": {"name": "jsonl", "weight": 1.0}}, {"temperature": 2.0}, "exclude each other"),
        ({"a": {"name": "jsnl"}}, {}, "part a: data.name: no corpus 'jsnl'; did you mean 'jsonl'"),
        ({"a": {"name": "jsonl"}}, {}, "part a: data.path is empty"),
    ],
)
def test_refusals_name_the_part(tmp_path, parts, options, message):
    with pytest.raises(UserError, match=message):
        mix(tmp_path, parts, **options)
