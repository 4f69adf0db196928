"""The runs that were made, in one SQLite file: a copy of what their workdirs say, made at will.

The workdirs are the truth; the file makes them quick to list and to filter. Several processes may
read and write it: each opens it, works and closes it while it holds a lock on a file beside it, so
that two connections never write or checkpoint at once. (SQLite below 3.51.3 has a rare corruption
of a WAL that two connections reset together.)
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlm.core import files

if TYPE_CHECKING:  # a run's own process needs no statistics
    from dlm.tables.cells import State

STORE_FILE = "results.sqlite"
FAILURE_FILE = "failure.json"
_JSON = ("config", "figures", "signatures", "sources")
_COLUMNS = (
    *("workdir TEXT PRIMARY KEY", "identity TEXT", "name TEXT", "seed INTEGER", "state TEXT"),
    *("reason TEXT", "seconds REAL", '"commit" TEXT', *(f"{name} TEXT" for name in _JSON)),
)


@dataclass(frozen=True)
class Record:
    """One run as its workdir tells it.

    Attributes:
      workdir: where it lives, absolute.
      identity: of the run; "" where it was made before there were any.
      name: the workdir's.
      seed: of the config.
      state: "done" with a summary, "failed" where its process ended badly (perhaps before it wrote
        its config), "missing" in between.
      reason: why it failed.
      seconds: of its training.
      commit: of the code; with `+changes` where files differed from it.
      config: resolved, nested.
      figures: of `summary.json`; None where one is not finite.
      signatures: metric -> how it is measured.
      sources: digests of the sources of the functions that the config names.
    """

    workdir: str
    identity: str
    name: str
    seed: int
    state: State
    reason: str
    seconds: float | None
    commit: str
    config: dict[str, Any]
    figures: dict[str, float | None]
    signatures: dict[str, str]
    sources: dict[str, str]


def read_run(workdir: str | Path) -> Record | None:
    """What a workdir says of its run; None where it holds none.

    Raises:
      UserError: a file there is damaged.
    """
    workdir = Path(workdir).absolute()
    config, failure = _read(workdir / "config.json"), _read(workdir / FAILURE_FILE)
    if "init" not in config and not failure:  # a checkpoint's folder has a config.json too
        return None
    identity = _read(workdir / "identity.json") or failure
    figures = _read(workdir / "summary.json")
    state: State = "done" if figures else "failed" if failure else "missing"
    return Record(
        workdir=str(workdir),
        identity=identity.get("identity", ""),
        name=workdir.name,
        seed=config.get("seed", 0),
        state=state,
        reason=failure.get("reason", "") if state == "failed" else "",
        seconds=figures.get("train/seconds"),
        commit=identity.get("commit") or "",
        config=config,
        figures=figures,
        signatures=_read(workdir / "signatures.json"),
        sources=identity.get("sources", {}),
    )


def _read(path: Path) -> dict[str, Any]:
    return files.read_json(path) if path.exists() else {}


class Store:
    """The runs of one file; every method is one transaction.

    Attributes:
      path: of the file.
    """

    def __init__(self, path: str | Path):
        """Names the file; it is made when it is first needed."""
        self.path = Path(path)

    def put(self, records: Iterable[Record]) -> None:
        """Writes runs; one of the same workdir is replaced."""
        with self._opened() as connection:
            _insert(connection, records)

    def records(self) -> list[Record]:
        """All runs, by name and workdir."""
        names = [field.name for field in fields(Record)]
        listed = ", ".join(f'"{name}"' for name in names)
        with self._opened() as connection:
            rows = connection.execute(f"SELECT {listed} FROM runs ORDER BY name, workdir")
            return [Record(**_loaded(dict(zip(names, row, strict=True)))) for row in rows]

    def rebuild(self, folders: Iterable[str | Path]) -> list[Record]:
        """Replaces everything by the runs found in these folders and below; returns them."""
        names = ("config.json", FAILURE_FILE)
        paths = (path for top in folders for name in names for path in Path(top).rglob(name))
        found = sorted({path.parent for path in paths})
        records = [record for workdir in found if (record := read_run(workdir)) is not None]
        with self._opened() as connection:
            connection.execute("DELETE FROM runs")
            _insert(connection, records)
        return self.records()

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """A connection of this process alone, in a transaction that is whole or never was."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(f".{self.path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(f"CREATE TABLE IF NOT EXISTS runs ({', '.join(_COLUMNS)})")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")


def _insert(connection: sqlite3.Connection, records: Iterable[Record]) -> None:
    names = [field.name for field in fields(Record)]
    listed = ", ".join(f'"{name}"' for name in names)
    marks = ", ".join("?" for _ in names)
    rows = []
    for record in records:
        values = asdict(record)
        values |= {name: json.dumps(values[name], ensure_ascii=False) for name in _JSON}
        rows.append([values[name] for name in names])
    connection.executemany(f"INSERT OR REPLACE INTO runs ({listed}) VALUES ({marks})", rows)


def _loaded(values: dict[str, Any]) -> dict[str, Any]:
    return values | {name: json.loads(values[name]) for name in _JSON}
