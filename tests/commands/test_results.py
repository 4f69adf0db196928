"""The verb `results`: runs listed, filtered, compared, and predictions scored without a model."""

from __future__ import annotations

import json
import os
import re

import pytest
from small_run import DIALOGUE, flags

import run as command_line
from dlm.core.errors import UserError
from dlm.tables import runs
from dlm.tables.comparison import compare

GOLD = DIALOGUE["messages"][1:]
OTHER = [GOLD[0], {"role": "assistant", "channel": "reply", "content": "red"}]
ODD = [{"role": "assistant", "channel": "reply", "content": "r"}, GOLD[0]]  # in no order


def prediction(number: int, right: bool, gold=GOLD, unit: int = 0) -> dict:
    written = GOLD if right else OTHER
    return {"dialogue": f"d{number}", "unit": unit, "gold": gold, "predicted": written}


def write_lines(path, records) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def make_run(folder, *, seed=0, rate=0.1, accuracy=None, right="", commit="0123456789ab"):
    """A workdir as `train` leaves it; `right` says of each dialogue whether its response is."""
    folder.mkdir(parents=True)
    config = {
        "seed": seed,
        "init": "scratch",
        "optimizer": {"learning_rate": rate},
        "loss": {"name": "focal"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    identity = {"identity": f"{seed}-{rate}", "commit": commit}
    (folder / "identity.json").write_text(json.dumps(identity))
    write_lines(
        folder / "metrics.jsonl",
        [{"step": s, "updates": s, "validation/loss": 2.0 / (s + 1)} for s in (0, 10, 20)],
    )
    if accuracy is not None:
        figures = {"test/response_accuracy": accuracy, "test/perplexity": None}
        (folder / "summary.json").write_text(json.dumps(figures))
    if right:
        lines = [prediction(n, mark == "1") for n, mark in enumerate(right)]
        write_lines(folder / "predictions" / "test.jsonl", lines)


@pytest.fixture
def folder(tmp_path):
    """Two rows over the seeds 0, 1, 2, and a run that did not come to its end."""
    rows = {"low": (0.1, (0.69, 0.70, 0.71)), "high": (0.2, (0.70, 0.72, 0.74))}
    written = {"low": ("1100", "1000", "1000"), "high": ("1110", "1010", "0110")}
    for name, (rate, values) in rows.items():
        for seed, value in enumerate(values):
            path, right = tmp_path / "runs" / f"{name}-{seed}", written[name][seed]
            make_run(path, seed=seed, rate=rate, accuracy=value, right=right)
    make_run(tmp_path / "runs" / "stopped", seed=5)
    for name in ("twin-a", "twin-b"):
        make_run(tmp_path / "runs" / name)
    failure = tmp_path / "runs" / "twin-b" / "failure.json"
    failure.write_text(json.dumps({"reason": "error: no memory"}))
    return tmp_path


def results(*words: object) -> int:
    return command_line.main(["results", *map(str, words)])


def test_runs_are_listed_with_state_seed_figures_and_commit(folder, capsys):
    assert results(f"--workdir={folder}") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["run", "state", "seed", "test/response_accuracy", "commit"]
    assert ["high-1", "done", "1", "0.7200", "01234567"] in lines
    assert ["stopped", "unfinished", "5", "01234567"] in lines
    assert ["twin-b", "failed:", "no", "memory", "0", "01234567"] in lines
    assert len(lines) == 2 + 9


def test_conditions_filter_on_the_config(folder, capsys):
    results(f"--workdir={folder}", "--where=optimizer.learning_rate=0.2", "--where", "seed=1")
    out = capsys.readouterr().out
    assert re.findall(r"(?:low|high)-\d", out) == ["high-1"]
    with pytest.raises(UserError, match=r"did you mean 'optimizer.learning_rate'"):
        results(f"--workdir={folder}", "--where=optimizer.learning_rat=0.2")
    with pytest.raises(UserError, match="write key=value"):
        results(f"--workdir={folder}", "--where=seed")


def test_two_runs_are_shown_side_by_side(folder, capsys):
    results(f"--workdir={folder}", "--compare=low-0,high-0")
    out = capsys.readouterr().out
    assert re.search(r"optimizer.learning_rate +0\.1 +0\.2\n", out)
    assert "loss.name" not in out
    assert re.search(r"test/response_accuracy +0\.69 +0\.7 +−0\.01 +– +–\n", out)
    assert "perplexity" not in out  # it is no number on either side
    # 1100 beside 1110: two right on both sides, one on the second alone, one on neither
    for what, count in (("both", 2), ("only low-0", 0), ("only high-0", 1)):
        assert re.search(rf"  {what} +{count}\n", out)
    assert re.search(r"p, McNemar over responses +1\n", out)
    assert "where one alone is right, 1 responses" in out
    assert re.search(
        r"  d2 +0 +0 +\[act\] choose / \[reply\] blue +\[act\] choose / \[reply\] red", out
    )


def test_rows_are_paired_by_seed(folder):
    """Differences 0.01, 0.02, 0.03: mean 0.02, s 0.01, t interval 0.02 +- 4.302653 s / sqrt(3)."""
    found = runs.find(folder)
    configs, figures, counts, difference, _ = compare(*runs.two_sides(found, "high,low"))
    assert configs.header == ("key", "high-", "low-")
    assert configs.rows == (("optimizer.learning_rate", "0.2", "0.1"),)
    (row,) = figures.rows
    assert row == (
        *("test/response_accuracy", "0.72", "0.7", "+0.02", "−0.004841 to +0.04484", "0.0742"),
    )
    # high 1110 1010 0110, low 1100 1000 1000
    assert dict(counts.rows) == {
        **{"both": "3", "only high-": "4", "only low-": "1", "neither": "4"},
    }
    assert difference.rows[0] == ("difference of shares", "+0.2500")  # (7 - 4) / 12
    assert difference.rows[1][0].startswith("95 % interval, bootstrap over dialogues and seeds")


def test_swapping_the_sides_swaps_the_sign(folder):
    found = runs.find(folder)
    one = compare(*runs.two_sides(found, "high,low"))[1].rows[0]
    other = compare(*runs.two_sides(found, "low,high"))[1].rows[0]
    assert (one[3], other[3]) == ("+0.02", "−0.02")
    assert one[5] == other[5]


def test_responses_to_other_gold_are_not_compared(folder):
    path = folder / "runs/low-0/predictions/test.jsonl"
    write_lines(path, [prediction(0, True, gold=OTHER)])
    grids = compare(*runs.two_sides(runs.find(folder), "high-0,low-0"))
    assert grids[-1].rows == (("not compared", "the corpora differ at dialogue d0"),)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compare=low-0,none"], "there are high-0, high-1"),
        (["--compare=low-0"], "write RUN,RUN"),
        (["--compare=low,twin"], "twin-a and twin-b have the same seed 0"),
        (["--compare=low,stopped"], "share no seed"),
        (["--wher=a"], "results does not know '--wher=a'"),
    ],
)
def test_what_cannot_be_compared_is_refused(folder, words, message):
    with pytest.raises(UserError, match=message):
        results(f"--workdir={folder}", *words)


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        results(f"--workdir={tmp_path}")
    with pytest.raises(UserError, match="needs --workdir"):
        results()


