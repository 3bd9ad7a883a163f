"""Messages that tell when one of them is lost, doubled, out of order or changed: each has its number and a checksum."""

from __future__ import annotations

import struct
from zlib import crc32

_HEAD = struct.Struct("!QI")


class Wrong(Exception):  # noqa: N818 - what is found out
    """A message that is not the one that was sent."""


def binary(number: int, payload: bytes) -> bytes:
    """Message ``number``, with this payload behind its head."""
    return _HEAD.pack(number, crc32(payload, number & 0xFFFFFFFF)) + payload


def text(number: int, payload: str) -> str:
    """The same as text."""
    return f"{number} {crc32(payload.encode(), number & 0xFFFFFFFF)} {payload}"


class Ledger:
    """What one direction of a connection has carried."""

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0

    def enter(self, message: str | bytes) -> None:
        """Count the next message. Raises Wrong where it is another one than that."""
        try:
            if isinstance(message, str):
                number, checksum, rest = message.split(" ", 2)
                found, payload = (int(number), int(checksum)), rest.encode()
            else:
                found, payload = _HEAD.unpack_from(message), bytes(message[_HEAD.size :])
        except (ValueError, struct.error) as exc:
            raise Wrong(f"message {self.messages} has no head: {message[:40]!r}") from exc
        if found[0] != self.messages:
            raise Wrong(f"message {found[0]} came in place of {self.messages}")
        if found[1] != crc32(payload, self.messages & 0xFFFFFFFF):
            raise Wrong(f"message {self.messages} has changed on the way")
        self.messages += 1
        self.bytes += len(message)
