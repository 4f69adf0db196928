"""Fine-tune GPT-like models on dialogues, and talk to them.

    python run.py [VERB] [--config=FILE[:ARG]] [--config.a.b=VALUE] [--workdir=DIR]

Without a verb the quickstart runs. `python run.py VERB --help` explains one verb. Exit status: 0;
2 your mistake, in one line; 1 our mistake, with its traceback; 130 interrupted (run again).
"""

from __future__ import annotations

import ast
import difflib
import errno
import importlib
import os
import sys
import traceback
from pathlib import Path

from dlm.core.errors import UserError
from dlm.core.interrupts import termination_interrupts

COMMANDS = Path(__file__).parent / "dlm" / "commands"
DEFAULT_VERB = "quickstart"
ENVIRONMENT = {  # where the user has not set it: quiet libraries, compiled programs kept
    **{"TF_CPP_MIN_LOG_LEVEL": "2", "TRANSFORMERS_VERBOSITY": "error"},
    "JAX_COMPILATION_CACHE_DIR": os.path.expanduser("~/.cache/dlm/compiled"),
}
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}


def documentation() -> dict[str, str]:
    """Returns `{verb: help}`: the docstrings of the modules of dlm/commands that have a `run`."""
    found = {}
    for path in sorted(COMMANDS.glob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in module.body):
            found[path.stem] = ast.get_docstring(module) or ""
    return found


def overview(verbs: dict[str, str]) -> str:
    """Formats the general help: how to call it, and the first line of each verb's own."""
    width = max(map(len, verbs), default=0)
    lines = [f"  {verb:<{width}}  {text.partition(chr(10))[0]}" for verb, text in verbs.items()]
    return "\n".join([(__doc__ or "").strip(), "", "Verbs:", *lines])


def main(argv: list[str]) -> int:
    """Runs one verb and returns the exit status.

    Raises:
      UserError: there is no such verb.
    """
    verbs = documentation()
    if argv[:1] in (["--help"], ["-h"]):
        print(overview(verbs))
        return 0
    named = bool(argv) and not argv[0].startswith("-")
    verb, rest = (argv[0], argv[1:]) if named else (DEFAULT_VERB, argv)
    if verb not in verbs:
        near = difflib.get_close_matches(verb, verbs, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(verbs)}"
        raise UserError(f"unknown verb {verb!r}; {hint} (python run.py --help)")
    if "--help" in rest or "-h" in rest:
        print(verbs[verb])
        return 0
    return importlib.import_module(f"dlm.commands.{verb}").run(rest)


def guarded(argv: list[str]) -> int:
    """Turns every way to end into the exit status that this module's docstring promises."""
    try:
        with termination_interrupts():
            return main(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in UNWRITABLE:
            traceback.print_exc()
            return 1
        remedy = "make room, or name a folder that can be written; what was saved before is whole"
        print(f"error: {error.filename or 'a file'}: {error.strerror}; {remedy}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(str(interrupt) or "interrupted", file=sys.stderr)
        return 130
    except Exception:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    os.environ.update(ENVIRONMENT | os.environ)
    sys.exit(guarded(sys.argv[1:]))
