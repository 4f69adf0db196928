from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from dlm.core import config as border
from dlm.core.errors import UserError


@dataclass(frozen=True)
class Optimizer:
    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    decay: tuple[tuple[str, bool], ...] = ((".*", True),)
    clip_norm: float | None = 1.0
    warmup: int | None = None

    def __post_init__(self):
        if self.learning_rate < 0:
            raise ValueError(f"learning_rate={self.learning_rate} must not be negative")


@dataclass(frozen=True)
class Settings:
    seed: int = 0
    tools: str = ""
    pack: bool = True
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(learning_rate=0.5))
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Required:
    path: str
    limit: int = 3


HEADER = """from dlm.core import config as border
from test_config import Settings

"""


@pytest.fixture
def config_file(tmp_path):
    """Writes the body of a config file under its usual header and returns its path."""

    def write(body: str, header: str = HEADER):
        path = tmp_path / "tiny.py"
        path.write_text(header + body)
        return path

    return write


@pytest.fixture
def plain(config_file):
    return config_file(
        "def get_config(seed='3'):\n"
        "    config = border.defaults(Settings)\n"
        "    config.seed = int(seed)\n"
        "    config.args.positive = 'yes'\n"
        "    config.optimizer.clip_norm = None\n"
        "    return config\n"
    )


def parsed(*argv: str) -> Settings:
    config, _, rest = border.load(argv)
    assert rest == []
    return border.parse(Settings, config, "tiny.py")


def test_defaults_parse_to_the_class_itself():
    assert border.parse(Settings, border.defaults(Settings), "x") == Settings()
    assert border.parse(Settings, {}, "x") == Settings()


def test_a_saved_config_gives_the_same_settings():
    """The saved effective config re-runs the same run: JSON turns tuples to lists and back."""
    settings = Settings(optimizer=Optimizer(decay=(("a/.*", False), (".*", True)), warmup=7))
    import json

    again = json.loads(json.dumps(dataclasses.asdict(settings)))
    assert border.parse(Settings, again, "config.json") == settings


def test_a_misspelt_key_fails_on_its_line_of_the_config_file(config_file):
    path = config_file(
        "def get_config():\n"
        "    config = border.defaults(Settings)\n"
        "    config.optimizer.learn_rate = 3\n"
        "    return config\n"
    )
    with pytest.raises(UserError, match=r"tiny.py:6: .*learn_rate.*Did you mean \"learning_rate"):
        border.load([f"--config={path}"])


def test_overrides_apply_in_any_order_by_the_type_of_their_field(plain):
    settings = parsed(
        "--config.optimizer.learning_rate=2",
        f"--config={plain}:5",
        "--config.tools=a=b",
        "--noconfig.pack",
        "--config.optimizer.warmup=4",
        "--config.optimizer.decay=(('a/.*', False),)",
        "--config.optimizer.clip_norm=3",
        "--config.args.other=2",
        "--config.args.positive=no",
        "--config.optimizer.name=sgd",
    )
    optimizer = Optimizer("sgd", 2.0, (("a/.*", False),), 3.0, 4)
    assert settings == Settings(5, "a=b", False, optimizer, {"positive": "no", "other": 2})
    assert type(settings.optimizer.learning_rate) is float


def test_the_last_of_repeated_overrides_counts(plain):
    path = f"--config={plain}"
    assert parsed(path, "--config.seed=7", "--config.seed=9").seed == 9
    warmup = [f"--config.optimizer.warmup={value}" for value in (None, 9, None)]
    assert parsed(path, *warmup[:2]).optimizer.warmup == 9
    assert parsed(path, *warmup).optimizer.warmup is None


def test_the_name_of_a_run_and_the_other_words(plain):
    _, name, rest = border.load(["show", "--config", f"{plain}:5", "--workdir=x"])
    assert (name, rest) == ("tiny-5", ["show", "--workdir=x"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--config.sed=4"], r"unknown key 'sed'; did you mean 'seed'\? \(command line\)"),
        (["--config.optimiser.name=sgd"], r"unknown key 'optimiser'; did you mean 'optimizer'"),
        (
            ["--config.optimizer.learn_rate=3"],
            r"unknown key 'optimizer.learn_rate'; did you mean 'optimizer.learning_rate'",
        ),
        (["--config.seed=a"], r"--config.seed=a: invalid literal for int\(\)"),
        (["--config.seed"], r"--config.seed: Missing value"),
        (["--config.seed.deeper=1"], "seed is a value and has no 'deeper'"),
        (["--config.pack=7"], "--config.pack=7: .*Non-boolean"),
        (["--config.optimizer=3"], "--config.optimizer=3: .*not a dict"),
        (["--config.seed=None"], "seed must be int, got None"),
        (["--config.optimizer.name=adam"], r"optimizer.name must be Literal\['adamw', 'sgd'\]"),
        (["--config.optimizer.decay=(1, 2)"], r"optimizer.decay\[0\] must be tuple\[str, bool\]"),
        (["--config.optimizer.learning_rate=-1"], "optimizer: learning_rate=-1.0 must not be"),
    ],
)
def test_a_mistaken_override_is_named(plain, argv, message):
    """Configuration is locked: unknown keys, wrong types and misspelt overrides all stop."""
    with pytest.raises(UserError, match=message) as error:
        parsed(f"--config={plain}", *argv)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def get_config(:\n", "tiny.py:4: invalid syntax"),
        ("import nothing_such\n", "tiny.py:4: ModuleNotFoundError: No module named"),
        ("def get_config():\n    return 1 / 0\n", "tiny.py:5: ZeroDivisionError: division"),
        ("def get_config():\n    return {}\n", "tiny.py: get_config.. must return a ConfigDict"),
        ("x = 1\n", "tiny.py defines no get_config"),
    ],
)
def test_a_config_file_that_fails_is_named_with_its_line(config_file, body, message):
    with pytest.raises(UserError, match=message) as error:
        border.load([f"--config={config_file(body)}"])
    assert "\n" not in str(error.value)


