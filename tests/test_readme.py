"""What the README shows works as it stands there."""

from __future__ import annotations

import json
import re
import shlex
import sys
from itertools import product
from pathlib import Path

import pytest

import run
from dlm.commands.settings import Settings
from dlm.core import config as border
from dlm.tables.spec import load
from dlm.training.log import METRICS_FILE, read_metrics

ROOT = Path(run.__file__).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
IN_PYTHON, CONFIG, LOSS, CHECK, COMPARE, ABLATION = re.findall(
    r"```python\n(.*?)```", README, flags=re.DOTALL
)
(RECORD,) = re.findall(r"```json\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = re.findall(r"^    (?:\$ )?python run\.py(.*)$", README, flags=re.MULTILINE)

TINY = [
    *("--config.model.num_layers=1", "--config.model.width=32", "--config.model.num_heads=2"),
    *("--config.data.length=256", "--config.data.rows=2", "--config.train.epochs=2.0"),
    *("--config.tokenizer.vocab_size=300", "--config.generate.max_new_tokens=8"),
]


def test_ten_lines_of_python(in_folder, capsys):
    """The README's dialogue is data, and the ten lines load, encode, train and answer."""
    question = {"messages": json.loads(RECORD)["messages"][:2]}
    (in_folder / "questions.jsonl").write_text(json.dumps(question) + "\n")
    changes = [*TINY, f"--config.data.cache_dir={in_folder / 'cache'}"]
    mine = '"--config.data.path=my.jsonl"'
    assert IN_PYTHON.count(mine) == 1
    names: dict = {}
    exec(IN_PYTHON.replace(mine, ", ".join([mine, *map(repr, changes)])), names)
    assert names["dialogue"].task == "booking"
    assert len(names["encoded"].tokens) > 50
    assert names["figures"]["validation/loss"] < names["figures"]["before/validation/loss"]
    assert names["answered"].messages[-1].channel == "reply"
    assert capsys.readouterr().out.endswith(names["answered"].messages[-1].content + "\n")


def test_the_config_is_one():
    names: dict = {}
    exec(CONFIG, names)
    settings = border.parse(Settings, names["get_config"](), "README")
    assert settings.init == "gpt2"
    assert settings.train.trainable[0] == (r"layers/[0-5]/.*", False)


def tutorial(name: str) -> list[str]:
    """The words after `python run.py` of the commands of a section."""
    section = README.partition(f"## {name}\n")[2].partition("\n## ")[0]
    shown = section.replace("\\\n", " ")
    return re.findall(r"^    python run\.py (.*)$", shown, flags=re.MULTILINE)


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """The folder of one who follows the README, with `my.jsonl` and `my_losses.py`."""
    record = json.loads(RECORD)
    first, *others = record["messages"]
    with (tmp_path / "my.jsonl").open("w") as file:
        for n in range(12):  # others in what they say: the same dialogue falls on one side
            said = [{**first, "content": f"{first['content']} Call me {n}."}, *others]
            file.write(json.dumps({**record, "id": str(n), "messages": said}) + "\n")
    (tmp_path / "my_losses.py").write_text(LOSS)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_losses", None)


def test_the_loss_has_its_gradient(in_folder):
    exec(CHECK, {})


@pytest.mark.slow
def test_the_loss_is_compared_with_the_baseline(in_folder, capsys):
    """In 40 lines of the user's, commands included."""
    commands = tutorial("Add a loss")
    lines = [line for text in (LOSS, CHECK, COMPARE, *commands) for line in text.splitlines()]
    assert len([line for line in lines if line.strip()]) <= 40
    more = [f"--config.data.cache_dir={in_folder / 'cache'}", "--config.eval.dialogues=0"]
    for command in commands:
        assert run.guarded([*shlex.split(command), *TINY, *more]) == 0
    capsys.readouterr()
    exec(COMPARE, {})
    plain, sure = (line.split() for line in capsys.readouterr().out.splitlines())
    assert (plain[0], sure[0]) == ("plain", "sure")
    assert float(plain[1]) != float(sure[1])
    figures = [
        read_metrics(in_folder / "runs" / name / METRICS_FILE)[0] for name in ("plain", "sure")
    ]
    assert figures[0] == figures[1]  # before the first update they are one model


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("logits[:2, 0]", r"loss 'mine' returned shape \[2\] for"),
        ("logits[:, 0].astype('bfloat16')", "loss 'mine' returned bfloat16; compute it in at"),
        ("logits[:, 0] / 0", "step 1: the loss my_losses:mine is not finite"),
    ],
)
@pytest.mark.slow
def test_a_loss_of_ones_own_that_is_wrong_is_told_by_name(in_folder, capsys, body, told):
    (in_folder / "my_losses.py").write_text(f"def mine(logits, targets, aux):\n    return {body}\n")
    words = [
        "--config=configs/jsonl.py",
        "--config.data.path=my.jsonl",
        "--config.loss.name=my_losses:mine",
    ]
    more = [f"--config.data.cache_dir={in_folder / 'cache'}", "--config.eval.dialogues=0"]
    assert run.guarded(["train", *words, *TINY, *more]) == 2
    error = capsys.readouterr().err
    assert re.search(told, error)
    assert error.count("\n") == 1


def test_the_ablation_is_a_table(in_folder):
    """Each row and seed of the file is a run that could start."""
    (in_folder / "smoothing.py").write_text(ABLATION)
    table = load(in_folder / "smoothing.py")
    assert [row.name for row in table.variants] == ["cross-entropy", "smoothed"]
    for task, row in product(table.tasks, table.variants):
        changes = {**task.overrides, **row.overrides, **table.quick}
        flags = [f"--config.{name}={value}" for name, value in changes.items()]
        config, _, rest = border.load([f"--config={task.config}", *flags])
        settings = border.parse(Settings, config, row.name)
        assert (settings.train.steps, rest) == (30, [])
    assert settings.loss.name == "label_smoothing"


def test_commands_are_verbs():
    verbs = run.documentation()
    named = {words[0] for words in map(str.split, COMMANDS) if words}
    assert {"train", "eval", "chat", "generate", "data"} <= named
    assert named <= verbs.keys()
    for flag in re.findall(r"--(?!config|workdir|help)([a-z-]+)=", "\n".join(COMMANDS)):
        assert any(f"--{flag}" in text for text in verbs.values())


def test_the_files_it_names_are_there():
    for path in re.findall(r"(?:dlm|configs|experiments|docs)/[\w/]+\.\w+", README):
        assert (ROOT / path).exists(), path
