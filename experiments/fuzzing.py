"""Damage for what readers read, and what becomes of it: dialogues, one clear line, or a failure."""

from __future__ import annotations

import json
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from dlm.core.errors import UserError
from dlm.dialogue.schema import Dialogue, from_json, to_json

SECONDS = 5  # of processor time that a case may take; other work on the machine does not count
LENGTH = 1_000  # characters of a line that is still clear
FAILURES = 100  # that are kept
# What becomes of a case that does not fail; the counts of a corpus are held against the release's.
READ, REFUSED, MISCOUNTED = "dialogues", "refused", "refused by its counts"


def nested(depth: int, kind: str) -> Any:
    """A value that many lists or objects hold."""
    value: Any = None
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


def odd_value(rng: random.Random) -> Any:
    """A value that a field does not expect."""
    makers: list[Callable[[], Any]] = [
        lambda: rng.choice([None, True, False, 0, -1, 1.5, 10**18, -(10**30), 1e308, -0.0]),
        lambda: rng.choice(["", " ", "\0", "\ud800", "\U0001f600", "\u2028", "\x1b[31m", "\r\n"]),
        lambda: "".join(chr(rng.randrange(1, 0x3000)) for _ in range(rng.randrange(30))),
        lambda: "x" * rng.choice([1_000, 100_000]),
        lambda: rng.choice([[], {}, [[]], [None], {"": ""}, {"role": []}, [{}]]),
        lambda: nested(rng.choice([3, 90, 400]), rng.choice(["list", "object"])),
        lambda: rng.choice(["assistant", "tool", "call", "<|end|>", "find", "data:,", "NaN"]),
        lambda: {"type": rng.choice(["text", "image", "audio", "x"]), "text": "a", "path": "../b"},
    ]
    return rng.choice(makers)()


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) within a JSON value."""
    found: list[tuple[Any, Any]] = []
    waiting = [value] if isinstance(value, dict | list) else []
    while waiting:
        here = waiting.pop()
        keys: Any = here if isinstance(here, dict) else range(len(here))
        for key in list(keys):
            found.append((here, key))
            if isinstance(here[key], dict | list):
                waiting.append(here[key])
    return found


def mutate_value(record: Any, rng: random.Random) -> Any:
    """Changes a copy of a record at one to three places."""
    record = json.loads(json.dumps(record))
    for _ in range(rng.randrange(1, 4)):
        found = places(record)
        if not found:
            return odd_value(rng)
        here, key = rng.choice(found)
        match rng.randrange(5):
            case 0:
                del here[key]
            case 1 if isinstance(here, dict):
                here[rng.choice(["role", "content", "id", "meta", "name", "", "x"])] = here[key]
            case 2 if isinstance(here, list):
                here.insert(key, here[key])
            case 3:
                donor, name = rng.choice(found)
                if name in (donor if isinstance(donor, dict) else range(len(donor))):
                    here[key] = json.loads(json.dumps(donor[name]))
            case _:
                here[key] = odd_value(rng)
    return record


def mutate_words(line: str, rng: random.Random) -> str:
    """Changes a line of text at one to three of its words and marks."""
    changed = mutate_value(re.split(r"(\W)", line), rng)
    words = changed if isinstance(changed, list) else [changed]
    return "".join(word if isinstance(word, str) else json.dumps(word) for word in words)


def mutate_text(line: bytes, rng: random.Random) -> bytes:
    """Changes the text of a record at one to three places."""
    inserts = [b"NaN", b"Infinity", b"1e999", b"9" * 5000, b"\\ud800", b"\\u0000", b"\xef\xbb\xbf"]
    inserts += [b"\xff", b"\xc3", b"\0", b"\r", b"\n", b'"', b"{", b"}", b"[" * 2000, b",", b"\\"]
    inserts += [b'"messages": [], ', b'"id": 1, "id": 2, ', b"'", b"//", b"\x1a"]
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(line) + 1)
        stop = min(len(line), at + rng.randrange(12))
        middle = rng.choice([b"", rng.choice(inserts), line[at:stop] * 2, rng.randbytes(2)])
        line = line[:at] + middle + line[rng.choice([at, stop]) :]
    return line


class Case(NamedTuple):
    """Something damaged, and how it is read.

    Attributes:
      source: the format or corpus.
      record: what is damaged, as a failure shows it.
      read: gives the dialogues.
      place: how a line says where the damage is: it must hold one of these texts.
    """

    source: str
    record: str
    read: Callable[[], Iterable[Dialogue]]
    place: tuple[str, ...]


def overtime(*_: object) -> None:
    """What the timer does."""
    raise TimeoutError(f"longer than {SECONDS} s")


def outcome(case: Case) -> str:
    """Reads a case; another text than `READ`, `REFUSED` and `MISCOUNTED` is a failure.

    Dialogues must survive being written and read again.
    """
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        for dialogue in case.read():
            text = json.dumps(to_json(dialogue), ensure_ascii=False, allow_nan=False)
            if from_json(json.loads(text), "") != dialogue:
                return "a dialogue that is another when it is read again"
        return READ
    except UserError as error:
        said = str(error)
        if len(said.splitlines()) != 1 or not said.isprintable() or len(said) > LENGTH:
            return f"not one clear line: {said[:200]!r}"
        if not any(place in said for place in case.place):
            return f"no place: {said[:200]!r}"
        return MISCOUNTED if "the release has" in said else REFUSED
    except BaseException as error:  # what this looks for
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def fuzz(cases: Iterable[Case]) -> dict[str, Any]:
    """Reads each case as it comes; returns what became of them, by source."""
    signal.signal(signal.SIGPROF, overtime)
    counts: dict[str, Counter[str]] = {}
    failures: list[dict[str, str]] = []
    slowest = 0.0
    for case in cases:
        start = time.process_time()
        found = outcome(case)
        slowest = max(slowest, time.process_time() - start)
        known = found in (READ, REFUSED, MISCOUNTED)
        counts.setdefault(case.source, Counter())[found if known else "failed"] += 1
        if not known and len(failures) < FAILURES:
            failures.append({"source": case.source, "failure": found, "record": case.record})
    return {
        "cases": sum(count.total() for count in counts.values()),
        "counts": {source: dict(count) for source, count in counts.items()},
        "slowest, seconds": round(slowest, 3),
        "failures": failures,
    }
