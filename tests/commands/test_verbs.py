"""The verbs on a run of a few seconds: a file of dialogues in; a model, its report, answers out."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import run
from dlm.commands.generate import failure
from dlm.commands.settings import Settings
from dlm.commands.train import remarks
from dlm.corpora import dailydialog
from dlm.data.block import Counts
from dlm.dialogue.readers import read
from dlm.losses.cross_entropy import cross_entropy

CONFIGS = Path(run.__file__).parent / "configs"
QUICKSTART = CONFIGS / "quickstart.py"
COLOURS = ("red", "green", "blue", "black")
STEPS = 160


def dialogue(number: int) -> dict:
    """One of eight dialogues: the model repeats a colour, then says how many it was given."""
    first, second = COLOURS[number % 4], COLOURS[(number + 1 + number // 4) % 4]
    return {
        "id": f"d{number}",
        "task": "colours",
        "messages": [
            {"role": "user", "content": f"I like {first}"},
            {"role": "assistant", "channel": "state", "content": first},
            {"role": "assistant", "content": f"{first} it is"},
            {"role": "user", "content": f"and {second}"},
            {"role": "assistant", "channel": "state", "content": f"{first} {second}"},
            {"role": "assistant", "content": "two colours"},
        ],
    }


def write(path: Path, records: list) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def flags(folder: Path, workdir: str, **changes: object) -> list[str]:
    """The command line of the tiny run, some of its settings changed."""
    config = {
        "data.path": folder / "train.jsonl",
        "data.validation_path": folder / "validation.jsonl",
        "data.cache_dir": folder / "cache",
        "data.length": 64,
        "data.rows": 4,
        "model.num_layers": 2,
        "model.width": 64,
        "model.num_heads": 2,
        "model.max_length": 128,
        "model.dropout": 0.0,
        "tokenizer.vocab_size": 320,
        "optimizer.learning_rate": 0.01,
        "optimizer.warmup": 5,
        "train.epochs": None,
        "train.steps": STEPS,
        "train.eval_every": 80,
        "train.log_every": 10,
        "generate.max_new_tokens": 40,
        **changes,
    }
    words = [f"--config.{name}={value}" for name, value in config.items()]
    return [f"--config={CONFIGS / 'jsonl.py'}", f"--workdir={folder / workdir}", *words]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the files and one finished run, `done`."""
    folder = tmp_path_factory.mktemp("verbs")
    bad = {"messages": [{"role": "wizard", "content": "hm"}]}
    write(folder / "train.jsonl", [*map(dialogue, range(8)), bad])
    write(folder / "validation.jsonl", [dialogue(n) for n in (0, 5)])
    changes = {"data.on_bad_record": "skip"}
    assert run.guarded(["train", *flags(folder, "done", **changes)]) == 0
    return folder


@pytest.fixture
def workdir(folder) -> Path:
    return folder / "done"


def figures(path: Path) -> dict[str, float]:
    return json.loads(path.read_text())


def test_a_run_leaves_all_that_it_promises(workdir):
    names = {path.relative_to(workdir).as_posix() for path in workdir.rglob("*")}
    assert {
        *("config.json", "environment.json", "metrics.jsonl", "summary.json", "report.md"),
        *("report.html", "rejected.jsonl", "plots/learning_curve.png", "tensorboard"),
        *(f"checkpoints/{STEPS}/manifest.json", "predictions/validation.jsonl"),
    } <= names
    environment = figures(workdir / "environment.json")
    assert environment["libraries"]["jax"]
    (rejected,) = map(json.loads, (workdir / "rejected.jsonl").read_text().splitlines())
    assert rejected["where"].endswith("train.jsonl:9")
    assert "wizard" in rejected["problem"]
    assert "bad records" in (workdir / "report.md").read_text()


def test_training_learns_the_dialogues(workdir):
    summary = figures(workdir / "summary.json")
    assert summary["before/validation/response_accuracy"] == 0
    assert summary["validation/loss"] < 0.1 * summary["before/validation/loss"]
    assert summary["validation/response_accuracy"] > 0.7
    assert summary["validation/task:colours/state_accuracy"] > 0.7
    assert summary["validation/exact_match"] == summary["validation/response_accuracy"]


