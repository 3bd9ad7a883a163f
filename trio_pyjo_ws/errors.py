"""The exceptions.

trio's own exceptions are used wherever trio has one: :class:`trio.EndOfChannel` after a normal close,
:class:`trio.ClosedResourceError` when this side closed, :class:`trio.BusyResourceError` for two receivers at once,
:class:`trio.WouldBlock` from the ``*_nowait`` calls and :class:`trio.TooSlowError` when opening takes too long.
The types below are for what trio does not cover. Their messages may quote the peer, and are safe to log and to print:
see :func:`~trio_pyjo_ws.escaping.escape`. All of them can be copied and pickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .escaping import escape

if TYPE_CHECKING:
    from .handshake.messages import Response
    from .wire.frames import Close

__all__ = [
    "ConnectionClosed",
    "HandshakeError",
    "LocalProtocolError",
    "Missed",
    "ProtocolError",
    "RemoteProtocolError",
    "RoomsUnavailable",
]


class ProtocolError(Exception):
    """A rule of RFC 6455 or RFC 7692 was broken; the subclass says by which side."""

    def __init__(self, message: str) -> None:
        super().__init__(escape(message))


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

    On the client ``response`` is what the server answered, or None if there was no complete answer. On the server it is
    the response that tells the client what was wrong.
    """

    def __init__(self, message: str, response: Response | None = None) -> None:
        super().__init__(escape(message))
        self.response = response


class ConnectionClosed(trio.BrokenResourceError):
    """The connection ended other than by a normal close (1000, 1001 or no code, after a whole message).

    ``close`` is the code and reason of the end: those that the peer sent, or 1006 if the connection was lost. ``cut``
    is True if the peer's Close came in the middle of a message, whatever its code.
    """

    def __init__(self, close: Close, cut: bool = False) -> None:
        super().__init__(close)
        self.close = close
        self.cut = cut

    def __str__(self) -> str:
        code, reason = self.close
        where = " in the middle of a message" if self.cut else ""
        return f"connection closed with {code}{f' ({escape(reason)})' if reason else ''}{where}"


class Missed(LookupError):
    """Messages of a room in between are no longer kept: whoever joins has to begin anew."""


class RoomsUnavailable(trio.BrokenResourceError):
    """The broker of the rooms did not do what was asked, or did not answer within 5 seconds.

    Whether a message whose ``publish`` raises this was published is unknown, unless the text says so.
    """
