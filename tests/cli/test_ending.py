from __future__ import annotations

import signal

import pytest
import trio

from trio_pyjo_ws import Close, ConnectionClosed, HandshakeError, Response
from trio_pyjo_ws.cli.ending import Status, describe, status_of, status_of_close, watch_signals


class GroupError(Exception):
    """As an exception group is, which Python 3.10 does not have."""

    def __init__(self, *exceptions: Exception) -> None:
        super().__init__("a group")
        self.exceptions = exceptions


@pytest.mark.parametrize(
    ("exc", "line"),
    [
        (ValueError("no good"), "ValueError: no good"),
        (ValueError("two\n  lines \x1b[2J"), r"ValueError: two lines \x1b[2J"),
        (RuntimeError(), "RuntimeError"),
        (trio.TooSlowError(), "timed out"),
        (OSError(), "OSError"),
        (OSError("all attempts failed"), "all attempts failed"),
        (FileNotFoundError(2, "No such file or directory"), "No such file or directory"),
        (FileNotFoundError(2, "No such file", "/x"), "[Errno 2] No such file: '/x'"),
        (ImportError("pip install"), "pip install"),
        (trio.TooSlowError("ws://test/ was not open"), "ws://test/ was not open"),
        (GroupError(GroupError(KeyError("a"), ValueError("b"))), "KeyError: 'a'"),
    ],
)
def test_an_exception_is_one_line(exc: Exception, line: str) -> None:
    assert describe(exc) == line


@pytest.mark.parametrize(
    ("exc", "status"),
    [
        (RuntimeError(), Status.FAILED),
        (ConnectionRefusedError(), Status.NO_CONNECTION),
        (trio.TooSlowError(), Status.NO_CONNECTION),
        (HandshakeError("TLS failed"), Status.NO_CONNECTION),
        (HandshakeError("404", Response(404)), Status.REFUSED),
        (GroupError(ConnectionClosed(Close(1011))), Status.CLOSED),
    ],
)
def test_an_exception_has_a_status(exc: Exception, status: Status) -> None:
    assert status_of(exc) is status


@pytest.mark.parametrize(("code", "status"), [(1000, 0), (1001, 0), (1005, 0), (1006, 5), (1011, 5), (4000, 5)])
def test_a_close_has_a_status(code: int, status: int) -> None:
    assert status_of_close(Close(code)) == status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_the_first_signal_stops_and_the_second_is_python_s_own(number: int, nursery: trio.Nursery) -> None:
    before = signal.getsignal(number)
    stopped: list[int] = []
    await nursery.start(watch_signals, stopped.append)
    signal.raise_signal(number)
    with trio.fail_after(5):
        while not stopped:
            await trio.lowlevel.checkpoint()
    assert stopped == [number]
    assert signal.getsignal(number) is before
