"""Builds: what goes in comes out, in order; no half build, no double id, no empty split."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from dlm.core.errors import UserError
from dlm.corpora import registry, tfds_store
from dlm.corpora.registry import Card, Prepared
from dlm.corpora.tfds_store import build
from dlm.dialogue.schema import Dialogue, Message

CARD = Card(task="toys", description="Toys.", citation="Nobody 2000", licence="CC0")


def dialogues(number: int, prefix: str = "d") -> list[Dialogue]:
    call = Message("assistant", channel="call", name="find", arguments={"é": [1, None]})
    return [
        Dialogue(
            id=f"{prefix}{i}",
            messages=(
                Message("user", f"turn {i} \u2028 grüß"),
                call,
                Message("tool", "x\ny", name="find"),
                Message("assistant", "ok", weight=0.5),
            ),
            task="toy",
            meta={"entities": ["grüß"]},
        )
        for i in range(number)
    ]


def build_toys(folder, digest: str = "abc", train: int = 23, **changes) -> Prepared:
    splits: dict[str, Callable] = {
        "train": lambda: dialogues(train),
        "test_oov": lambda: dialogues(3, "o"),
    }
    return build("toys", digest, splits, folder, card=CARD, **changes)


def test_dialogues_come_back_in_order_at_random_access(tmp_path):
    """What is read equals what was built, at each index, from either end, and by iteration."""
    toys = build_toys(tmp_path)
    source = toys.splits["train"]
    assert list(toys.splits) == ["train", "test_oov"]
    assert len(source) == 23
    assert [source[i] for i in (22, 0, 7)] == [dialogues(23)[i] for i in (22, 0, 7)]
    assert source[-1] == dialogues(23)[-1]
    assert list(source) == dialogues(23)
    for part in (slice(3, 8), slice(20, 99), slice(5, 5), slice(-2, None), slice(9, 2, -3)):
        assert source[part] == dialogues(23)[part]
    with pytest.raises(IndexError, match="toys/train: dialogue 23 of 23"):
        source[23]


def test_prepared_tells_counts_and_texts(tmp_path):
    """Counts are those of the dialogues; citation and licence are kept in the build as well."""
    toys = build_toys(tmp_path)
    assert toys.counts["train"] == {"dialogues": 23, "messages": 92, "responses": 46}
    test = {"dialogues": 3, "messages": 12, "responses": 6}
    assert toys.counts["test_oov"] == {**test, "also_in_train": 3}  # under other ids
    assert (toys.name, toys.card) == ("toys", CARD)
    info = json.loads((tmp_path / "toys/abc/1.2.0/dataset_info.json").read_text())
    assert (info["citation"], info["configName"]) == ("Nobody 2000", "abc")
    assert toys.rejected is None


def test_a_build_of_another_version_is_not_in_the_way(tmp_path):
    (tmp_path / "toys/abc/0.9.0").mkdir(parents=True)
    (tmp_path / "toys/abc/0.9.0/dialogues.json").write_text("{}")
    assert len(build_toys(tmp_path).splits["train"]) == 23


def test_built_once(tmp_path):
    """A build of the same digest is opened and its callables are not called again."""
    first = build_toys(tmp_path)

    def never() -> Iterator[Dialogue]:
        raise AssertionError("read again")

    again = build("toys", "abc", {"train": never, "test_oov": never}, tmp_path, card=CARD)
    assert again.digest == first.digest
    assert list(again.splits["test_oov"]) == dialogues(3, "o")


def test_digest_is_of_the_dialogues(tmp_path):
    """Prepared.digest follows the dialogues and not the key under which they were built."""
    first, same = build_toys(tmp_path, "abc"), build_toys(tmp_path, "abd")
    assert first.digest == same.digest
    for digest, others in (("abe", dialogues(22)), ("abf", dialogues(23, "e"))):
        splits = {"train": lambda o=others: o, "test_oov": lambda: dialogues(3, "o")}
        assert build("toys", digest, splits, tmp_path, card=CARD).digest != first.digest


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": lambda: dialogues(2) * 2}, "toys/train: two dialogues have the id 'd0'"),
        ({"train": lambda: [Dialogue("x", ())]}, "toys/train: dialogue x: messages: empty"),
        ({"train": lambda: dialogues(2), "test": list}, "toys: no dialogue for the split 'test'"),
    ],
)
def test_refusals_leave_nothing_behind(tmp_path, splits, message):
    """A double id and an empty split are named, and the build does not exist afterwards."""
    with pytest.raises(UserError, match=message):
        build("toys", "abc", splits, tmp_path, card=CARD)
    assert list((tmp_path / "toys").iterdir()) == []
    assert len(build_toys(tmp_path).splits["train"]) == 23


def test_the_readers_own_error_comes_through(tmp_path):
    """A reader's UserError arrives as it was raised, not wrapped by TFDS."""

    def broken() -> Iterator[Dialogue]:
        yield dialogues(1)[0]
        raise UserError("my.jsonl:7: messages: missing")

    with pytest.raises(UserError, match=r"^my.jsonl:7: messages: missing$"):
        build("toys", "abc", {"train": broken}, tmp_path, card=CARD)


