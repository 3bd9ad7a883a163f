"""The decoder: compiled or not it gives the same, whatever comes and however it is cut."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from trio_pyjo_ws.errors import RemoteProtocolError
from trio_pyjo_ws.wire.frames import Frame

from .cutting import pieces
from .pure import IMPLEMENTATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .pure import Wire

MASKED, COMPRESSION, FRAMES, HOLDING, CLAIMED = 1, 2, 4, 8, 16
FIN = 0x80


class Taken(tuple[Any]):
    """A message that was claimed, and has come whole."""

    __slots__ = ()


def decode(decoder: Any, data: Sequence[bytes], limit: int) -> Iterator[list[Any]]:
    """All that comes out, in portions of ``limit``, each with what the decoder tells of itself."""
    arriving = decoder.arriving
    taken: list[Any] = []
    for piece in data:
        rest = piece
        while True:
            items = decoder.decode(rest, limit)
            assert len(items) <= limit + decoder.watch
            if items and type(items[-1]) is tuple and items[-1][0] == FIN:
                decoder.finish()  # as is done behind the last of a compressed message, once it is inflated
            if arriving.claimed:
                if arriving.held:
                    taken.append(arriving.take())
                if arriving.ended:
                    items.append(Taken(["".join(taken) if arriving.is_text else b"".join(taken)]))
                    arriving = decoder.arriving
            yield [*map(comparable, items), decoder.plain, decoder.pending, decoder.held, arriving.size, arriving.held]
            if decoder.held:
                decoder.holding = False  # Nobody wants it in pieces.
            if not decoder.pending:
                break
            rest = b""


def comparable(item: Any) -> Any:
    return (str(item), item.code) if isinstance(item, RemoteProtocolError) else item


def meaning(portions: Sequence[list[Any]]) -> tuple[list[Any], list[Any]]:
    """What was claimed, and the items but for frames; all that comes of one compressed message is one item."""
    taken: list[Any] = []
    found: list[Any] = []
    for portion in portions:
        for item in portion[:-5]:
            if isinstance(item, Taken):
                taken.append(item)
            elif type(item) is tuple and item[0] in (0, FIN) and found and found[-1][:1] == (0,):
                found[-1] = (item[0], found[-1][1] + item[1])
            elif not isinstance(item, Frame):
                found.append(item)
    return taken, found


def check(data: bytes) -> None:
    if len(data) < 4:
        return
    flags, max_size, size, limit = data[:4]
    wire = data[4:]

    def read(implementation: Wire, cut: int, limit: int) -> list[list[Any]]:
        decoder = implementation.codec.Decoder(bool(flags & MASKED), max_size, bool(flags & COMPRESSION))
        decoder.watch = bool(flags & FRAMES)
        decoder.holding = bool(flags & HOLDING)
        if flags & CLAIMED:
            decoder.arriving.claim()
        return list(decode(decoder, pieces(wire, cut), limit))

    expected = meaning(read(IMPLEMENTATIONS["pure Python"], 0, sys.maxsize))
    for cut in {1, size}:
        found = [read(implementation, cut, limit + 1) for implementation in IMPLEMENTATIONS.values()]
        assert found[0] == found[-1]
        assert meaning(found[0]) == expected
    for item in expected[1]:
        if isinstance(item, bytes):
            assert len(item) <= max_size
        elif isinstance(item, str):
            assert len(item.encode()) <= max_size
        elif type(item) is tuple and isinstance(item[1], bytes) and item[0] & 8:
            assert len(item[1]) <= 125
