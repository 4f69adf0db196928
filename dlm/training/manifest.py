"""A checkpoint's manifest: what proves that its bytes are the ones that were saved.

The manifest is a JSON file in the checkpoint's folder. It holds the SHA-256 of every other file,
whatever the writer wants to say about the state, and the SHA-256 of its own content; and it is
written in one canonical form, so that no byte of it can change unnoticed either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dlm.core import files
from dlm.core.errors import UserError

NAME = "manifest.json"


class Damaged(UserError):
    """A checkpoint whose bytes are not the ones that were saved, or that was never finished."""


def write(folder: Path, content: Mapping[str, Any]) -> None:
    """Writes the manifest of a finished folder, as the last of its files and atomically.

    Args:
      folder: the checkpoint; every file in it is read once.
      content: JSON-able entries to keep beside the digests; not `files` nor `sha256`.
    """
    body = {**content, "files": _digest_files(folder)}
    files.write_atomic(folder / NAME, _canonical({**body, "sha256": files.digest(body)}))


def read(folder: Path) -> dict[str, Any]:
    """Reads a manifest and checks it against itself, but not the files that it names.

    Raises:
      Damaged: there is none, so the save never finished, or it was changed.
    """
    try:
        text = (folder / NAME).read_bytes()
        body = json.loads(text)
        said = body.pop("sha256")
        if said == files.digest(body) and text == _canonical({**body, "sha256": said}):
            return body
    except FileNotFoundError:
        raise Damaged(f"it has no {NAME}, so its save never finished") from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        pass
    raise Damaged(f"{NAME} was changed")


def verify(folder: Path) -> dict[str, Any]:
    """Reads a manifest and checks every file of the folder against it.

    Raises:
      Damaged: as `read`; or a file is missing, was changed, or was added.
    """
    body = read(folder)
    found, saved = _digest_files(folder), body["files"]
    for problem, names in {
        "is missing": saved.keys() - found.keys(),
        "was added": found.keys() - saved.keys(),
        "was changed": {name for name in saved.keys() & found.keys() if saved[name] != found[name]},
    }.items():
        if names:
            raise Damaged(f"{min(names)} {problem}")
    return body


def _digest_files(folder: Path) -> dict[str, str]:
    found = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*")}
    return {
        name: files.digest_file(file)
        for name, file in sorted(found.items())
        if file.is_file() and name != NAME
    }


def _canonical(body: Mapping[str, Any]) -> bytes:
    return (json.dumps(body, indent=1, sort_keys=True) + "\n").encode()