def test_a_finished_run_is_not_trained_again(folder, workdir, capsys):
    before = (workdir / "metrics.jsonl").read_text()
    changes = {"data.on_bad_record": "skip"}
    assert run.guarded(["train", *flags(folder, "done", **changes)]) == 0
    assert f"resuming {workdir} at step {STEPS}" in capsys.readouterr().out
    assert (workdir / "metrics.jsonl").read_text() == before


def test_another_config_in_the_same_workdir_is_refused(folder, capsys):
    changes = {"data.on_bad_record": "skip", "optimizer.learning_rate": 0.5}
    assert run.guarded(["train", *flags(folder, "done", **changes)]) == 2
    message = capsys.readouterr().err
    assert "optimizer.learning_rate was 0.01, now 0.5" in message
    assert message.count("\n") == 1


def test_eval_repeats_the_figures_of_training(workdir, capsys):
    assert run.guarded(["eval", f"--workdir={workdir}"]) == 0
    told = capsys.readouterr().out
    trained, again = figures(workdir / "summary.json"), figures(workdir / "eval" / "summary.json")
    assert {name: value for name, value in trained.items() if "train/" not in name} == again
    assert "validation/channel:state/loss" in told


def test_eval_takes_changes_of_the_config(workdir, tmp_path):
    words = [f"--workdir={workdir}", f"--output={tmp_path}", "--config.eval.splits=('train',)"]
    assert run.guarded(["eval", *words]) == 0
    assert "train/loss" in figures(tmp_path / "summary.json")


def test_eval_keeps_what_was_measured_before_the_training(folder, workdir):
    """The weights that a run began with may be gone: its own figures are taken."""
    changes = {"init": folder / "began", "train.steps": 2, "train.eval_every": None}
    changes |= {"data.on_bad_record": "skip", "optimizer.warmup": 0.0}
    shutil.copytree(workdir, folder / "began")
    assert run.guarded(["train", *flags(folder, "later", **changes)]) == 0
    (folder / "began" / "checkpoints").rename(folder / "gone")
    assert run.guarded(["eval", f"--workdir={folder / 'later'}"]) == 0
    trained, again = (
        figures(folder / "later" / name) for name in ("summary.json", "eval/summary.json")
    )
    assert again["before/validation/loss"] == trained["before/validation/loss"]


def test_eval_says_what_it_scored(workdir, tmp_path):
    """Of `at_most` dialogues; a turn too long for a row is scored nowhere, and said to be so."""
    words = [f"--workdir={workdir}", "--config.eval.splits=('train', 'validation')"]
    changes = ["--config.eval.at_most=3", "--config.data.length=13", "--config.eval.dialogues=0"]
    assert run.guarded(["eval", *words, f"--output={tmp_path / 'few'}", *changes]) == 0
    said = (tmp_path / "few" / "report.md").read_text()
    assert "teacher-forced, the first 3 dialogues of a split" in said
    assert "of train not scored: " in said
    assert "turns too long" in said
    assert run.guarded(["eval", *words, f"--output={tmp_path / 'all'}"]) == 0
    said = (tmp_path / "all" / "report.md").read_text()
    assert "teacher-forced, all dialogues of a split" in said
    assert "not scored" not in said


def test_generate_answers_each_dialogue(workdir, tmp_path):
    records = [dialogue(n) for n in range(3)]
    for record in records:
        del record["messages"][4:]
    source, target = write(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    words = [f"--workdir={workdir}", f"--input={source}", f"--output={target}"]
    assert run.guarded(["generate", *words]) == 0
    answers = list(read(target))
    assert not any(map(failure, answers))
    assert [a.id for a in answers] == ["d0", "d1", "d2"]
    assert all(a.messages[-1].channel == "reply" for a in answers)
    assert all(len(a.messages) > 4 for a in answers)
    assert run.guarded(["generate", *words]) == 2  # nothing is overwritten


def test_generate_wants_a_question(workdir, tmp_path, capsys):
    source = write(tmp_path / "in.jsonl", [dialogue(0)])
    words = [f"--workdir={workdir}", f"--input={source}", f"--output={tmp_path / 'o'}"]
    assert run.guarded(["generate", *words]) == 2
    assert "'d0' must end with a user's message" in capsys.readouterr().err


def test_chat_answers_from_a_pipe(workdir, capsys, monkeypatch):
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("I like red\n/state\n/quit\n"))
    assert run.guarded(["chat", f"--workdir={workdir}"]) == 0
    assert "state: red" in capsys.readouterr().out


