"""What a profiler's trace says of a compiled step: its operations, by the names of our code."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import jax

ROOT = Path(__file__).resolve().parents[2]
# Their time is that of the operations within, which are recorded one by one.
CONTROL_FLOW = ("while", "conditional", "call")
# Parts of an operation's path that say how it came about, not what it belongs to.
NOISE = re.compile(
    r"(jit|jvp|transpose|vmap|pjit|custom_vjp_call|custom_jvp_call)(\(.*\))?|while|body|cond|"
    r"closed_call|branch_\d+_fun|checkpoint|rematted_computation|shard_map|remat\d*"
)


class Operation(NamedTuple):
    """An instruction of the compiled program, or all that are alike.

    Attributes:
      name: "forward", "backward" or "again" (made a second time to save memory), where it is one,
        and the operation; for an instruction without a path, its own name without its number.
      where: parameters' path that it belongs to, layers as one (`layers/*/mlp`); "" = none.
      source: `FILE:LINE` of the innermost line of ours; "" = none.
    """

    name: str
    where: str
    source: str


class Row(NamedTuple):
    """A line of the profile: how often operations that are alike ran, and for how long."""

    operation: Operation
    calls: int
    seconds: float


def find_traces(folder: Path) -> list[Path]:
    """The profiler's own files in a folder of traces, those of the last one last."""
    return sorted(folder.glob("plugins/profile/*/*.xplane.pb"))


def measured(path: Path) -> dict[str, tuple[int, float]]:
    """Of each instruction in a trace, how often it ran and its seconds: `{name: (calls, sum)}`.

    On a CPU every thread has a line of them, and a product that several threads share counts once;
    on a GPU every stream has one, and a kernel of no instruction counts under its own name.
    """
    calls: dict[str, int] = defaultdict(int)
    nanoseconds: dict[str, float] = defaultdict(float)
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
        on_device = plane.name.startswith("/device:")
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                name = stats.get("hlo_op") or (event.name if on_device else None)
                if name is not None:
                    calls[str(name)] += 1
                    nanoseconds[str(name)] += event.duration_ns
    return {name: (calls[name], nanoseconds[name] / 1e9) for name in calls}


def profile(measured: Mapping[str, tuple[int, float]], program: str) -> list[Row]:
    """Adds up operations that are alike, the longest first.

    Args:
      measured: see `measured`.
      program: the compiled program's text, `compiled.as_text()`.
    """
    known = dict(instructions(program))
    calls: dict[Operation, int] = defaultdict(int)
    seconds: dict[Operation, float] = defaultdict(float)
    for name, (times, duration) in measured.items():
        operation = known.get(name, Operation(_plain(name), "", ""))
        if operation is not None:
            calls[operation] += times
            seconds[operation] += duration
    rows = [Row(operation, calls[operation], seconds[operation]) for operation in calls]
    return sorted(rows, key=lambda row: -row.seconds)


def instructions(program: str) -> Iterator[tuple[str, Operation | None]]:
    """Of a compiled program's text, each instruction's name and operation; None: control flow."""
    sources = _Sources(program)
    instruction = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (?:\(.*?\)|\S+) ([\w\-]+)\(")
    for line in program.splitlines():
        found = instruction.match(line)
        if not found:
            continue
        name, code = found.groups()
        if code in CONTROL_FLOW:
            yield name, None
            continue
        path = re.search(r'op_name="([^"]*)"', line)
        frame = re.search(r"stack_frame_id=(\d+)", line)
        source = sources.of(int(frame[1])) if frame else ""
        yield name, _operation(path[1] if path else "", name, source)


def _operation(path: str, name: str, source: str) -> Operation:
    """Reads a path such as `jit(step)/transpose(jvp(Decoder))/layers/1/mlp/dot_general`."""
    parts = path.split("/")
    *belongs, last = parts
    if "rematted_computation" in parts:
        way = "again "
    elif any(part.startswith("transpose(") for part in parts):
        way = "backward "
    else:
        way = "forward " if any(part.startswith("jvp(") for part in parts) else ""
    inner = [i for i, part in enumerate(belongs) if part.startswith("jvp(")]
    belongs = belongs[inner[-1] :] if inner else belongs
    kept = [part for part in belongs if not NOISE.fullmatch(part)]
    where = "/".join("*" if part.isdecimal() else part for part in kept)
    return Operation(f"{way}{last}" if path else _plain(name), where, source)


def _plain(name: str) -> str:
    """An instruction's name without its number."""
    return re.sub(r"(\.\d+)+$", "", name)


class _Sources:
    """The source lines of a compiled program, from the tables at the top of its text."""

    def __init__(self, program: str):
        self._files = {i: text.strip('"') for i, text in _table(program, "FileNames")}
        self._places = {i: _numbers(text) for i, text in _table(program, "FileLocations")}
        self._frames = {i: _numbers(text) for i, text in _table(program, "StackFrames")}

    def of(self, frame: int) -> str:
        """`FILE:LINE` of a frame: the innermost one in our code, or where there is none, itself."""
        innermost = ""
        while frame in self._frames:
            place = self._places[self._frames[frame]["file_location_id"]]
            path = Path(self._files[place["file_name_id"]])
            if path.is_relative_to(ROOT) and "site-packages" not in path.parts:
                return f"{path.relative_to(ROOT)}:{place['line']}"
            innermost = innermost or f"{path.name}:{place['line']}"
            frame = self._frames[frame]["parent_frame_id"] - 1  # counted from 1, 1 = none
        return innermost


def _table(program: str, heading: str) -> Iterable[tuple[int, str]]:
    _, found, rest = program.partition(f"\n{heading}\n")
    body = rest.partition("\n\n")[0] if found else ""
    for number, text in re.findall(r"^(\d+) (.*)$", body, re.MULTILINE):
        yield int(number), text


def _numbers(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", text)}
