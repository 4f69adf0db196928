from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dlm.core import files
from dlm.core.errors import UserError


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.write_atomic(path, "old")

    def refuse(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_files_have_the_mode_of_any_new_file(tmp_path):
    files.write_atomic(tmp_path / "deep" / "a.bin", b"\x00\xff")
    (tmp_path / "deep" / "plain").write_bytes(b"")
    assert (tmp_path / "deep" / "a.bin").read_bytes() == b"\x00\xff"
    modes = {path.stat().st_mode for path in (tmp_path / "deep").iterdir()}
    assert len(modes) == 1


def test_json_comes_back(tmp_path):
    value = {"b": [1, 2.5, None], "a": "ä"}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "a.json: cannot be read: No such file"),
        (b'{"a": 1,\n "b"}', "a.json:2:5: not valid JSON"),
        (b'"\xff"', "a.json: not UTF-8 at byte 1"),
        (b"[" * 100_000, "a.json: not valid JSON: maximum recursion depth"),
        (b"9" * 5_000, "a.json: not valid JSON: Exceeds the limit"),
    ],
)
def test_a_json_file_that_cannot_be_read_is_named(tmp_path, data, message):
    if data is not None:
        (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(UserError, match=message):
        files.read_json(tmp_path / "a.json")


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        files.write_json(tmp_path / "a.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_digest_depends_on_content_alone(tmp_path):
    """Caches know their makers: key order does not matter, every change does."""
    assert files.digest({"a": 1, "b": (1, 2)}) == files.digest({"b": [1, 2], "a": 1})
    different = [{"a": 1}, {"a": 1.5}, {"a": "1"}, {"b": 1}, {"a": [1]}, b"a", b"b", "a"]
    assert len({files.digest(value) for value in different}) == len(different)
    (tmp_path / "a").write_bytes(b"abc")
    assert files.digest_file(tmp_path / "a") == files.digest(b"abc")
    assert files.digest(b"abc").startswith("ba7816bf")  # FIPS 180-2, appendix B.1
    with pytest.raises(ValueError, match="Out of range float"):
        files.digest(float("nan"))


def test_a_source_digest_follows_the_source():
    assert files.source_digest(files) != files.source_digest(files.digest)
    assert files.source_digest(files, files.digest) != files.source_digest(files.digest, files)
    assert files.source_digest(files.digest) == files.source_digest(files.digest)


def test_a_folder_is_held_by_one_process(tmp_path):
    """Refused with the holder's number while it is held, free once it is not, also after a kill."""
    code = (
        "import sys, time; from dlm.core.files import hold_folder\n"
        "with hold_folder(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        message = rf"run is in use by process {holder.pid}; "
        with pytest.raises(UserError, match=message), files.hold_folder(tmp_path / "run"):
            pass
        holder.kill()
    with files.hold_folder(tmp_path / "run"):
        pass
    with files.hold_folder(tmp_path / "run"):
        pass
