"""What can go wrong, as types.

trio's own exceptions are used wherever trio has one: :class:`trio.EndOfChannel` after a normal close,
:class:`trio.ClosedResourceError` when this side closed, :class:`trio.BusyResourceError` for two receivers at once,
:class:`trio.WouldBlock` from the ``*_nowait`` calls and :class:`trio.TooSlowError` when opening takes too long.
The types below are for what trio cannot know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from .wire.frames import Close
    from .wire.negotiate import Response

__all__ = ["ConnectionClosed", "HandshakeError", "LocalProtocolError", "ProtocolError", "RemoteProtocolError"]


class ProtocolError(Exception):
    """A rule of RFC 6455 or RFC 7692 was broken; the subclass tells by which side."""


class LocalProtocolError(ProtocolError):
    """This side asked for something that the protocol does not allow in the present state."""


class RemoteProtocolError(ProtocolError):
    """The peer broke a rule.

    ``code`` is the close code that answers it (RFC 6455, section 7.4.1): 1002 for a breach of the framing rules,
    1007 for data that does not decode, 1008 for abuse of a limit, 1009 for a message that is too big.
    """

    def __init__(self, message: str, code: int = 1002) -> None:
        super().__init__(message)
        self.code = code


class HandshakeError(Exception):
    """The opening handshake failed (RFC 6455, section 4).

    On the client ``response`` is what the server answered, or None where there was no complete answer. On the server
    it is the response that tells the client what was wrong.
    """

    def __init__(self, message: str, response: Response | None = None) -> None:
        super().__init__(message)
        self.response = response


class ConnectionClosed(trio.BrokenResourceError):
    """The connection ended other than by a normal close (1000, 1001 or no code at all).

    ``close`` is the code and reason of the end: those that the peer sent, or 1006 when the connection was lost.
    """

    def __init__(self, close: Close) -> None:
        super().__init__(f"connection closed with {close.code}{f' ({close.reason})' if close.reason else ''}")
        self.close = close