def test_data_shows_what_the_model_sees(folder, capsys):
    changes = {"data.on_bad_record": "skip"}
    assert run.guarded(["data", *flags(folder, "shown", **changes), "--rows=1", "--audit"]) == 0
    told = capsys.readouterr().out
    assert "[[<|reply|>" in told
    assert "packing efficiency" in told
    assert (folder / "shown" / "plots" / "lengths.png").stat().st_size > 0
    page = (folder / "shown" / "audit.html").read_text(encoding="utf-8")
    assert "weight 1, channel reply, turn 0, segment 1" in page
    assert not (folder / "shown" / "config.json").exists()


def test_data_shows_the_first_split_of_what_has_no_training(tmp_path, monkeypatch, capsys):
    """Its tokenizer is of that split, too; training is refused by name."""
    for split, names in dailydialog.FILES.items():
        monkeypatch.setitem(dailydialog.COUNTS, split, {"dialogues": 1, "utterances": 2})
        for name, text in zip(
            names, ("Hi . __eou__ Bye . __eou__\n", "1 1\n", "0 0\n"), strict=True
        ):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
    config = {
        "data.options": {"path": str(tmp_path)},
        "data.cache_dir": tmp_path / "cache",
        "tokenizer.vocab_size": 300,
    }
    words = [f"--config={CONFIGS / 'dailydialog.py'}", f"--workdir={tmp_path / 'run'}"]
    words += [f"--config.{name}={value}" for name, value in config.items()]
    assert run.guarded(["data", *words]) == 0
    told = capsys.readouterr().out
    assert "lengths of validation" in told
    assert "[[<|reply|>Bye.<|end|>]]" in told
    assert run.guarded(["train", *words]) == 2
    assert "dailydialog has no split 'train'; it has validation, test" in capsys.readouterr().err


