"""How a target's input is cut: first a few bytes that choose, then what the peer sends."""

from __future__ import annotations


def pieces(data: bytes, size: int) -> list[bytes]:
    """``data`` in pieces of ``size`` bytes, the last may be shorter; in one piece where that is 0."""
    return [data[start : start + size] for start in range(0, len(data), size)] if size else [data]
