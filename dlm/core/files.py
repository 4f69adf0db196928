"""Writing files so that they are whole or absent, and digests of what decides a result."""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dlm.core.errors import UserError


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Writes a file aside, flushes it to the disk and renames it; folders are made as needed.

    A reader, or a process killed at any moment, sees the old file or the new one, never a part.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, 0o666 & ~_umask())
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def hold_folder(folder: str | Path) -> Iterator[None]:
    """Holds a folder for this process alone, until the block is left or the process ends.

    Raises:
      UserError: another process holds it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UserError(
                f"{folder} is in use by process {lock.read() or '?'}; wait for it, stop it, or use "
                "another --workdir"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def write_json(path: str | Path, value: Any) -> None:
    """Writes a value as indented JSON, atomically.

    Raises:
      ValueError: the value holds a NaN or an infinity, which JSON does not have.
    """
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
      UserError: the file is absent, unreadable, not UTF-8, or not JSON (with line and column).
    """
    try:
        return parse_json(Path(path).read_bytes(), path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def parse_json(text: str | bytes, path: str | Path) -> Any:
    """Reads the JSON text of a file.

    Raises:
      UserError: it is not UTF-8, or not JSON (with line and column), or nests too deep or has
        numbers too long to be read.
    """
    try:
        return json.loads(text)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON: {str(error)[:100]}") from None


def digest(value: Any) -> str:
    """Returns the SHA-256, in hex, of bytes or of a value's canonical JSON.

    Canonical: keys sorted, no spaces, so the order of a dict does not matter; a tuple equals a
    list.

    Raises:
      TypeError: the value is not bytes and JSON cannot hold it.
      ValueError: it holds a NaN or an infinity.
    """
    if not isinstance(value, bytes):
        value = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        ).encode()
    return hashlib.sha256(value).hexdigest()


def short_digest(text: str) -> int:
    """Returns a text as a number of 64 bits (BLAKE2b)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def digest_file(path: str | Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_digest(*objects: Any) -> str:
    """Returns the digest of the source text of modules, classes or functions, in their order.

    Raises:
      OSError: an object has no source file (typed at a prompt, or built in).
    """
    return digest([inspect.getsource(obj) for obj in objects])
