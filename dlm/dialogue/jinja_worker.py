"""The process in which chat templates of checkpoints are rendered; `jinja.py` starts it.

Run as a script, with nothing of ours imported: it reads a list of requests a line and answers with
a list of as many. A template is someone else's program, so besides Jinja's sandbox the process has
little memory and its time is up after a while, whatever it does.
"""

from __future__ import annotations

import datetime
import json
import resource
import signal
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY = 1 << 30  # bytes of address space
SECONDS = 2.0  # of processor time for one request
OUTPUT = 1 << 24  # characters of one request
TODAY = datetime.date(2025, 1, 1)  # for every rendering, so that it can be repeated


class Refusal(Exception):
    """The template itself refuses what it is given."""


class GenerationTag(Extension):
    """`{% generation %}` marks what the assistant says; it adds nothing to the text."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own way of naming them)

    def parse(self, parser: Parser) -> list[Node]:
        """Returns the body."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def environment() -> ImmutableSandboxedEnvironment:
    """The sandbox with what the transformers library offers templates."""
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    env.filters["tojson"] = to_json
    env.globals["raise_exception"] = refuse
    env.globals["strftime_now"] = TODAY.strftime
    return env


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as templates expect it: nothing is escaped for HTML, other scripts stand as they are."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def refuse(message: str) -> NoReturn:
    """`raise_exception` of templates."""
    raise Refusal(str(message)[:200])


def render(template: jinja2.Template, request: dict[str, Any]) -> list[str]:
    """Returns the text of each prefix `[number of messages, with generation prompt]`.

    Raises:
      ValueError: the texts together are too long.
    """
    texts, total = [], 0
    for count, prompted in request["prefixes"]:
        pieces = template.generate(
            messages=request["messages"][:count],
            tools=request["tools"] or None,
            documents=None,
            add_generation_prompt=prompted,
            **request["variables"],
        )
        text, total = within(pieces, total)
        texts.append(text)
    return texts


def within(pieces: Iterable[str], total: int) -> tuple[str, int]:
    """Joins pieces as long as all of them together are short enough."""
    kept = []
    for piece in pieces:
        total += len(piece)
        if total > OUTPUT:
            raise ValueError(f"it writes more than {OUTPUT} characters")
        kept.append(piece)
    return "".join(kept), total


def overtime(*_: object) -> NoReturn:
    """The first warning; where Python does not get to it, the second timer ends the process."""
    raise TimeoutError(f"it takes longer than {SECONDS:g} seconds")


def answer(work: Callable[[], Any]) -> tuple[dict[str, Any], Any]:
    """Does some work within the limits; returns what to answer, and the result."""
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    signal.setitimer(signal.ITIMER_PROF, 2 * SECONDS)
    try:
        result = work()
        return {"texts": result if isinstance(result, list) else []}, result
    except Refusal as error:
        return {"refused": str(error)}, None
    except MemoryError:
        return {"failed": f"it needs more than {MEMORY >> 20} MiB of memory"}, None
    except RecursionError:
        return {"failed": "it calls itself without end"}, None
    except Exception as error:  # whatever another's program does
        return {"failed": f"{error or type(error).__name__}"[:300]}, None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)


def main() -> None:
    """Compiles the template of the first line, then answers line after line."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGVTALRM, overtime)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the program that asks
    (source,) = json.loads(sys.stdin.readline())
    said, template = answer(lambda: environment().from_string(source))
    print(json.dumps([said]), flush=True)
    for line in sys.stdin if template else ():
        answers = [answer(partial(render, template, asked))[0] for asked in json.loads(line)]
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
