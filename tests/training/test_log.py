from __future__ import annotations

import json

import numpy as np
import pytest

from dlm.core.errors import UserError
from dlm.training.log import MetricsLog, read_metrics


def run(workdir, start, stop, *, restored=None, every=10):
    with MetricsLog(workdir, restored=restored) as log:
        for step in range(start, stop, every):
            log.write(step, {"updates": step, "train/loss": 1 / step})


def events(workdir):
    """The (step, tag, value) triples of all event files, as TensorBoard would keep them."""
    from tensorboardX.proto.event_pb2 import Event

    kept = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + size])
            data = data[12 + size + 4 :]
            if event.HasField("session_log"):
                kept = [row for row in kept if row[0] < event.step]
            kept += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    return kept


def test_a_line_is_a_step_and_its_figures(tmp_path):
    run(tmp_path, 10, 31)
    MetricsLog(tmp_path, restored=30).close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {"step": 20, "updates": 20, "train/loss": 0.05}
    assert [next(iter(json.loads(line))) for line in lines] == ["step"] * 3
    assert (20, "train/loss", pytest.approx(0.05)) in events(tmp_path)


def test_a_run_that_was_stopped_has_the_log_of_one_that_was_not(tmp_path):
    """Resume is bitwise in the log: lines after the restored step are written once."""
    run(tmp_path / "whole", 10, 91)
    run(tmp_path / "parts", 10, 61)
    run(tmp_path / "parts", 50, 91, restored=45)
    whole, parts = (tmp_path / name / "metrics.jsonl" for name in ("whole", "parts"))
    assert parts.read_bytes() == whole.read_bytes()
    assert events(tmp_path / "parts") == events(tmp_path / "whole")


def test_the_restored_step_itself_is_kept(tmp_path):
    run(tmp_path, 10, 61)
    run(tmp_path, 60, 71, restored=50)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == list(
        range(10, 71, 10)
    )


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path):
    run(tmp_path, 10, 31)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert [row["step"] for row in read_metrics(path)] == [10, 20]
    run(tmp_path, 30, 41, restored=30)
    assert [row["step"] for row in read_metrics(path)] == [10, 20, 30, 40]


def test_a_run_begun_anew_has_a_new_log(tmp_path):
    run(tmp_path, 10, 61)
    run(tmp_path, 10, 21)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [10, 20]
    assert {step for step, _, _ in events(tmp_path)} == {10, 20}


@pytest.mark.parametrize("line", [b"{", b"[1]", b'{"loss": 1}', b'{"step": "a"}', b"\xff"])
def test_a_line_that_is_not_ours_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b"\n")
    with pytest.raises(UserError, match=r"metrics.jsonl:2: not a JSON object with a step"):
        MetricsLog(tmp_path, restored=5)
    with pytest.raises(UserError, match=r"none: cannot be read"):
        read_metrics(tmp_path / "none")


def test_what_json_does_not_have_is_null(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, {"train/loss": float("nan"), "train/norm": float("inf")})
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows == [{"step": 1, "train/loss": None, "train/norm": None}]


@pytest.mark.parametrize("value", [np.float32(1.0), np.zeros(()), "1", True, None])
def test_only_plain_numbers_are_taken(tmp_path, value):
    with MetricsLog(tmp_path) as log, pytest.raises(TypeError, match="train/loss must be a plain"):
        log.write(1, {"train/loss": value})
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_tags_keep_the_names_of_the_metrics(tmp_path, caplog):
    name = "validation/task:book a table/channel:reply/loss"
    with MetricsLog(tmp_path) as log:
        log.write(1, {name: 1.0})
    assert caplog.text == ""
    assert [tag for _, tag, _ in events(tmp_path)] == [name]
