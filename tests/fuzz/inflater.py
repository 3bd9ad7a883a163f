"""permessage-deflate: data within the limit or one kind of error, however a message is cut; and back what was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_pyjo_ws.errors import RemoteProtocolError
from trio_pyjo_ws.wire.deflate import Deflate

from .cutting import pieces

if TYPE_CHECKING:
    from trio_pyjo_ws.wire.deflate import PerMessageDeflate

NO_TAKEOVER, SMALL_WINDOW = 1, 2
END = b"\xfe\xfd\xfc"
"""What stands in an input between two messages."""


def inflate(codec: PerMessageDeflate, message: bytes, size: int, max_size: int) -> bytes | None:
    """The message, from fragments of ``size`` bytes; None where it is not right."""
    found = b""
    fragments = pieces(message, size) or [b""]
    try:
        for number, fragment in enumerate(fragments, 1):
            found += codec.decompress(fragment, final=number == len(fragments), max_size=max_size - len(found))
            assert len(found) <= max_size
    except RemoteProtocolError as error:
        # Where it is both corrupt and too big, which of the two zlib sees first depends on the fragments.
        assert error.code in (1007, 1009)
        return None
    return found


def inflate_in_pieces(codec: PerMessageDeflate, message: bytes, size: int) -> bytes:
    """The same as it arrives, in pieces of any size."""
    found = b""
    fragments = pieces(message, size) or [b""]
    for number, fragment in enumerate(fragments, 1):
        for piece in codec.decompress_in_pieces(fragment, final=number == len(fragments), size=100):
            assert 0 < len(piece) <= 100
            found += piece
    return found


def check(data: bytes) -> None:
    if len(data) < 3:
        return
    flags, bound, size = data[:3]
    takeover = not flags & NO_TAKEOVER
    bits = 9 + bound % 6 if flags & SMALL_WINDOW else 15
    wishes = Deflate(server_no_context_takeover=not takeover, server_max_window_bits=bits)
    max_size = bound * bound  # up to some 64 KiB
    cut, whole, streamed = (wishes.codec(client=True) for _ in range(3))
    messages = data[3:].split(END)
    for message in messages:
        found, again = inflate(cut, message, size, max_size), inflate(whole, message, 0, max_size)
        if bits < 15 and (found is None or again is None):
            break  # A reference beyond a small window is followed by zlib where it leads into the same call's output.
        assert found == again
        if found is None:
            break
        if bits == 15:
            assert inflate_in_pieces(streamed, message, size) == found
    sender, receiver = wishes.codec(client=False), wishes.codec(client=True)
    for message in messages:
        assert inflate(receiver, sender.compress(message), size, len(message)) == message
