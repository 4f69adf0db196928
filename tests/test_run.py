from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import run
from dlm.core.errors import UserError

ROOT = Path(run.__file__).parent

AS_PROGRAM = """
import os, runpy, sys
name, home, mine = "JAX_COMPILATION_CACHE_DIR", *sys.argv[1:]
os.environ.pop(name, None)
os.environ.update({"HOME": home, **({name: mine} if mine else {})})
sys.argv = ["run.py", "--help"]
try:
    runpy.run_path("run.py", run_name="__main__")
finally:
    print(os.environ[name])
"""
ECHO = '''"""Says what it was given.

    python run.py echo WORDS
"""


def run(argv):
    print("echo", argv)
    return 7
'''


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A folder of verbs of the test's own in the place of dlm/commands."""
    import dlm.commands

    monkeypatch.setattr(run, "COMMANDS", tmp_path)
    monkeypatch.setattr(dlm.commands, "__path__", [str(tmp_path)])

    def add(verb: str, text: str) -> None:
        (tmp_path / f"{verb}.py").write_text(text)
        monkeypatch.delitem(sys.modules, f"dlm.commands.{verb}", raising=False)

    add("echo", ECHO)
    add("quickstart", ECHO.replace("echo", "quickstart"))
    add("settings", '"""Not a verb."""\n')
    yield add
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(f"dlm.commands.{path.stem}", None)


@pytest.mark.parametrize(
    ("argv", "printed"),
    [
        (["echo", "a", "--b=c"], "echo ['a', '--b=c']\n"),
        ([], "quickstart []\n"),
        (["--workdir=x"], "quickstart ['--workdir=x']\n"),
    ],
)
def test_the_verb_is_picked_and_its_status_returned(commands, capsys, argv, printed):
    assert run.guarded(argv) == 7
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        ("ecko", "error: unknown verb 'ecko'; did you mean 'echo'? (python run.py --help)\n"),
        ("xyz", "error: unknown verb 'xyz'; there are: echo, quickstart (python run.py --help)\n"),
        ("settings", "error: unknown verb 'settings'; there are: echo, quickstart "
                     "(python run.py --help)\n"),
    ],
)  # fmt: skip
def test_an_unknown_verb_is_one_line_with_the_nearest_name(commands, capsys, verb, message):
    assert run.guarded([verb]) == 2
    assert capsys.readouterr().err == message


def test_help_lists_every_verb_and_each_explains_itself(commands, capsys):
    assert run.guarded(["--help"]) == 0
    overview = capsys.readouterr().out
    assert "  echo        Says what it was given.\n" in overview
    assert "settings" not in overview
    assert run.guarded(["echo", "a", "--help"]) == 0
    assert "python run.py echo WORDS" in capsys.readouterr().out


RAISES = '"""Raises."""\nfrom dlm.core.errors import UserError\ndef run(argv):\n    raise {}\n'


KILLS_ITSELF = '''"""Waits."""
import os, signal, time
def run(argv):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(9)
'''


@pytest.mark.parametrize(
    ("raised", "status", "error"),
    [
        ("UserError('a.jsonl:3: no role; add one')", 2, "error: a.jsonl:3: no role; add one\n"),
        ("KeyboardInterrupt", 130, "interrupted\n"),
        ("KeyboardInterrupt('saved at step 5')", 130, "saved at step 5\n"),
        (
            "OSError(28, 'No space left on device', 'runs/a/metrics.jsonl')",
            2,
            "error: runs/a/metrics.jsonl: No space left on device; make room, or name a folder "
            "that can be written; what was saved before is whole\n",
        ),
    ],
)
def test_mistakes_and_interrupts_have_no_traceback(commands, capsys, raised, status, error):
    commands("fail", RAISES.format(raised))
    assert run.guarded(["fail"]) == status
    assert capsys.readouterr().err == error


def test_a_termination_is_an_interrupt_whatever_the_verb_does(commands, capsys):
    """As a cluster sends it before it takes a machine back: the status says, start me again."""
    kept = signal.getsignal(signal.SIGTERM)
    commands("wait", KILLS_ITSELF)
    assert run.guarded(["wait"]) == 130
    assert signal.getsignal(signal.SIGTERM) is kept
    assert capsys.readouterr().err == "interrupted\n"


def test_our_own_mistakes_keep_their_traceback(commands, capsys):
    commands("fail", RAISES.format("ZeroDivisionError('ours')"))
    assert run.guarded(["fail"]) == 1
    assert "Traceback" in (err := capsys.readouterr().err)
    assert "ZeroDivisionError: ours" in err


def test_main_lets_mistakes_through(commands):
    with pytest.raises(UserError, match="unknown verb"):
        run.main(["nothing"])


def test_compiled_programs_are_kept_for_the_next_run(tmp_path):
    """In the user's cache folder, where the user names no other; JAX reads the variable."""
    for mine, folder in ("", f"{tmp_path}/.cache/dlm/compiled"), ("mine", "mine"):
        command = [sys.executable, "-c", AS_PROGRAM, str(tmp_path), mine]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == folder


def test_help_and_mistakes_load_no_heavy_library():
    """Start-up stays short: neither help nor a misspelt verb imports JAX."""
    code = (
        "import sys, run\n"
        "print(run.guarded(['--help']), run.guarded(['no such verb']))\n"
        "print([name for name in ('jax', 'numpy', 'transformers') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-2:] == ["0 2", "[]"]


def test_every_verb_explains_itself():
    for verb, text in run.documentation().items():
        assert f"run.py {verb}" in text or verb == run.DEFAULT_VERB, verb
        assert text.partition("\n")[0].endswith("."), verb


def test_run_py_stays_short():
    assert len(Path(run.__file__).read_text().splitlines()) < 100
