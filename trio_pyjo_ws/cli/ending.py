"""How a program ends: its exit status, the signals that end it, and an exception in one line."""

from __future__ import annotations

import signal
from enum import IntEnum
from typing import TYPE_CHECKING

import trio

from .. import ConnectionClosed, HandshakeError
from ..connection import NORMAL_CODES
from .show import visible

if TYPE_CHECKING:
    from collections.abc import Callable

    from .. import Close

__all__ = ["SIGINT_STATUS", "Status", "describe", "first_of", "status_of", "status_of_close", "watch_signals"]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

SIGINT_STATUS = 128 + signal.SIGINT


class Status(IntEnum):
    """The exit statuses. A program that a signal has ended exits with 128 and the signal's number, as in a shell."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_CONNECTION = 3
    REFUSED = 4
    CLOSED = 5


def first_of(exc: BaseException) -> BaseException:
    """The exception itself; of a group, which a nursery makes even of a single exception, the first."""
    while isinstance(exceptions := getattr(exc, "exceptions", None), tuple):
        exc = exceptions[0]
    return exc


def describe(exc: BaseException) -> str:
    """What went wrong, in one line that is safe to print."""
    exc = first_of(exc)
    if isinstance(exc, trio.TooSlowError):
        return "timed out"
    words = visible(" ".join(str(exc).split()))
    return f"{type(exc).__name__}: {words}" if words else type(exc).__name__


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