def test_rejected_records_lie_beside_the_build(tmp_path):
    """Records that the reader refused are stored with their reasons and counted."""
    rejected: list[dict] = []

    def read() -> Iterator[Dialogue]:
        rejected.append({"where": "a:2", "reason": "no rôle"})
        yield from dialogues(2)

    toys = build("toys", "abc", {"train": read}, tmp_path, rejected=rejected, card=CARD)
    assert toys.rejected == tmp_path / "toys/abc/1.2.0/rejected.jsonl"
    assert json.loads(toys.rejected.read_text()) == {"where": "a:2", "reason": "no rôle"}
    assert toys.counts["train"]["rejected"] == 1


def test_the_slower_of_two_builders_takes_the_first_ones_build(tmp_path):
    """A process that finishes second finds the build there, keeps it, and leaves no rubbish."""

    def slow() -> Iterator[Dialogue]:
        build_toys(tmp_path, train=2)  # the other process, faster
        yield from dialogues(2)

    splits = {"train": slow, "test_oov": lambda: dialogues(3, "o")}
    toys = build("toys", "abc", splits, tmp_path, card=CARD)
    assert list(toys.splits["train"]) == dialogues(2)
    assert [path.name for path in (tmp_path / "toys").iterdir()] == ["abc"]


def test_a_killed_build_does_not_count(tmp_path):
    """A process that dies while it writes leaves no build; the next one builds anew."""
    script = (
        "import os\n"
        "from dlm.corpora.registry import Card\n"
        "from dlm.corpora.tfds_store import build\n"
        "from dlm.dialogue.schema import Dialogue, Message\n"
        "def read():\n"
        "    yield Dialogue('d', (Message('user', 'a'), Message('assistant', 'b')))\n"
        "    os._exit(9)\n"
        f"build('toys', 'abc', {{'train': read}}, {str(tmp_path)!r},\n"
        "      card=Card('toys', 'Toys.'))\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 9
    assert not (tmp_path / "toys/abc").exists()
    assert len(build_toys(tmp_path).splits["train"]) == 23


def test_a_flipped_bit_is_noticed(tmp_path):
    """Damage on the disk is an error, never other dialogues."""
    build_toys(tmp_path)
    (path,) = (tmp_path / "toys/abc/1.2.0").glob("*train*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(Exception, match="hash mismatch"):
        list(build_toys(tmp_path).splits["train"])


def test_tensorflow_is_not_imported(tmp_path):
    """Building and reading work without TensorFlow."""
    list(build_toys(tmp_path).splits["train"])
    assert tfds_store.tfds.__name__ in sys.modules
    assert "tensorflow" not in sys.modules


def test_an_unknown_corpus_names_the_nearest(tmp_path):
    """A misspelt corpus is one line with the nearest name."""
    with pytest.raises(UserError, match=r"no corpus 'babi_dialogue'; did you mean 'babi_dialog'\?"):
        registry.prepare("babi_dialogue", {}, tmp_path)
    with pytest.raises(UserError, match=r"known: .*babi_dialog, .*jsonl"):
        registry.prepare("zzz", {}, tmp_path)


def test_an_id_that_is_no_text_is_told(tmp_path):
    listed = Dialogue([], (Message("user", "a"),))  # type: ignore[arg-type]
    with pytest.raises(
        UserError, match=r"^toys/train: dialogue \[\]: id: expected a string, got a"
    ):
        build("toys", "abc", {"train": lambda: [listed]}, tmp_path, card=CARD)


def test_only_a_reader_that_checks_is_trusted(tmp_path):
    """A dialogue that breaks the format is refused with its id, whoever made it."""
    broken = Dialogue("b", (Message("user", "a"), Message("tool", "x", name="find")))
    message = r"^toys/train: dialogue b: messages\[1\]: a tool result .*; take it from the shop$"
    card = replace(CARD, remedy="take it from the shop")
    with pytest.raises(UserError, match=message):
        build("toys", "abc", {"train": lambda: [broken]}, tmp_path, card=card)
