"""What went over the wire, read by a parser that shares nothing with the library's: RFC 6455, section 5, RFC 7692.

It forgives nothing: a frame that is torn, that comes between the fragments of another message, that has the wrong mask
or that comes behind a Close raises.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Torn(Exception):  # noqa: N818 - what is found out
    """Bytes that are no WebSocket frames in an order that RFC 6455 allows."""


@dataclass(frozen=True)
class Item:
    """A message, or a control frame."""

    kind: str
    payload: bytes
    end: int
    """Where its last byte is, counted from the first byte of the stream."""


def frames_of(data: bytes, masked: bool) -> Iterator[tuple[int, bytes, int]]:
    """The first byte, the payload and the end of each frame that is whole."""
    at = 0
    while True:
        head = data[at : at + 2]
        if len(head) < 2:
            return
        size, start = head[1] & 0x7F, at + 2
        if bool(head[1] & 0x80) is not masked:
            raise Torn(f"byte {at}: the mask bit is wrong")
        width = {126: 2, 127: 8}.get(size, 0)
        if len(data) < start + width + 4 * masked:
            return
        if width:
            [size] = struct.unpack("!H" if width == 2 else "!Q", data[start : start + width])
            start += width
        key = data[start : start + 4] if masked else b""
        start += len(key)
        end = start + size
        if len(data) < end:
            return
        payload = data[start:end]
        if masked:
            payload = bytes(byte ^ key[index & 3] for index, byte in enumerate(payload))
        yield head[0], payload, end
        at = end


def items_of(data: bytes, masked: bool) -> Iterator[Item]:
    """The messages and control frames in ``data``, which begins behind the opening handshake."""
    inflater = zlib.decompressobj(wbits=-15)
    kind, parts, compressed, closed = "", b"", False, False
    for first, payload, end in frames_of(data, masked):
        opcode, fin, rsv1 = first & 0x0F, bool(first & 0x80), bool(first & 0x40)
        if closed and opcode != 10:  # A ping is answered until a Close has come (section 5.5.2).
            raise Torn(f"byte {end}: frame {first:#x} behind a Close")
        if opcode >= 8:
            if not fin or rsv1 or len(payload) > 125 or opcode > 10:
                raise Torn(f"byte {end}: not a control frame: {first:#x}, {len(payload)} bytes")
            closed = opcode == 8
            yield Item({8: "close", 9: "ping", 10: "pong"}[opcode], payload, end)
            continue
        if opcode > 2 or (opcode == 0) is not bool(kind) or (opcode == 0 and rsv1) or first & 0x30:
            raise Torn(f"byte {end}: frame {first:#x} {'within' if kind else 'outside of'} a message")
        if opcode:
            kind, parts, compressed = ("text" if opcode == 1 else "binary"), b"", rsv1
        parts += payload
        if fin:
            if compressed:
                parts = inflater.decompress(parts + b"\x00\x00\xff\xff")
            yield Item(kind, parts, end)
            kind = ""


def split_head(data: bytes) -> tuple[int, bytes]:
    """The length of an opening handshake, and what follows it."""
    end = data.find(b"\r\n\r\n")
    size = end + 4 if end >= 0 else len(data)
    return size, data[size:]
