from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dlm.core import workers as processes
from dlm.core.errors import UserError
from dlm.data import block, workers
from dlm.data.recipe import Recipe
from dlm.data.store import clean, size
from dlm.dialogue.builtin_template import BuiltinTemplate
from dlm.dialogue.encoding import fit, fit_many
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.schema import Dialogue, Message, to_json, turn_of_messages
from dlm.dialogue.tokenizer import TokenizerConfig, train

RECIPE = Recipe(
    split="train",
    data="d1",
    tokenizer="t1",
    template="f1",
    policy=PolicyConfig(),
    length=160,
    overflow="drop",
    evaluation=False,
    groups=False,
    code="c1",
)


def other_template(tokenizer, name=None):
    """Another tokenizer, or another template of the same one."""
    template = BuiltinTemplate(tokenizer)
    template.digest = name or template.digest
    return template


CHANGES = {
    "split": "test",
    "data": "d2",
    "tokenizer": "t2",
    "template": "f2",
    "policy": PolicyConfig(channels=("reply",)),
    "length": 161,
    "overflow": "raise",
    "evaluation": True,
    "groups": True,
    "code": "c2",
}


@pytest.fixture
def encoded(monkeypatch):
    """The ids of the dialogues that are encoded, each as often as it is."""
    seen: list[str] = []

    def counting(dialogues, *args, **options):
        seen.extend(dialogue.id for dialogue in dialogues)
        return fit_many(dialogues, *args, **options)

    monkeypatch.setattr(block, "fit_many", counting)
    return seen


def test_pieces_are_what_encoding_gave(pieces, dialogues, template):
    """The cache gives back every field of every piece, bit for bit, with its dialogue and task."""
    index = 0
    for number, dialogue in enumerate(dialogues):
        for wanted in fit(dialogue, template, PolicyConfig(), 160):
            piece = pieces.piece(index)
            for field in dataclasses.fields(wanted):
                left, right = (np.asarray(getattr(x, field.name)) for x in (piece, wanted))
                assert left.dtype == right.dtype
                np.testing.assert_array_equal(left, right)
            assert pieces.lengths[index] == len(wanted.tokens)
            assert pieces.dialogue_index[index] == number
            assert pieces.task_names[pieces.task_id[index]] == dialogue.task
            index += 1
    assert len(pieces) == index
    assert pieces.task_names == ["book", "talk"]


def mapped(folder) -> int:
    """Bytes of a folder's files that are in this process's memory."""
    sizes, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match("[0-9a-f]+-", line):
            ours = str(folder) in line
        elif ours and line.startswith("Rss:"):
            sizes += 1024 * int(line.split()[1])
    return sizes


def test_pages_that_were_read_are_let_go(pieces):
    """They leave the process, and come back when they are read again."""
    before = {name: np.array(array) for name, array in pieces.arrays.items()}
    assert mapped(pieces.folder) >= sum(array.nbytes for array in before.values())
    pieces.let_go()
    others = sum(array.nbytes for array in (pieces.lengths, pieces.dialogue_index)) * 2
    assert mapped(pieces.folder) <= others + 4 * 4096
    for name, array in before.items():
        np.testing.assert_array_equal(pieces.arrays[name], array)


def test_tasks_are_numbered_by_name(build):
    """Ids of tasks do not depend on which comes first."""
    source = [Dialogue(task, tuple(turn(2)), task=task) for task in ("talk", "ask", "", "talk")]
    pieces = build(source=source)
    assert pieces.task_names == ["", "ask", "talk"]
    assert pieces.task_id.tolist() == [2, 1, 0, 2]


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Recipe)])
def test_each_change_gives_another_key(field):
    """Caches know their makers: each single part of the recipe is part of the key."""
    assert dataclasses.replace(RECIPE, **{field: CHANGES[field]}).key != RECIPE.key
    assert dataclasses.replace(RECIPE).key == RECIPE.key


