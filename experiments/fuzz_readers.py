"""Feeds damaged records to every reader of files: each must end in a dialogue or in one clear line.

    python experiments/fuzz_readers.py [--records=100000] [--seed=0] [--output=FILE]

Valid records of each format are mutated, as JSON values (types, nesting, huge numbers, control
characters, long strings, fields taken from other records) and as text (bytes changed, cut out,
doubled; NaN, lone surrogates, byte order marks, line ends, keys that stand twice). Each is read by
the format's reader from a file of its own line. Prints the result as JSON: what became of the
records, the slowest, and every failure, which is anything but a dialogue or a one-line `UserError`
within the time limit; exit status 1 where there is one. Hardware: any. Time: some minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dlm.core.errors import UserError
from dlm.dialogue.readers import FORMATS, read
from dlm.dialogue.schema import from_json, to_json

SECONDS = 5  # that a record may take
TURNS = [("user", "a table for 4"), ("assistant", "where?"), ("user", "Roma ☃")]
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"a": 1}'}}
TOOL = {"name": "find", "description": "finds", "parameters": {"type": "object"}}
VALID: dict[str, list[dict[str, Any]]] = {
    "dlm": [
        {
            "id": "c-17",
            "task": "booking",
            "tools": [TOOL],
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "context", "content": [{"type": "text", "text": "facts"}]},
                {"role": "user", "content": "a table"},
                {"role": "assistant", "channel": "state", "content": "people=4", "weight": 0.5},
                {"role": "assistant", "channel": "call", "name": "find", "arguments": {"a": [1]}},
                {"role": "tool", "name": "find", "content": "x\ny"},
                {"role": "assistant", "content": "ok", "meta": {"b": None}},
            ],
            "meta": {"source": "hand"},
        },
        {
            "messages": [{"role": "user", "content": "2 + 2"}],
            "candidates": ["3", "4"],
            "answer": 1,
            "chosen": [{"role": "assistant", "content": "4"}],
            "rejected": [{"role": "assistant", "content": "3"}],
            "label": True,
            "rating": 4,
        },
    ],
    "openai": [
        {"messages": [{"role": role, "content": text} for role, text in TURNS]},
        {
            "messages": [
                {"role": "developer", "content": "be brief"},
                {"role": "user", "content": "a table"},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": "Marlo"},
                {"role": "assistant", "content": "Marlo?", "weight": 1},
            ],
            "tools": [{"type": "function", "function": TOOL}],
        },
    ],
    "sharegpt": [
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
        {
            "system": "be brief",
            "tools": json.dumps([TOOL]),
            "conversations": [
                {"from": "human", "value": "a table"},
                {"from": "function_call", "value": '{"name": "find", "arguments": {"a": 1}}'},
                {"from": "observation", "value": "Marlo"},
                {"from": "gpt", "value": "Marlo?"},
            ],
        },
    ],
    "prompt_response": [
        {"prompt": "2 + 2", "response": "4"},
        {"instruction": "add", "input": "2 + 2", "output": "4", "system": "be brief"},
        {"prompt": "2 + 2", "chosen": "4", "rejected": "3"},
    ],
}


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
    waiting = [value]
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


def make_record(format: str, rng: random.Random) -> bytes:
    """A damaged line of a format, or now and then a whole one of any."""
    source = format if rng.random() < 0.9 else rng.choice(list(VALID))
    value = rng.choice(VALID[source])
    if rng.random() < 0.6:
        value = mutate_value(value, rng)
    line = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return mutate_text(line, rng) if rng.random() < 0.5 else line


def overtime(*_: object) -> None:
    """What the timer does."""
    raise TimeoutError(f"longer than {SECONDS} s")


def outcome(path: Path, format: str) -> str:
    """Reads a file: "dialogue" or "refused"; another text is a failure, and says which.

    A dialogue must survive being written and read again.
    """
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        for dialogue in read(path, format=format):
            text = json.dumps(to_json(dialogue), ensure_ascii=False, allow_nan=False)
            if from_json(json.loads(text), "") != dialogue:
                return "a dialogue that is another when it is read again"
        return "dialogue"
    except UserError as error:
        said = str(error)
        one_line = len(said.splitlines()) == 1 and said.isprintable()
        return "refused" if one_line else f"not one clear line: {said[:200]!r}"
    except BaseException as error:  # what this looks for
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def fuzz(records: int, seed: int) -> dict[str, Any]:
    """Reads as many damaged records, each format's in turn; returns what became of them."""
    signal.signal(signal.SIGALRM, overtime)
    rng = random.Random(seed)
    counts = {format: Counter[str]() for format in FORMATS}
    failures: list[dict[str, str]] = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "records.jsonl")
        for number in range(records):
            format = list(FORMATS)[number % len(FORMATS)]
            line = make_record(format, rng)
            path.write_bytes(line)
            start = time.perf_counter()
            found = outcome(path, format)
            slowest = max(slowest, time.perf_counter() - start)
            known = found in ("dialogue", "refused")
            counts[format][found if known else "failed"] += 1
            if not known and len(failures) < 100:
                failures.append({"format": format, "failure": found, "record": repr(line[:300])})
    return {
        "records": records,
        "seed": seed,
        "counts": {format: dict(count) for format, count in counts.items()},
        "slowest, seconds": round(slowest, 3),
        "failures": failures,
    }


def main() -> int:
    """Prints the result; 1 where a record failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="also written there")
    options = parser.parse_args()
    result = json.dumps(fuzz(options.records, options.seed), indent=2, ensure_ascii=False) + "\n"
    print(result, end="")
    if options.output:
        options.output.write_text(result, encoding="utf-8")
    return 1 if json.loads(result)["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
