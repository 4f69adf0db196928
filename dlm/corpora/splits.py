"""Splits of what is published without: a record falls where the hash of its text says."""

from __future__ import annotations

import hashlib


def share_of(text: str, seed: int = 0) -> float:
    """A number in [0, 1) drawn by text and seed: the same text always has the same one."""
    hashed = hashlib.sha256(f"{seed}\n{text}".encode()).digest()
    return int.from_bytes(hashed[:6], "big") / 2**48


def split_of(text: str, seed: int = 0) -> str:
    """`train`, `validation` or `test`, eight to one to one."""
    share = share_of(text, seed)
    return "train" if share < 0.8 else "validation" if share < 0.9 else "test"