def test_a_config_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"no config is named; add --config=FILE"):
        border.load(["--workdir=x"])
    with pytest.raises(UserError, match=r"none.py cannot be read: No such file"):
        border.load([f"--config={tmp_path / 'none.py'}"])
    (tmp_path / "latin.py").write_bytes(b"# \xe4")
    with pytest.raises(UserError, match=r"latin.py is not UTF-8 at byte 2"):
        border.load([f"--config={tmp_path / 'latin.py'}"])


def test_a_config_that_takes_no_argument_says_so(config_file):
    path = config_file("def get_config():\n    return border.defaults(Settings)\n")
    with pytest.raises(UserError, match=r"tiny.py: TypeError: get_config\(\) takes 0 positional"):
        border.load([f"--config={path}:task=5"])


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"sede": 1}, r"unknown key 'sede'; did you mean 'seed'\? \(a.json\)"),
        ({"zzzz": 1}, r"unknown key 'zzzz'; known are seed, tools, pack, optimizer, args"),
        ({"optimizer": {"lr": 1.0}}, "unknown key 'optimizer.lr'"),
        ({"optimizer": 3}, "optimizer must be a section, got 3"),
        ({"seed": True}, "seed must be int, got True"),
        ({"seed": 1.0}, "seed must be int, got 1.0"),
        ({"pack": 1}, "pack must be bool, got 1"),
        ({"tools": None}, "tools must be str, got None"),
        ({"args": [1]}, r"args must be collections.abc.Mapping\[str, Any\], got \[1\]"),
        ({"optimizer": {"clip_norm": "a"}}, r"optimizer.clip_norm must be float \| None, got 'a'"),
        ({"optimizer": {"decay": [["a", 1]]}}, r"optimizer.decay\[0\]\[1\] must be bool, got 1"),
        ({"optimizer": {"decay": "ab"}}, "optimizer.decay must be tuple"),
        ({"optimizer": {"decay": [["a"]]}}, r"decay\[0\] must be tuple\[str, bool\], got \['a'\]"),
    ],
)
def test_parse_refuses_what_does_not_fit(mapping, message):
    with pytest.raises(UserError, match=message):
        border.parse(Settings, mapping, "a.json")


def test_a_field_without_a_default_must_be_given():
    with pytest.raises(UserError, match=r"path must be given \(data.options\)"):
        border.parse(Required, {"limit": 4}, "data.options")
    config = border.defaults(Required)
    with pytest.raises(UserError, match="path must be given"):
        border.parse(Required, config, "data.options")
    config.path = "x"
    assert border.parse(Required, config, "data.options") == Required("x", 3)


def test_arguments_of_a_config_file():
    assert border.arguments("", task=5, name="x") == {"task": 5, "name": "x"}
    assert border.arguments("name=a=b,task=2", task=5, name="x") == {"task": 2, "name": "a=b"}
    with pytest.raises(UserError, match=r"unknown key 'taks'; did you mean 'task'\?"):
        border.arguments("taks=2", task=5)
    with pytest.raises(UserError, match="task must be int, got 'two'"):
        border.arguments("task=two", task=5)


def test_a_saved_config_takes_overrides_where_no_file_is_named(config_file):
    saved = border.defaults(Settings)
    saved.update({"seed": 7, "optimizer": {"decay": [["a", True]]}})
    config, name, rest = border.load(["--config.seed=8", "word"], saved=saved)
    settings = border.parse(Settings, config, "config")
    assert (settings.seed, settings.optimizer.decay) == (8, (("a", True),))
    assert (name, rest) == ("", ["word"])
    path = config_file("def get_config():\n    return border.defaults(Settings)\n")
    config, name, _ = border.load([f"--config={path}"], saved=saved)
    assert (config.seed, name) == (0, "tiny")
