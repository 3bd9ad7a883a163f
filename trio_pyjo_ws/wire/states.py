"""Where a connection stands, and what moves it: the one table of its states."""

from __future__ import annotations

from enum import Enum

__all__ = ["TRANSITIONS", "Signal", "State"]


class State(Enum):
    """Where a connection stands (RFC 6455, section 4.1 and section 7.1)."""

    CONNECTING = "connecting"
    OPEN = "open"
    CLOSING = "closing"  # this side sent Close, the peer's is awaited
    CLOSED = "closed"  # Close went both ways; the end of the stream is awaited
    FAILED = "failed"  # the handshake failed, or the peer broke a rule and was told so; what still comes is ignored
    ENDED = "ended"  # the stream is over


class Signal(Enum):
    """What moves a connection from one state to the next."""

    ESTABLISHED = "the opening handshake succeeded"
    REFUSED = "the opening handshake failed"
    CLOSE_SENT = "Close sent"
    CLOSE_RECEIVED = "Close received"
    BREACH = "the peer broke a rule"
    END = "end of stream"


TRANSITIONS: dict[State, dict[Signal, State]] = {
    State.CONNECTING: {
        Signal.ESTABLISHED: State.OPEN,
        Signal.REFUSED: State.FAILED,
        Signal.END: State.ENDED,
    },
    State.OPEN: {
        Signal.CLOSE_SENT: State.CLOSING,
        Signal.CLOSE_RECEIVED: State.CLOSED,
        Signal.BREACH: State.FAILED,
        Signal.END: State.ENDED,
    },
    State.CLOSING: {
        Signal.CLOSE_RECEIVED: State.CLOSED,
        Signal.BREACH: State.FAILED,
        Signal.END: State.ENDED,
    },
    State.CLOSED: {Signal.END: State.ENDED},
    State.FAILED: {Signal.END: State.ENDED},
    State.ENDED: {Signal.END: State.ENDED},
}
