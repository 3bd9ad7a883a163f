"""Frames of RFC 6455, section 5, as plain functions over a tuple; usable alone."""

from __future__ import annotations

import os
import struct
from enum import IntEnum
from typing import NamedTuple

from ..errors import RemoteProtocolError
from .masking import apply_mask, encode

__all__ = [
    "MAX_REASON",
    "NORMAL_CODES",
    "Close",
    "Frame",
    "Opcode",
    "apply_mask",
    "build_frame",
    "check_close",
    "check_control_payload",
    "encode",
    "is_control",
    "long_head",
    "masking_key",
    "parse_close",
    "parse_frame",
]


MAX_CONTROL = 125
"""Bytes of the payload of a control frame (RFC 6455, section 5.5)."""

MAX_REASON = 123
"""Bytes of a close reason: those of a control frame's payload less two for the code."""

NO_CODE = 1005
"""Stands for a Close without a code (RFC 6455, section 7.1.5)."""

NORMAL_CODES = frozenset({1000, 1001, NO_CODE})
"""Close codes of a normal end: done, going away, and none given (RFC 6455, section 7.4.1)."""

_medium_head = struct.Struct("!BBH").pack
_long_head = struct.Struct("!BBQ").pack


class Opcode(IntEnum):
    """What a frame is (RFC 6455, section 5.2)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Frame(NamedTuple):
    """A frame, its payload unmasked. ``opcode`` is an :class:`Opcode` if the RFC has a name for it."""

    fin: bool
    rsv1: bool
    rsv2: bool
    rsv3: bool
    opcode: int
    payload: bytes

    @classmethod
    def from_head(cls, head: int, payload: bytes) -> Frame:
        """The frame whose first byte on the wire is ``head``."""
        opcode = head & 0x0F
        return cls(
            bool(head & 0x80),
            bool(head & 0x40),
            bool(head & 0x20),
            bool(head & 0x10),
            Opcode(opcode) if opcode in _NAMED else opcode,
            payload,
        )

    @property
    def head(self) -> int:
        """The first byte of the frame on the wire. ValueError for an opcode that does not fit into it."""
        if self.opcode not in range(0x10):
            raise ValueError(f"the opcode of a frame must be an integer from 0 to 15, not {self.opcode!r}")
        bits = bool(self.fin) << 7 | bool(self.rsv1) << 6 | bool(self.rsv2) << 5 | bool(self.rsv3) << 4
        return bits | self.opcode


_NAMED = frozenset(Opcode)


def is_control(payload: object) -> bool:
    """Whether it is a control frame, which may go between the fragments of a message (RFC 6455, section 5.4)."""
    return isinstance(payload, Frame) and payload.opcode >= Opcode.CLOSE


def check_control_payload(name: str, payload: bytes) -> bytes:
    """Return the ``payload`` of a ping or a pong. Raises TypeError and ValueError if it cannot be one."""
    if not isinstance(payload, bytes):
        raise TypeError(f"the payload of a {name} must be bytes, not {type(payload).__name__}")
    if len(payload) > MAX_CONTROL:
        raise ValueError(f"the payload of a {name} must have at most {MAX_CONTROL} bytes, not {len(payload)}")
    return payload


class Close(NamedTuple):
    """How a connection ended: a close code (RFC 6455, section 7.4) and a reason.

    The codes 1005 (the peer gave none) and 1006 (the connection was lost) never travel; they only stand here.
    """

    code: int
    reason: str = ""


def check_close(code: int | None, reason: str | None) -> bytes:
    """The payload of a Close frame; ValueError (or TypeError) if the RFC does not let this side send it.

    Sections 7.4.1 and 7.4.2: 1000-1003 and 1007-1014 have a meaning, 3000-4999 are for libraries and applications.
    """
    if not isinstance(reason, (str, type(None))):
        raise TypeError(f"a close reason must be str, not {type(reason).__name__}")
    if code is None:
        if reason:
            raise ValueError(f"a close reason requires a close code, but {reason[:60]!r} has none")
        return b""
    if not isinstance(code, int):
        raise TypeError(f"a close code must be an integer, not {code!r}")
    if not _may_travel(code):
        raise ValueError(f"a close code must be 1000-1003, 1007-1014 or 3000-4999, not {code!r}")
    encoded = (reason or "").encode()
    if len(encoded) > MAX_REASON:
        raise ValueError(f"a close reason must have at most {MAX_REASON} bytes of UTF-8, not {len(encoded)}")
    return code.to_bytes(2, "big") + encoded


def _may_travel(code: int) -> bool:
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def parse_close(payload: bytes) -> Close:
    """What a Close frame says. Raises :class:`RemoteProtocolError` if it may not (sections 5.5.1 and 7.4)."""
    if not payload:
        return Close(NO_CODE)
    if len(payload) == 1:
        raise RemoteProtocolError("a Close frame whose code has one byte")
    code = int.from_bytes(payload[:2], "big")
    if not _may_travel(code):
        raise RemoteProtocolError(f"the close code {code} must not be sent")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise RemoteProtocolError("a close reason that is not UTF-8", 1007) from None


def long_head(head: int, length: int) -> bytes:
    """What stands before the unmasked payload of more than 125 bytes of a frame whose first byte is ``head``."""
    return _medium_head(head, 126, length) if length <= 0xFFFF else _long_head(head, 127, length)


def masking_key() -> bytes:
    """Four bytes that nobody can predict, fresh for each frame (RFC 6455, section 10.3)."""
    return os.urandom(4)


def build_frame(
    fin: bool | int,
    rsv1: bool | int,
    rsv2: bool | int,
    rsv3: bool | int,
    op: int,
    payload: bytes | bytearray | memoryview,
    *,
    masked: bool = False,
) -> bytes:
    r"""The bytes of one frame, with any bits and any opcode of 0 to 15; ``masked`` gives it a fresh masking key.

    >>> build_frame(1, 0, 0, 0, 1, b"Hello")
    b'\x81\x05Hello'
    """
    if not isinstance(payload, (bytes, bytearray, memoryview)):
        raise TypeError(f"the payload of a frame must be bytes, not {type(payload).__name__}")
    frame = Frame(bool(fin), bool(rsv1), bool(rsv2), bool(rsv3), op, bytes(payload))
    return encode(frame.head, frame.payload, masking_key() if masked else None)


def parse_frame(buffer: bytearray, max_size: int | None = None) -> Frame | None:
    """Remove the first frame from ``buffer`` and return it; None, and nothing removed, while it is incomplete.

    Masked or not, whatever its bits and opcode: this reads any frame. The rules of the protocol are
    :class:`~trio_pyjo_ws.wire.protocol.Protocol`'s. Raises :class:`RemoteProtocolError` with code 1009 as soon as the
    header announces more than ``max_size`` bytes of payload.
    """
    if not isinstance(buffer, bytearray):
        raise TypeError(f"parse_frame() takes a bytearray, because it removes the frame, not {type(buffer).__name__}")
    if len(buffer) < 2:
        return None
    length = buffer[1] & 0x7F
    start = 2
    if length > 125:
        start += 2 if length == 126 else 8
        if len(buffer) < start:
            return None
        length = int.from_bytes(buffer[2:start], "big")
    if max_size is not None and length > max_size:
        raise RemoteProtocolError(f"a frame of {length} bytes, over the limit of {max_size}", 1009)
    key = None
    if buffer[1] & 0x80:
        key = bytes(buffer[start : start + 4])
        start += 4
    if len(buffer) < start + length:
        return None
    payload = bytes(buffer[start : start + length])
    frame = Frame.from_head(buffer[0], payload if key is None else apply_mask(payload, key))
    del buffer[: start + length]
    return frame
