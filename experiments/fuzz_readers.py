"""Feeds damaged records to every reader: each must end in dialogues or in one clear line.

    python experiments/fuzz_readers.py [--records=80000] [--cases=20000] [--seed=0] [--output=FILE]

Valid records of each format of files are mutated, as JSON values (types, nesting, huge numbers,
control characters, long strings, fields taken from other records) and as text (bytes changed, cut
out, doubled; NaN, lone surrogates, byte order marks, line ends, keys that stand twice). Each is
read by the format's reader from a file of its own line.

Of each corpus under `$DLM_DATA_DIR` the files are cut to their first records, and one of them is
damaged in each case (see `fuzz_corpora.py`); the corpus is read as it is prepared. Corpora that
are absent are named.

Prints the result as JSON: what became of the records and cases, the slowest, and every failure,
which is anything but dialogues or a one-line `UserError` that says where, within the time limit;
exit status 1 where there is one. Hardware: any. Time: some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dlm.dialogue.readers import FORMATS, read
from experiments import fuzz_corpora
from experiments.fuzzing import Case, fuzz, mutate_text, mutate_value

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


def make_record(format: str, rng: random.Random) -> bytes:
    """A damaged line of a format, or now and then a whole one of any."""
    source = format if rng.random() < 0.9 else rng.choice(list(VALID))
    value = rng.choice(VALID[source])
    if rng.random() < 0.6:
        value = mutate_value(value, rng)
    line = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return mutate_text(line, rng) if rng.random() < 0.5 else line


def damaged_records(records: int, seed: int) -> Iterator[Case]:
    """As many damaged records, each format's in turn."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "records.jsonl")
        for number in range(records):
            format = list(FORMATS)[number % len(FORMATS)]
            line = make_record(format, rng)
            path.write_bytes(line)
            yield Case(format, repr(line[:300]), partial(read, path, format=format), (str(path),))


def main() -> int:
    """Prints the result; 1 where a case failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=80_000, help="of the formats of files")
    parser.add_argument("--cases", type=int, default=20_000, help="of the corpora's files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="also written there")
    options = parser.parse_args()
    root = Path(os.environ.get("DLM_DATA_DIR", ""))
    result: dict[str, Any] = {
        "seed": options.seed,
        "formats": fuzz(damaged_records(options.records, options.seed)),
        "corpora": fuzz(fuzz_corpora.damaged_files(options.cases, options.seed, root)),
        "corpora absent": fuzz_corpora.absent(root),
    }
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    print(text, end="")
    if options.output:
        options.output.write_text(text, encoding="utf-8")
    return 1 if result["formats"]["failures"] or result["corpora"]["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
