# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False, nonecheck=True
"""Compressed messages, inflated step by step: a few bytes may become a whole message, and one message any size.

What has come of a message is fed here, and :meth:`Inflating.advance` adds what it inflates to to the message that is
arriving. It stops when a call has inflated enough, so no peer decides how long a call takes; and at the limit of a
message, before it is inflated further.
"""

from __future__ import annotations

from sys import getsizeof
from typing import TYPE_CHECKING

from ..errors import RemoteProtocolError

if TYPE_CHECKING:
    from .codec import Decoder
    from .deflate import PerMessageDeflate

__all__ = ["AT_ONCE", "STEP", "Inflating"]

STEP = 65_536
"""Bytes that a message is inflated by at a time, before its size is looked at again."""

AT_ONCE = 524_288
"""Bytes that are inflated before others have their turn: some 1 ms."""

STEP_PRICE = 4096
"""What a step and the end of a part cost, whatever they give: as long as each takes, so much could be inflated."""


class Inflating:
    """The inflation of the messages that ``decoder`` gives, by ``deflate``."""

    __slots__ = ("_decoder", "_deflate", "_last", "active", "budget", "held")

    def __init__(self, decoder: Decoder, deflate: PerMessageDeflate) -> None:
        self.active = False
        """Whether there is something to inflate. Nothing else is decoded until it has been."""
        self.held = False
        """Whether the last step has stopped at the limit, as the decoder is to hold there."""
        self.budget = 0
        """Bytes of memory that may still be filled, at the price of a step, before :meth:`advance` is called again."""
        self._decoder = decoder
        self._deflate = deflate
        self._last = False

    def feed(self, payload: bytes, last: bool) -> None:
        """Take in a part of the message that is arriving, and whether it is the last."""
        self._deflate.feed(payload)
        self._last = last
        self.active = True

    def advance(self) -> str | bytes | None:
        """Inflate what was fed, as far as the budget goes; return the message, if it has come whole and is not claimed.

        Raises RemoteProtocolError for a message over the limit, or that does not decode.
        """
        decoder = self._decoder
        deflate = self._deflate
        arriving = decoder.arriving
        self.held = False
        try:
            while True:
                size = STEP
                if not arriving.claimed:
                    room = decoder.max_size - arriving.held
                    if room < 0:
                        if decoder.holding:
                            self.held = True
                            return None
                        raise RemoteProtocolError(f"a message of more than {decoder.max_size} bytes", 1009)
                    if room < size:
                        size = room + 1  # One byte more than is allowed tells whether there is more.
                if not deflate.more:
                    break
                if self.budget <= 0:
                    return None
                output = deflate.inflate(size)
                self.budget -= len(output) + deflate.copied + STEP_PRICE
                arriving.add(output, False)
            self.active = False
            self.budget -= STEP_PRICE
            if not self._last:
                return None
            deflate.end()
            arriving.add(b"", True)
        except UnicodeDecodeError:
            raise RemoteProtocolError("text that is not UTF-8", 1007) from None
        held = arriving.held
        message = decoder.finish()
        if message is not None:
            self.budget -= getsizeof(message) - held
        return message