def test_data_lists_all_corpora(tmp_path, monkeypatch, capsys):
    """Task, sizes, licence and citation of each; of absent files where they come from."""
    monkeypatch.setenv("DLM_DATA_DIR", str(tmp_path))
    (tmp_path / "dialog-babi").mkdir()
    assert run.guarded(["data", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: (line, lines[i : i + 4]) for i, line in enumerate(lines)}
    babi, block = rows["babi_dialog"]
    sizes = "train 1,000, validation 1,000, test 1,000, test_oov 1,000"
    assert re.search(rf"task dialogue +{sizes} +there +CC BY 3\.0$", babi)
    assert block[1].startswith("    cite: Antoine Bordes")
    daily, block = rows["xdailydialog"]
    assert re.search(r"train 15,418, validation 1,990, test 1,992 +absent +CC BY-NC-SA", daily)
    assert block[2].startswith("    missing: German")
    assert block[3].startswith(f"    absent: {tmp_path / 'xdailydialog'}; take the folder data")
    assert re.search("yours +none needed$", rows["jsonl"][0])
    assert run.guarded(["data", "--list", "--rows=3"]) == 2


def test_data_shows_what_it_is_asked_for_not_the_run_of_that_name(folder, workdir, capsys):
    kept = (workdir / "tokenizer" / "tokenizer.json").read_bytes()
    changes = {"data.on_bad_record": "skip", "tokenizer.vocab_size": 300}
    told = []
    for words in (flags(folder, "done", **changes), flags(folder, "elsewhere", **changes)):
        assert run.guarded(["data", *words]) == 0
        shown = capsys.readouterr().out
        told.append(shown[shown.index("==== row 0") : shown.index("picture:")])
    assert told[0] == told[1]
    assert (workdir / "tokenizer" / "tokenizer.json").read_bytes() == kept


def test_a_finished_run_takes_other_micro_batches(folder, workdir):
    """What no result depends on, but for rounding, may change from one start to the next."""
    shutil.copytree(workdir, folder / "again")
    changes = {"train.accumulate": 2, "loss.chunk": 7, "model.remat": "layers"}
    words = flags(folder, "again", **{"data.on_bad_record": "skip", **changes})
    assert run.guarded(["train", *words]) == 0


def test_a_run_says_what_was_perhaps_not_meant():
    """Too few updates to learn; calls that nothing will execute."""

    def said(updates: int, calls: int, tools: str) -> list[str]:
        pieces = SimpleNamespace(counts=Counts(supervised={"call": calls, "reply": 9}))
        setup = SimpleNamespace(settings=Settings(tools=tools), loss=cross_entropy)
        batches = SimpleNamespace(pieces=pieces, draws=None)
        return [line.split(":")[0] for line in remarks(setup, batches, updates)]

    assert said(5, 3, "") == ["only 5 updates", "the dialogues hold calls and `tools` is empty"]
    assert said(500, 3, "my_tools") == said(500, 0, "") == []


def test_a_run_starts_from_another(folder, workdir):
    changes = {"init": workdir, "train.steps": 6, "train.eval_every": None}
    changes |= {"data.on_bad_record": "skip", "optimizer.learning_rate": 1e-6}
    assert run.guarded(["train", *flags(folder, "next", **changes)]) == 0
    summary = figures(folder / "next" / "summary.json")
    first = figures(workdir / "summary.json")
    assert summary["before/validation/loss"] == first["validation/loss"]
    assert summary["validation/loss"] == pytest.approx(first["validation/loss"], rel=1e-2)


def test_a_chain_of_runs_keeps_its_tokenizer(folder, workdir):
    """The third run reads the second one's tokenizer, which is the first one's, and no other."""
    quick = {"data.on_bad_record": "skip", "train.steps": 1, "optimizer.warmup": 0.0}
    for name, source in (("second", workdir), ("third", folder / "second")):
        assert run.guarded(["train", *flags(folder, name, init=source, **quick)]) == 0
    first, second, third = (
        (folder / name / "tokenizer" / "tokenizer.json").read_bytes()
        for name in ("done", "second", "third")
    )
    assert first == second == third


def test_a_metric_that_is_not_there_is_refused_before_training(folder, capsys):
    changes = {"data.on_bad_record": "skip", "train.metric": "validation/blue"}
    assert run.guarded(["train", *flags(folder, "metric", **changes)]) == 2
    assert "train.metric='validation/blue' is not evaluated" in capsys.readouterr().err
    assert not (folder / "metric" / "checkpoints").exists()


def test_clean_cache_deletes_the_encoded_tokens_alone(folder, tmp_path, capsys):
    copied = shutil.copytree(folder / "cache", tmp_path / "cache")
    words = [word for word in flags(folder, "x") if "cache_dir" not in word]
    words.append(f"--config.data.cache_dir={copied}")
    assert run.guarded(["data", "--clean-cache", *words]) == 0
    assert "deleted" in capsys.readouterr().out
    assert list((copied / "encoded").iterdir()) == []
    assert any(path.name != "encoded" for path in copied.iterdir())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["eval"], "no config is named"),
        (["eval", "--workdir=nowhere"], "nowhere holds no run"),
        (["train", "--config=nowhere.py"], "nowhere.py cannot be read"),
        (["train", "extra", f"--config={CONFIGS / 'jsonl.py'}"], "train does not know 'extra'"),
        (["train", f"--config={CONFIGS / 'jsonl.py'}"], "data.path is empty"),
        (["train", f"--config={CONFIGS / 'jsonl.py'}", "--config.trian.steps=2"], "'train'"),
        (["train", f"--config={QUICKSTART}", "--config.init=gpt3"], "init='gpt3' is neither"),
        (["train", f"--config={CONFIGS / 'jsonl.py'}", "--config.data.path=no.jsonl"], "no.jsonl"),
    ],
)
def test_mistakes_are_one_line(words, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run.guarded(words) == 2
    message = capsys.readouterr().err
    assert told in message
    assert message.startswith("error: ")
    assert message.count("\n") == 1
