from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

from dlm.data.audit import counts_table, histogram, paint, plot_lengths, show_batch
from dlm.data.pipeline import Batches
from dlm.dialogue.encoding import encode
from dlm.dialogue.policy import PolicyConfig
from dlm.dialogue.schema import Dialogue, Message

TALK = Dialogue(
    "t",
    (
        Message("system", "a\ntable"),
        Message("user", "two [[please]] 東京"),
        Message("assistant", "for two", "state"),
        Message("assistant", "yes <|end|>", weight=0.5),
    ),
)


def painted(template, **options) -> str:
    piece = encode(TALK, template, PolicyConfig())
    ids = [piece.tokens[0], *piece.targets]
    return paint(ids, [0.0, *piece.loss_weights], template.tokenizer, **options)


def test_learned_tokens_are_marked(template):
    """A person sees exactly what is learned: channel token, content and terminator, its weight."""
    assert painted(template).split("\n") == [
        "<|system|>a\\ntable<|end|>",
        "<|user|>two [[please]] 東京<|end|>",
        "<|assistant|>[[<|state|>for two<|end|>]]",
        "<|assistant|>[[<|reply|>yes <|end|><|end|>]]*0.5",
    ]


def test_a_terminal_gets_colours(template):
    plain = re.sub(r"\x1b\[[0-9;]*m", "", painted(template, ansi=True))
    assert plain.split("\n")[2] == "<|assistant|><|state|>for two<|end|>"
    assert painted(template, ansi=True).count("\x1b[0m") == 2


def test_text_cannot_move_the_cursor(tokenizer):
    """Control characters in a dialogue are escaped, on a terminal too."""
    ids = tokenizer.encode("red\x1b[31m\r\x07")
    assert paint(ids, [0.0] * len(ids), tokenizer) == "red\\x1b[31m\\r\\x07"


def test_batch_shows_its_segments(pieces, tokenizer):
    """Every segment of a batch is there with its dialogue and its number of learned tokens."""
    batches = Batches(pieces, 4, 160)
    batch = batches.batch(0)
    text = show_batch(batch, tokenizer, task_names=pieces.task_names)
    shown = re.findall(r"---- segment (\d+): dialogue (\d+), task (\w+): (\d+) tokens, (\d+)", text)
    members = [(s + 1, p) for row in batches.row_pieces(0) for s, p in enumerate(row)]
    assert len(shown) == len(members)
    for (segment, dialogue, task, tokens, learned), (wanted, index) in zip(
        shown, members, strict=True
    ):
        assert int(segment) == wanted
        assert int(dialogue) == pieces.dialogue_index[index]
        assert task == pieces.task_names[pieces.task_id[index]]
        assert int(tokens) == pieces.lengths[index]
        assert int(learned) == (pieces.piece(index).loss_weights > 0).sum()
    assert text.count("==== row") == 4


def test_rows_of_padding_are_not_shown(pieces, tokenizer):
    batches = Batches(pieces, 4, 160)
    last = batches.num_steps() - 1
    filled = sum(bool(row) for row in batches.row_pieces(last))
    text = show_batch(batches.batch(last), tokenizer, task_names=pieces.task_names)
    assert text.count("==== row") == filled < 4


def test_counts_table(build):
    """The figures of the table are those of the pieces, side by side by split."""
    train, test = build(), build(source=[TALK], name="test")
    table = counts_table({"train": train, "test": test}, 160)
    head, *lines = table.split("\n")
    assert head.split() == ["train", "test"]
    rows = {re.split(r"\s{2,}", line.strip())[0]: line.split()[-2:] for line in lines}
    assert rows["dialogues"] == ["60", "1"]
    assert rows["tokens read"] == [f"{train.counts.tokens:,}", str(test.counts.tokens)]
    learned = sum(train.counts.supervised.values())
    assert rows["tokens learned"][0] == f"{learned:,}"
    assert rows["share learned"][0] == f"{learned / train.counts.tokens:.1%}"
    assert rows["rows of 160"][1] == "1"
    assert rows["packing efficiency"][1] == f"{test.counts.tokens / 160:.1%}"
    assert rows["turns dropped"] == ["0", "0"]
    assert rows["of them state"][0] == f"{train.counts.supervised['state'] / learned:.1%}"


def test_table_says_why_dialogues_are_rejected(build):
    silent = Dialogue("silent", (Message("user", "a"),))
    table = counts_table({"train": build(source=[TALK, silent])}, 160)
    assert re.search(r"dialogues rejected +1\n +nothing to learn +1$", table)


def test_empty_split_has_a_table(build):
    empty = build(source=[])
    table = counts_table({"train": empty}, 160)
    assert re.search(r"share learned +-\n", table)
    assert re.search(r"packing efficiency +0.0%\n", table)
    assert "0 " in histogram(empty.lengths, 160)


def test_histogram():
    """Every length is in the bar of its range, 1 and T included."""
    text = histogram(np.array([1, 16, 16, 17, 32]), 32)
    lines = [line.split() for line in text.split("\n")]
    assert [line[0] for line in lines][:2] == ["1-2", "3-4"]
    assert lines[-1][0] == "31-32"
    assert [int(line[1]) for line in lines] == [1, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 1]
    assert [len(line[2]) for line in lines if len(line) > 2] == [25, 50, 25, 25]
    assert histogram(np.repeat([1, 2], [330, 1]), 2) == f"1-1 330 {'#' * 50}\n2-2   1 #"


def test_plot(pieces, tmp_path):
    path = tmp_path / "plots" / "lengths.png"
    plot_lengths({"train": pieces}, 160, path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("module", ["dlm.data.pipeline", "dlm.data.audit"])
def test_nothing_heavy_is_imported(module):
    """Grain and matplotlib are loaded when they are used, not before."""
    heavy = "{'grain', 'matplotlib', 'jax', 'tensorflow'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
