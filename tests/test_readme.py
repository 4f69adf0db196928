"""What the README shows works as it stands there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import run
from dlm.commands.settings import Settings
from dlm.core import config as border
from dlm.losses.check import check_token_loss

ROOT = Path(run.__file__).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
IN_PYTHON, CONFIG, LOSS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
(RECORD,) = re.findall(r"```json\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = re.findall(r"^    (?:\$ )?python run\.py(.*)$", README, flags=re.MULTILINE)

TINY = [
    *("--config.model.num_layers=1", "--config.model.width=32", "--config.model.num_heads=2"),
    *("--config.data.length=256", "--config.data.rows=2", "--config.train.epochs=2.0"),
    *("--config.tokenizer.vocab_size=300", "--config.generate.max_new_tokens=8"),
]


def test_ten_lines_of_python(tmp_path, monkeypatch, capsys):
    """The README's dialogue is data, and the ten lines load, encode, train and answer."""
    record = json.loads(RECORD)
    question = {"messages": record["messages"][:2]}
    many = [{**record, "id": str(n), "note": n} for n in range(12)]
    (tmp_path / "my.jsonl").write_text("".join(json.dumps(r) + "\n" for r in many))
    (tmp_path / "questions.jsonl").write_text(json.dumps(question) + "\n")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    changes = [*TINY, f"--config.data.cache_dir={tmp_path / 'cache'}"]
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


def test_the_loss_has_its_gradient():
    names: dict = {}
    exec(LOSS, names)
    check_token_loss(names["confidence_penalty"], beta=0.2)


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