POLICIES = [{"turns": -1}, {"turns": 1}, {"expand": True}, {"history": 1}, {"hide": ("state",)}]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_each_policy_has_a_cache_of_its_own(build, policy):
    """Caches know their makers: in evaluation those that score alike share one."""
    policy = PolicyConfig(**policy)
    assert build(policy=policy).folder != build().folder
    shared = build(policy=policy, evaluation=True).folder == build(evaluation=True).folder
    assert shared != policy.limited


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "test"},
        {"data_digest": "d2"},
        {"tokenizer": train(["other text"], (), TokenizerConfig(vocab_size=280))},
        {"template": "other"},
        {"policy": CHANGES["policy"]},
        {"length": 150},
        {"overflow": "raise"},
        {"evaluation": True},
        {"groups": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_each_argument_reaches_the_key(build, encoded, tokenizer, changes):
    """Caches know their makers: a cache is reused if and only if nothing has changed."""
    changes = dict(changes)
    if changes.keys() & {"tokenizer", "template"}:
        other = changes.pop("tokenizer", tokenizer), changes.pop("template", None)
        changes["template"] = other_template(*other)
    base = build()
    assert len(encoded) == 60
    assert build().folder == base.folder
    assert len(encoded) == 60
    assert build(**changes).folder != base.folder
    assert len(encoded) == 120


def test_code_is_part_of_the_key(build, tmp_path, monkeypatch):
    """A change to any file of the room that encodes, or a new one, gives another key."""
    base = build().folder
    room = tmp_path / "room"
    room.mkdir()
    for name, text in (("a.py", "x = 1"), ("b.py", "y = 1")):
        (room / name).write_text(text)
    monkeypatch.setattr("dlm.dialogue.__path__", [str(room)])
    keys = [build().folder]
    for name, text in (("a.py", "x = 2"), ("b.py", "y = 2"), ("c.py", "")):
        (room / name).write_text(text)
        keys.append(build().folder)
    assert len({base, *keys}) == 5


def test_counts(build, dialogues, template):
    """Dialogues, turns, tokens and learned tokens by channel, counted apart from the cache."""
    pieces = build()
    counts = pieces.counts
    assert counts.dialogues == len(dialogues)
    assert counts.turns == sum(1 + max(turn_of_messages(dialogue)) for dialogue in dialogues)
    assert counts.tokens == pieces.lengths.sum() == len(pieces.arrays["tokens"])
    assert (counts.dropped_turns, counts.rejected, pieces.rejected) == (0, {}, [])
    for channel in ("state", "reply"):
        said = [m for d in dialogues for m in d.messages if m.channel == channel]
        # the channel's token, the content and the terminator
        wanted = sum(len(template.tokenizer.encode(m.content)) + 2 for m in said)
        assert counts.supervised[channel] == wanted
    assert set(counts.supervised) == {"state", "reply"}


def turn(words: int) -> list[Message]:
    return [Message("user", "a " * words), Message("assistant", "yes")]


def test_dropped_turns_and_rejected_dialogues_are_counted(build):
    """Nothing disappears unsaid: dropped turns and rejected dialogues are counted, with reasons."""
    source = [
        Dialogue("short", tuple(turn(3))),
        Dialogue("long", tuple(turn(20) + turn(20) + turn(20) + turn(3))),
        Dialogue("too long", tuple(turn(200))),
        Dialogue("nothing learned", tuple(turn(3)[:1])),
        Dialogue("one turn too long", tuple(turn(3) + turn(200))),
    ]
    pieces = build(source=source, length=60)
    assert pieces.dialogue_index.tolist() == [0, 1, 4]
    kept = {int(t) for t in pieces.piece(1).turn_ids if t >= 0}
    assert 0 < len(kept) < 4
    assert pieces.counts.dropped_turns == (4 - len(kept)) + 1
    assert pieces.counts.turns == 1 + 4 + 1 + 1 + 2
    assert pieces.counts.rejected == {"too long": 1, "nothing to learn": 1}
    assert [(r["dialogue"], r["id"]) for r in pieces.rejected] == [
        (2, "too long"),
        (3, "nothing learned"),
    ]
    assert "60 tokens" in pieces.rejected[0]["reason"]
    assert pieces.counts.summary() == (
        f"5 dialogues, {pieces.counts.dropped_turns} turns dropped; "
        "1 rejected: too long; 1 rejected: nothing to learn"
    )


def test_evaluation_drops_no_turn(build):
    source = [Dialogue("long", tuple(turn(20) + turn(20) + turn(20) + turn(3)))]
    pieces = build(source=source, length=60, evaluation=True)
    assert len(pieces) > 1
    assert pieces.counts.dropped_turns == 0
    assert set(pieces.dialogue_index) == {0}


def test_empty_split(build):
    pieces = build(source=[])
    assert len(pieces) == 0
    assert pieces.counts.dialogues == 0
    assert len(build(source=[]).arrays["tokens"]) == 0


DAMAGES = {
    "missing": lambda folder: (folder / "tokens.npy").unlink(),
    "truncated": lambda folder: os.truncate(folder / "targets.npy", 200),
    "empty": lambda folder: os.truncate(folder / "task_id.npy", 0),
    "no meta": lambda folder: (folder / "meta.json").unlink(),
    "half of meta": lambda folder: os.truncate(folder / "meta.json", 40),
    "other meta": lambda folder: (folder / "meta.json").write_text("{}"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_damaged_cache_is_made_again(build, encoded, capsys, damage):
    """A cache that is not whole is never read: it is encoded again, and a line says so."""
    tokens = np.array(build().arrays["tokens"])
    damage(build().folder)
    capsys.readouterr()
    np.testing.assert_array_equal(build().arrays["tokens"], tokens)
    assert len(encoded) == 120
    said = capsys.readouterr().out
    assert "damaged" in said
    assert "encoding train again" in said
    build()
    assert len(encoded) == 120


def test_user_mistake_leaves_nothing_behind(build, tmp_path):
    source = [Dialogue("long", tuple(turn(30) + turn(30)))]
    with pytest.raises(UserError, match="long"):
        build(source=source, length=40, overflow="raise")
    assert list((tmp_path / "encoded").iterdir()) == []


WRITER = """
import json, sys, time
from dlm.data.store import build_or_load
from dlm.dialogue.builtin_template import BuiltinTemplate
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.schema import from_json
from dlm.dialogue.tokenizer import Tokenizer

class Slow(list):
    def __getitem__(self, index):
        time.sleep(0.01 * len(range(len(self))[index]))  # a slice
        return super().__getitem__(index)

folder = sys.argv[1]
with open(folder + "/dialogues") as file:
    source = Slow(from_json(json.loads(line), "") for line in file)
template = BuiltinTemplate(Tokenizer.load(folder + "/tokenizer"))
print("ready", flush=True)
sys.stdin.readline()
build_or_load(source, template, PolicyConfig(), 160, name="train", data_digest="d1",
              cache_dir=folder)
"""


@pytest.fixture
def start_writer(dialogues, template, tmp_path):
    """Starts processes that encode the dialogues slowly into the cache of this test."""
    template.tokenizer.save(tmp_path / "tokenizer")
    lines = [json.dumps(to_json(dialogue)) for dialogue in dialogues]
    (tmp_path / "dialogues").write_text("\n".join(lines))
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers: list[subprocess.Popen] = []

    def start():
        worker = subprocess.Popen(command, **pipes)
        workers.append(worker)
        assert worker.stdout.readline() == "ready\n"
        return worker

    yield start
    for worker in workers:
        worker.kill()
        worker.communicate()


def test_two_processes_at_once(start_writer, build, encoded, tmp_path):
    """Two processes that write the same cache both end well, and leave one whole cache."""
    workers = [start_writer(), start_writer()]
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    both_wrote = False
    while any(worker.poll() is None for worker in workers):
        both_wrote |= len(list(tmp_path.glob("encoded/.writing-*"))) == 2
        time.sleep(0.005)
    assert both_wrote
    assert [worker.returncode for worker in workers] == [0, 0]
    assert len(list((tmp_path / "encoded").iterdir())) == 1
    pieces = build()
    assert encoded == []
    np.testing.assert_array_equal(
        pieces.arrays["tokens"], build(cache_dir=tmp_path / "other").arrays["tokens"]
    )


def test_kill_while_writing(start_writer, build, dialogues, encoded, tmp_path):
    """A process killed in the middle leaves no cache, and the next one makes it whole."""
    worker = start_writer()
    worker.stdin.write("go\n")
    worker.stdin.flush()
    root = tmp_path / "encoded"
    while not list(root.glob(".writing-*/tokens.npy")):
        assert worker.poll() is None
        time.sleep(0.005)
    worker.kill()
    worker.wait()
    assert [path.name[:9] for path in root.iterdir()] == [".writing-"]
    assert clean(tmp_path / "nowhere") == 0
    pieces = build()
    assert len(pieces) == len(dialogues)
    assert len(encoded) == 60
    np.testing.assert_array_equal(
        pieces.arrays["tokens"], build(cache_dir=tmp_path / "other").arrays["tokens"]
    )
    assert list(root.iterdir()) == [pieces.folder]  # what was left behind is gone


def test_what_another_writes_is_left_alone(start_writer, build, tmp_path):
    """Only folders of processes that are gone are removed."""
    worker = start_writer()
    worker.stdin.write("go\n")
    worker.stdin.flush()
    while not (found := list(tmp_path.glob("encoded/.writing-*/tokens.npy"))):
        time.sleep(0.005)
    build(name="test")
    assert worker.poll() is None
    assert found[0].exists()
    assert worker.wait() == 0


@pytest.mark.parametrize("number", [2, 3])
def test_workers_change_nothing(build, dialogues, monkeypatch, tmp_path, number):
    """Any number of processes gives the same files, bit for bit, rejected dialogues included."""
    source = [replace(dialogue, id=f"{i}") for i, dialogue in enumerate(dialogues * 9)]
    source[300] = Dialogue("nothing learned", tuple(turn(3)[:1]), task="late")
    alone = build(source=source, length=60)
    shared = build(source=source, length=60, cache_dir=tmp_path / "other", workers=number)
    names = sorted(path.name for path in alone.folder.iterdir())
    assert len(names) == 11
    for name in names:
        assert (alone.folder / name).read_bytes() == (shared.folder / name).read_bytes()
    assert alone.counts.rejected["nothing to learn"] == 1


def test_what_a_worker_refuses_is_said(build, tmp_path):
    """A user's mistake in another process is the same one line, and leaves nothing behind."""
    source = [Dialogue(str(i), tuple(turn(3))) for i in range(300)]
    source[299] = Dialogue("long", tuple(turn(30) + turn(30)))
    with pytest.raises(UserError, match=r"dialogue long: .* exceed data.length=40"):
        build(source=source, length=40, overflow="raise", workers=2)
    assert list((tmp_path / "encoded").iterdir()) == []


def test_a_worker_that_dies_is_noticed(build, monkeypatch, tmp_path):
    """A process that ends before its work is done is an error, never a shorter cache."""
    monkeypatch.setattr(processes, "_START", "raise SystemExit(3)")
    with pytest.raises(RuntimeError, match="encodes train ended with status 3"):
        build(source=[Dialogue(str(i), tuple(turn(3))) for i in range(300)], workers=2)
    assert list((tmp_path / "encoded").iterdir()) == []


def test_a_worker_that_dies_before_it_is_told_is_noticed(build, monkeypatch, tmp_path):
    """Likewise; the others end with it."""
    start, started = processes._start, []

    def dead():
        started.append(start())
        if len(started) == 1:
            started[0].kill()
            started[0].wait()
        return started[-1]

    monkeypatch.setattr(processes, "_start", dead)
    with pytest.raises(RuntimeError, match="encodes train ended with status -9"):
        build(source=[Dialogue(str(i), tuple(turn(3))) for i in range(300)], workers=2)
    assert [worker.poll() for worker in started] == [-9, -9]


def test_number_of_workers(monkeypatch):
    """One a core, and one where starting another takes longer than it saves."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(4))
    sizes = (0, 100, 8191, 8192, 10**7)
    assert [workers.num_workers(n) for n in sizes] == [1, 1, 1, 2, 4]


def test_size_and_clean_touch_only_caches(build, tmp_path):
    """`clean` frees what `size` says and leaves other files alone, also beside the caches."""
    folder = build().folder
    (tmp_path / "mine.txt").write_text("x")
    (folder.parent / "notes").mkdir()
    total = sum(path.stat().st_size for path in folder.iterdir())
    assert size(tmp_path) == total
    assert clean(tmp_path) == total
    assert not folder.exists()
    assert (tmp_path / "mine.txt").exists()
    assert (folder.parent / "notes").exists()
    assert (size(tmp_path), clean(tmp_path / "nowhere")) == (0, 0)
