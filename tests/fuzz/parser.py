"""The decoders: the twins give the same, whatever comes and however it is cut."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from trio_pyjo_ws.errors import RemoteProtocolError
from trio_pyjo_ws.wire import _codec, _compiled

from .cutting import pieces

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

MASKED, COMPRESSION, FRAMES = 1, 2, 4


def decode(decoder: Any, data: Sequence[bytes], limit: int) -> list[Any]:
    """All that comes out, in portions of ``limit``."""
    found: list[Any] = []
    for piece in data:
        found.append(decoder.decode(piece, limit))
        while decoder.pending:
            assert len(found[-1]) <= limit
            found.append(decoder.decode(b"", limit))
    return [[(str(i), i.code) if isinstance(i, RemoteProtocolError) else i for i in portion] for portion in found]


def check(data: bytes) -> None:
    if len(data) < 4:
        return
    flags, max_size, size, limit = data[:4]
    wire = data[4:]

    def decoder(twin: ModuleType) -> Any:
        found = twin.Decoder(bool(flags & MASKED), max_size, bool(flags & COMPRESSION))
        found.straight = not flags & FRAMES
        return found

    (items,) = decode(decoder(_codec), [wire], sys.maxsize)
    for cut in {1, size}:
        pure, compiled = decoder(_codec), decoder(_compiled)
        found = decode(pure, pieces(wire, cut), limit + 1)
        assert decode(compiled, pieces(wire, cut), limit + 1) == found
        assert (pure.plain, pure.pending) == (compiled.plain, compiled.pending)
        assert [item for portion in found for item in portion] == items
    for item in items:
        if isinstance(item, bytes):
            assert len(item) <= max_size
        elif isinstance(item, str):
            assert len(item.encode()) <= max_size
        elif isinstance(item[1], bytes):
            head, payload = item
            assert len(payload) <= (125 if head & 8 else _codec.size_bound(head, max_size, True))