def test_the_report_is_one_file_with_curves_and_links(folder, capsys):
    target = folder / "out" / "runs.html"
    results(f"--workdir={folder}", f"--html={target}", "--compare=low-0,high-0")
    page = target.read_text(encoding="utf-8")
    assert page.count("<table") == 6  # the list, and the five of the comparison
    assert 'href="../runs/high-1"' in page
    assert page.count("data:image/png;base64,") == 1
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", page)
    assert f"report: {target}" in capsys.readouterr().out


def rescored(tmp_path, lines, *words) -> int:
    (tmp_path / "data").mkdir(exist_ok=True)
    config = [w for w in flags(tmp_path / "data") if "--workdir" not in w]
    path = tmp_path / "validation.jsonl"
    write_lines(path, lines)
    return results(f"--rescore={path}", f"--workdir={tmp_path / 'run'}", *config, *words)


def test_predictions_are_scored_without_a_model(tmp_path, capsys):
    """Three of four responses are right; the gold is the corpus's, a file need not hold it."""
    lines = [prediction(number, number != 2) for number in range(4)]
    del lines[0]["gold"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text('{"validation/exact_match": 0.75}')
    assert rescored(tmp_path, lines) == 0
    out = capsys.readouterr().out
    assert "4 dialogues of validation, 4 responses" in out
    assert re.search(r"validation/exact_match +0\.750000  the run's own 0\.750000\n", out)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.slow
def test_a_run_is_scored_again_to_the_same_figures(tmp_path, capsys):
    """C55: what a run printed of its responses is recomputed from what it stored."""
    words = flags(tmp_path, **{"eval.splits": "('validation',)"})
    assert command_line.main(["train", *words]) == 0
    capsys.readouterr()
    stored = tmp_path / "run" / "predictions" / "validation.jsonl"
    assert results(f"--rescore={stored}", f"--workdir={tmp_path / 'run'}") == 0
    out = capsys.readouterr().out
    found = re.findall(r"^(validation/\S+) +(\S+)  the run's own (\S+)$", out, re.M)
    assert {"validation/exact_match", "validation/bleu"} <= {name for name, *_ in found}
    assert all(again == own for _, again, own in found)
    figures = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert all(float(own) == pytest.approx(figures[name], abs=1e-6) for name, _, own in found)


def test_what_was_written_in_no_order_is_scored_as_wrong(tmp_path, capsys):
    lines = [prediction(0, True), {"dialogue": "d1", "unit": 0, "predicted": ODD}]
    assert rescored(tmp_path, lines) == 0
    assert re.search(r"validation/exact_match +0\.500000\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (prediction(99, True), "dialogue 'd99' is not in the split 'validation'"),
        (prediction(0, True, gold=OTHER), "response 0: its gold is not the corpus's"),
        (prediction(0, True, unit=1), "has 1 responses and none 1"),
        (prediction(1, True), "give every response of a dialogue once"),
        ({"dialogue": "d0", "unit": 0}, r"validation.jsonl:2: predicted: expected"),
        ({"dialogue": "d0", "unit": "0", "predicted": []}, r"validation.jsonl:2: unit: expected"),
        ([], "expected an object"),
    ],
)
def test_predictions_of_other_data_are_refused(tmp_path, line, message):
    with pytest.raises(UserError, match=message):
        rescored(tmp_path, [prediction(1, True), line])


