"""Two sides of a comparison, each in a process of its own, that work in turns."""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SIDES = ("dlm", "transformers")


def installed() -> list[str]:
    """The sides that can run here: ours, and theirs where its libraries are."""
    theirs = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
    return list(SIDES) if theirs else ["dlm"]


def timed(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def resident(field: str) -> float:
    """Resident memory of this process in MB: `VmRSS` now, `VmHWM` at its peak."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) * 1024 / 1e6


def forget_peak() -> None:
    """Lets `VmHWM` start anew, where that is allowed."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def serve(pipe: Connection, session: Callable[..., Iterator[Any]], *args: Any) -> None:
    """Goes on with a session when asked, and not before; ends when it is asked no more."""
    results = session(*args)
    while pipe.recv():
        pipe.send(next(results))


def take_turns(
    session: Callable[..., Iterator[Any]], sides: list[str], turns: int, *args: Any
) -> Iterator[dict[str, Any]]:
    """The first `turns` results of each `session(side, *args)`; while one works, others wait."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for side in sides:
        pipes[side], other_end = context.Pipe()
        process = context.Process(target=serve, args=(other_end, session, side, *args), daemon=True)
        process.start()
        processes.append(process)
        other_end.close()  # so that a side that dies is noticed

    def ask(pipe: Connection) -> Any:
        pipe.send(True)
        return pipe.recv()

    for _ in range(turns):
        yield {side: ask(pipe) for side, pipe in pipes.items()}
    for pipe, process in zip(pipes.values(), processes, strict=True):
        pipe.send(False)
        process.join()


def add_fields(parser: argparse.ArgumentParser, defaults: Mapping[str, int]) -> None:
    """Adds a flag a field: a number, or a switch where the default is False."""
    for name, default in defaults.items():
        if default is False:
            parser.add_argument(f"--{name}", action="store_true")
        else:
            parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")


def show(row: dict[str, Any], columns: tuple[str, ...]) -> None:
    """Prints a row of a table; a figure that it lacks is left blank."""
    cells = (f"{row[name]:,.4g}" if name in row else "" for name in columns)
    print(f"{row['what']:<13}" + "".join(f"{cell:>13}" for cell in cells))


def show_header(columns: tuple[str, ...]) -> None:
    """Prints the names of the columns of `show`."""
    print(" " * 13 + "".join(f"{name:>13}" for name in columns))
