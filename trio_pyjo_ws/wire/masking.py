"""The bytes of payloads: masking keys applied, frames encoded, pieces collected. This is the part that wants pointers.

It exists twice, with the same names and the same tests: this one, in pure Python, and ``masking.pyx``. All that is
built on it (the decoder, the protocol, the engine) is one source each, which runs compiled or as it stands.

Python has no fast XOR of byte strings. Two ways come close, and which one wins depends on the length: small payloads
go through one big integer; larger ones through :meth:`bytes.translate`, one lane for each byte of the key.
Per byte both cost about 0.9 ns, and of that the conversions cost nearly all, so this is the floor of pure Python.
"""

from __future__ import annotations

import struct

__all__ = ["Buffer", "apply_mask", "encode", "unmasked"]

SHORT = 125
"""The longest payload whose length fits into the second byte of a frame (RFC 6455, section 5.2)."""

KEY_SIZE = 4

TRANSLATE_FROM = 1024
"""Bytes from which four translated lanes are faster than one big integer."""

_short_head = struct.Struct("!BB").pack
_medium_head = struct.Struct("!BBH").pack
_long_head = struct.Struct("!BBQ").pack


def apply_mask(payload: bytes | bytearray | memoryview, key: bytes) -> bytes:
    """XOR ``payload`` with the four bytes of ``key``, over and over (RFC 6455, section 5.3). Masks and unmasks alike.

    Raises ValueError for a key of another length.
    """
    _check_key(key)
    return _apply(bytes(payload), key)


def _check_key(key: bytes) -> None:
    if len(key) != KEY_SIZE:
        raise ValueError(f"a masking key must have {KEY_SIZE} bytes, not {len(key)}")


def _apply(payload: bytes, key: bytes) -> bytes:
    length = len(payload)
    if length < TRANSLATE_FROM:
        repeated = (key * (length // 4 + 1))[:length]
        return (int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")).to_bytes(length, "little")
    masked = bytearray(length)
    for lane in range(4):
        masked[lane::4] = payload[lane::4].translate(_TRANSLATIONS[key[lane]])
    return bytes(masked)


_TRANSLATIONS: list[bytes] = [_apply(bytes(range(256)), bytes((key,)) * KEY_SIZE) for key in range(256)]


def unmasked(data: bytes, start: int, end: int) -> bytes:
    """The payload from ``start`` to ``end`` of a masked frame, whose key is the four bytes before it."""
    if not KEY_SIZE <= start <= end <= len(data):
        raise ValueError(f"no masked payload stands from {start} to {end}")
    return _apply(data[start:end], data[start - KEY_SIZE : start])


def encode(head: int, payload: bytes, key: bytes | None = None) -> bytes:
    """The bytes of a frame whose first byte is ``head``, masked if a ``key`` is given.

    Raises ValueError for a head that is not a byte, and for a key that has not four bytes.
    """
    if not 0 <= head <= 0xFF:
        raise ValueError(f"the first byte of a frame must be 0 to 255, not {head}")
    length = len(payload)
    mask = 0 if key is None else 0x80
    if length <= SHORT:
        start = _short_head(head, mask | length)
    elif length <= 0xFFFF:
        start = _medium_head(head, mask | 126, length)
    else:
        start = _long_head(head, mask | 127, length)
    return start + payload if key is None else b"".join((start, key, apply_mask(payload, key)))


class Buffer:
    """Bytes that come in pieces, collected in one place that grows with what has come."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def __len__(self) -> int:
        return len(self._data)

    def extend(self, data: bytes) -> None:
        """Add ``data``."""
        self._data += data

    def extend_part(self, data: bytes, start: int, end: int, key: bytes, rest: int) -> None:
        """Add what stands from ``start`` to ``end`` in ``data``, unmasked with the four bytes of ``key``, if any.

        ``rest``: bytes of the frame that are still to come; only the compiled twin makes use of it.
        """
        if not 0 <= start <= end <= len(data):
            raise ValueError(f"no payload stands from {start} to {end}")
        if key:
            _check_key(key)
        self._data += _apply(data[start:end], key) if key else data[start:end]

    def take(self) -> bytes:
        """Take all of it, and begin anew."""
        data = bytes(self._data)
        self._data = bytearray()
        return data