@pytest.fixture
def target(tmp_path_factory):
    return tmp_path_factory.mktemp("beside") / "kept"


def test_finished_runs_are_kept_without_their_weights(folder, target, monkeypatch, capsys):
    """What is kept lists and compares as before, its times too; the table lies above it."""
    run = folder / "runs" / "low-0"
    write_lines(run / "checkpoints" / "1" / "config.json", [{}])
    read = ("environment.json", "signatures.json", "model.json", "tokenizer/tokenizer.json")
    for path in (folder / "plots", run / "tokenizer"):
        path.mkdir()
    for path in (*(run / name for name in read), folder / "table.md", folder / "plots" / "a.png"):
        path.write_text("{}")
    (folder / "notes.txt").write_text("not a table's")
    os.utime(run / "summary.json", (1, 1))
    monkeypatch.chdir(folder)
    assert results("--workdir=.", "--compare=low,high", f"--keep={target}") == 0
    *before, told = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"kept: \d+ files, 0\.0 MB, in {target}", told)
    assert {path.name for path in target.iterdir()} == {"runs", "table.md", "plots"}
    files = {str(p.relative_to(target / "runs/low-0")) for p in target.rglob("low-0/**/*.json*")}
    assert files == {
        *("config.json", "identity.json", "summary.json", "metrics.jsonl"),
        *("predictions/test.jsonl", *read),
    }
    assert (target / "runs/low-0/summary.json").stat().st_mtime == 1
    assert len(list((target / "runs").iterdir())) == 6  # neither stopped nor failed
    assert results(f"--workdir={target}", "--compare=low,high") == 0
    assert capsys.readouterr().out.splitlines() == before


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (".", "lie one in the other"),
        ("runs/kept", "lie one in the other"),
        ("..", "lie one in the other"),
        ("../a.file", "is a file; name a folder"),
    ],
)
def test_where_nothing_can_be_kept(folder, target, message):
    (folder.parent / "a.file").write_text("")
    with pytest.raises(UserError, match=message):
        results(f"--workdir={folder}", f"--keep={folder / target}")


def test_only_what_is_finished_is_kept(folder, target):
    with pytest.raises(UserError, match="holds no finished run to keep"):
        results(f"--workdir={folder / 'runs' / 'stopped'}", f"--keep={target}")
    assert not target.exists()


def test_tables_are_collected_into_one_file(tmp_path, capsys):
    for name in ("b", "a"):
        (tmp_path / "results" / name).mkdir(parents=True)
        text = f"# Table {name}\n\n![Bars](plots/bars.png)\n\n## Below\n"
        (tmp_path / "results" / name / "table.md").write_text(text)
    target = tmp_path / "RESULTS.md"
    assert results(f"--collect={tmp_path / 'results'}", f"--output={target}") == 0
    text = target.read_text()
    assert re.findall(r"^#.*", text, re.M) == [
        *("# Results", "## Table a", "### Below", "## Table b", "### Below"),
    ]
    assert "![Bars](results/a/plots/bars.png)" in text
    with pytest.raises(UserError, match="--output"):
        results(f"--collect={tmp_path}")
    with pytest.raises(UserError, match=r"no folder with a table\.md"):
        results(f"--collect={tmp_path / 'run'}", f"--output={target}")
