"""How a program ends: its exit status, the signals that end it, and an exception in one line."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING

import trio

from .. import ConnectionClosed, HandshakeError
from .._engine.failures import first_of
from ..escaping import escape
from ..wire.frames import NORMAL_CODES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .. import Close

__all__ = ["SIGINT_STATUS", "Status", "describe", "naming", "status_of", "status_of_close", "watch_signals"]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

_PLAIN = (OSError, ImportError, HandshakeError, trio.TooSlowError)
"""Exceptions whose type says no more than their words."""

SIGINT_STATUS = 128 + signal.SIGINT


class Status(IntEnum):
    """The exit statuses. A program that a signal has ended exits with 128 and the signal's number, as in a shell."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_CONNECTION = 3
    REFUSED = 4
    CLOSED = 5


def describe(exc: BaseException) -> str:
    """What went wrong, in one line that is safe to print."""
    exc = first_of(exc)
    text = exc.strerror if isinstance(exc, OSError) and exc.strerror and not exc.filename else str(exc)
    words = escape(" ".join(text.split()))
    if isinstance(exc, _PLAIN) and words:
        return words
    if isinstance(exc, trio.TooSlowError):
        return "timed out"
    return f"{type(exc).__name__}: {words}" if words else type(exc).__name__


@contextmanager
def naming(target: str) -> Iterator[None]:
    """Around connecting: errors of the system, which do not say to whom, say so."""
    try:
        yield
    except OSError as exc:
        if not exc.strerror:
            raise  # trio's own: it has the address
        raise OSError(f"cannot connect to {target}: {exc.strerror}") from exc


def status_of(exc: BaseException) -> Status:
    """The exit status of a program that ``exc`` has ended."""
    exc = first_of(exc)
    if isinstance(exc, HandshakeError):
        return Status.NO_CONNECTION if exc.response is None else Status.REFUSED
    if isinstance(exc, ConnectionClosed):
        return Status.CLOSED
    if isinstance(exc, (OSError, trio.TooSlowError)):
        return Status.NO_CONNECTION
    return Status.FAILED


def status_of_close(close: Close) -> Status:
    """The exit status of a program whose connection has ended with ``close``."""
    return Status.DONE if close.code in NORMAL_CODES else Status.CLOSED


async def watch_signals(
    stop: Callable[[int], object], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Call ``stop(signal number)`` for the first signal that asks the program to end. A task, for ``nursery.start``.

    The second one has its usual effect: whoever asks twice does not want to wait.
    """
    with trio.open_signal_receiver(*SIGNALS) as received:
        task_status.started()
        async for number in received:
            stop(number)
            break
