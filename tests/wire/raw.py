"""Frames as a peer puts them on the wire: written down from the RFC, and independent of the package."""

from __future__ import annotations

import tracemalloc
from itertools import cycle, pairwise
from typing import TYPE_CHECKING

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

KEY = b"\x37\xfa\x21\x3d"
FIN, RSV1, RSV2 = 0x80, 0x40, 0x20
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
TEXT_PART, BINARY_PART, PART, LAST = 0x01, 0x02, 0x00, 0x80


def xor(payload: bytes, key: bytes) -> bytes:
    """Section 5.3, word for word: octet i of the payload with octet i modulo 4 of the key."""
    return bytes(octet ^ key_octet for octet, key_octet in zip(payload, cycle(key), strict=False))


def head_of(head: int, length: int, masked: bool) -> bytes:
    """Section 5.2, without the masking key."""
    mask = 0x80 if masked else 0
    if length < 126:
        return bytes([head, mask | length])
    if length < 1 << 16:
        return bytes([head, mask | 126]) + length.to_bytes(2, "big")
    return bytes([head, mask | 127]) + length.to_bytes(8, "big")


def frame(head: int, payload: bytes, masked: bool) -> bytes:
    start = head_of(head, len(payload), masked)
    return start + KEY + xor(payload, KEY) if masked else start + payload


def wire(frames: Iterable[tuple[int, bytes]], masked: bool) -> bytes:
    return b"".join(frame(head, payload, masked) for head, payload in frames)


def one_by_one(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def in_pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@st.composite
def cuts(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    """The same bytes in some pieces, of which some may be empty."""
    places = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    return [whole[start:end] for start, end in pairwise([0, *places, len(whole)])]


def peak_of(call: Callable[[], object]) -> int:
    """Bytes that the call takes at its height."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


# Text that is none (section 8.1): the bytes, and where the first of them stands that no valid text could have there.
BAD_TEXTS = {
    "continuation byte alone": (b"ab\x80", 2),
    "never a byte of UTF-8": (b"\xff", 0),
    "invalid first byte c0": (b"a\xc0\x80", 1),
    "invalid first byte f5": (b"a\xf5\x80\x80\x80", 1),
    "overlong in 3 bytes": (b"\xe0\x80\xaf", 1),
    "overlong in 4 bytes": (b"\xf0\x80\x80\xaf", 1),
    "first surrogate": (b"\xed\xa0\x80", 1),
    "last surrogate": (b"a\xed\xbf\xbf", 2),
    "above U+10FFFF": (b"\xf4\x90\x80\x80", 1),
    "second byte of 2": (b"\xc3\x28", 1),
    "third byte of 3": (b"\xe2\x82\x28", 2),
    "fourth byte of 4": (b"\xf0\x9f\x98\x28", 3),
    "Autobahn's 6.3.1": (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64\x69\x74\x65\x64", 12),
    "Autobahn's 6.4.1": (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80\x65\x64\x69\x74\x65\x64", 12),
}
GOOD_TEXT = "κόσμε é€\ud7ff\ue000\U00010000\U0010ffff"
