"""permessage-deflate: data or one kind of error, however a message is cut and inflated; and back what was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_pyjo_ws.errors import RemoteProtocolError
from trio_pyjo_ws.wire.deflate import MAX_STREAMS, Deflate

from .cutting import pieces

if TYPE_CHECKING:
    from trio_pyjo_ws.wire.deflate import PerMessageDeflate

NO_TAKEOVER, SMALL_WINDOW = 1, 2
END = b"\xfe\xfd\xfc"
"""What stands in an input between two messages."""


def inflate(codec: PerMessageDeflate, message: bytes, size: int, step: int, max_size: int) -> bytes | None:
    """The message, from fragments of ``size`` bytes, ``step`` bytes at a time; None if it is wrong or too large."""
    found = b""
    try:
        for fragment in pieces(message, size):
            codec.feed(fragment)
            while codec.more:
                output = codec.inflate(step)
                assert len(output) <= step
                found += output
                if len(found) > max_size:
                    return None
        codec.end()
    except RemoteProtocolError as error:
        assert error.code in (1007, 1008)
        assert error.code == 1007 or len(message) >= 2 * MAX_STREAMS
        return None
    return found


def check(data: bytes) -> None:
    if len(data) < 3:
        return
    flags, bound, size = data[:3]
    takeover = not flags & NO_TAKEOVER
    bits = 9 + bound % 6 if flags & SMALL_WINDOW else 15
    wishes = Deflate(server_no_context_takeover=takeover is False, server_max_window_bits=bits)
    max_size = bound * bound  # up to some 64 KiB
    steps = (bound + 1, 100_000)
    codecs = [(wishes.codec(client=True), cut, step) for cut in (size, 0) for step in steps]
    messages = data[3:].split(END)
    for message in messages:
        found = [inflate(codec, message, cut, step, max_size) for codec, cut, step in codecs]
        if bits < 15 and None in found:
            break  # A reference beyond a small window is followed by zlib where it leads into the same call's output.
        assert all(again == found[0] for again in found)
        if found[0] is None:
            break
    sender, receiver = wishes.codec(client=False), wishes.codec(client=True)
    for message in messages:
        assert inflate(receiver, sender.compress(message), size, bound + 1, len(message)) == message
