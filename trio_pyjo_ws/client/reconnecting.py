"""One connection after the other: ``async with reconnecting(url) as connections``, ``async for ws in connections``.

All the connections live in one nursery, which the block opens and closes in the task that runs it. A loop alone could
not have one: Python tells nobody that a loop was left by ``break`` or by an exception, and a nursery must be closed.

A connection is closed where the loop asks for the next one, and the last where the block is left. So there is at most
one, and what the body of the loop raises never comes to the code that judges errors of connecting.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from http import HTTPStatus
from secrets import SystemRandom
from typing import TYPE_CHECKING, Literal

import trio

from .._engine.nursery import HiddenNursery
from .._engine.tls import is_eof
from ..errors import HandshakeError
from ..escaping import escape
from ..options import ClientOptions, ClientSettings
from ..signatures import shows
from ..transaction import Transaction
from .connecting import Target, check_positional

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Never, Self, Unpack

    from .connecting import OpenStream

__all__ = ["Reconnecting", "is_transient", "reconnecting"]

logger = logging.getLogger("trio_pyjo_ws")

_jitter = SystemRandom()
_DOUBLINGS = 60
"""More would change nothing: the delay is longer than any ``max_delay`` by then, and 2.0 ** 1024 overflows."""

_SECONDS = re.compile("[0-9]{1,9}")


def is_transient(exc: Exception) -> bool:
    """Whether a failed attempt to connect may succeed later: what :func:`reconnecting` asks by default.

    True for a name that does not resolve, a connection that is refused, reset, lost in the opening handshake or too
    slow, and a response with 429 or 5xx. False for any other response, a failure of TLS (a bad certificate above
    all), and wrong arguments.
    """
    if isinstance(exc, HandshakeError) and exc.response is not None:
        status = exc.response.status
        return status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLError) and not is_eof(cause):
            return False
        cause = cause.__cause__
    if isinstance(exc, HandshakeError):
        return exc.__cause__ is None or isinstance(exc.__cause__, trio.BrokenResourceError)
    return isinstance(exc, (OSError, trio.TooSlowError, trio.BrokenResourceError))


@shows(ClientOptions, defaults=ClientSettings.defaults())
def reconnecting(
    url: str,
    *misplaced: Never,
    initial_delay: float = 1.0,
    max_delay: float = 60.0,
    healthy_after: float = 60.0,
    max_attempts: int | None = None,
    is_transient: Callable[[Exception], bool] = is_transient,
    open_stream: OpenStream | None = None,
    **options: Unpack[ClientOptions],
) -> Reconnecting:
    """Open connections to ``url``, one after the other, each as :func:`~trio_pyjo_ws.connect` does.

    ``async with reconnecting(url) as connections: async for ws in connections``. The next connection is opened when the
    body of the loop has ended; the last one is closed with 1000 first, if it is still open. Before each attempt but
    the first the loop waits: a random time of at most ``initial_delay`` seconds, which doubles with each failure in a
    row up to ``max_delay`` (exponential backoff with full jitter). A connection that held for less than
    ``healthy_after`` seconds is a failure, too. A Retry-After in seconds is added, within ``max_delay``.

    ``is_transient`` is asked about each exception of connecting: if it returns False, and after ``max_attempts``
    attempts in a row, that exception comes out of the loop. ``open_stream()`` returns the stream of each attempt, or an
    awaitable of it, in place of a TCP connection. ``options`` are those of :class:`~trio_pyjo_ws.ClientOptions`.
    Raises ValueError or TypeError at once for wrong arguments. See :class:`Reconnecting`.
    """
    check_positional("reconnecting", url, misplaced)
    for name, value in (("initial_delay", initial_delay), ("max_delay", max_delay), ("healthy_after", healthy_after)):
        if not value >= 0:
            raise ValueError(f"{name} must be a number of seconds, at least 0, not {value!r}")
    if max_attempts is not None and max_attempts < 1:
        raise ValueError(f"max_attempts must be at least 1, or None for no limit, not {max_attempts!r}")
    target = Target(url, options, open_stream=open_stream)
    return Reconnecting(target, initial_delay, max_delay, healthy_after, max_attempts, is_transient)


class Reconnecting(AsyncIterator[Transaction]):
    """The connections of :func:`reconnecting`: an ``async with`` block, once, and in it an ``async for`` loop.

    The connections live in a nursery of the block. Leaving the block closes the open one with 1000, as
    :meth:`Transaction.aclose` does, and waits for that; if the block is cancelled, the socket is closed at once. A
    loop that was left keeps its connection until then, or until another loop asks for the next.

    An exception of the block comes out as it is, and so does its Cancelled. A callback that fails cancels the block,
    and its exception comes out in a group, as from any nursery; if the block fails, too, both are in the group.
    """

    _nursery: trio.Nursery
    _last: Transaction | None = None
    _since: float

    def __init__(
        self,
        target: Target,
        initial_delay: float,
        max_delay: float,
        healthy_after: float,
        max_attempts: int | None,
        is_transient: Callable[[Exception], bool],
    ) -> None:
        self._target = target
        self._initial_delay = initial_delay
        self._max_delay = max_delay
        self._healthy_after = healthy_after
        self._max_attempts = max_attempts
        self._is_transient = is_transient
        self._failures = 0
        self._block = AsyncExitStack()
        self._state: Literal["new", "open", "left"] = "new"
        self._connecting = False

    def __repr__(self) -> str:
        return f"<Reconnecting {self._state} {self._target.url.origin}>"

    async def __aenter__(self) -> Self:
        if self._state != "new":
            raise RuntimeError("this block was entered before: call reconnecting() again")
        self._nursery = await self._block.enter_async_context(HiddenNursery())
        self._block.push_async_exit(self._leave)
        self._state = "open"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._block.__aexit__(exc_type, exc, traceback)

    async def _leave(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._connecting:
            # Another task is connecting, and nobody would close its connection: cancelling closes it at once.
            self._nursery.cancel_scope.cancel()
        self._state = "left"
        if self._last is not None:
            await self._last.__aexit__(exc_type, exc, traceback)

    def __aiter__(self) -> Self:
        if self._state == "new":
            raise TypeError("use async with reconnecting(...) as connections, and in it: async for ws in connections")
        return self

    async def __anext__(self) -> Transaction:
        """Close the last connection, and open the next. A checkpoint; cancelled, no connection is open.

        Raises the exception of an attempt that is not transient, :class:`trio.BusyResourceError` while another task
        waits here, and :class:`trio.ClosedResourceError` outside of the block.
        """
        if self._state != "open":
            raise trio.ClosedResourceError("the block of these connections is not open")
        if self._connecting:
            raise trio.BusyResourceError("another task is waiting for the next connection already")
        self._connecting = True
        try:
            await self._close_last()
            self._last = await self._connect()
        finally:
            self._connecting = False
        self._since = trio.current_time()
        return self._last

    async def _close_last(self) -> None:
        """Close what is open of the last connection; gracefully, unless cancelled."""
        last, self._last = self._last, None
        if last is None:
            await trio.lowlevel.checkpoint()
            return
        held = trio.current_time() - self._since
        self._failures = 1 if held >= self._healthy_after else self._failures + 1
        await last.aclose()

    async def _connect(self) -> Transaction:
        attempts = retry_after = 0
        origin = self._target.url.origin
        why = f"the connection to {origin} has ended"
        while True:
            if self._failures:
                delay = min(self._draw_delay() + retry_after, self._max_delay)
                logger.info("%s; connecting in %.1f seconds", why, delay)
                await trio.sleep(delay)
            try:
                return await self._target.connect(self._nursery)
            except Exception as exc:
                attempts += 1
                if attempts == self._max_attempts or not self._is_transient(exc):
                    raise
                self._failures += 1
                retry_after = _retry_after(exc)
                why = f"connecting to {origin} has failed: {type(exc).__name__}: {escape(str(exc))}"

    def _draw_delay(self) -> float:
        longest = self._initial_delay * 2.0 ** min(self._failures - 1, _DOUBLINGS)
        return _jitter.uniform(0, min(longest, self._max_delay))


def _retry_after(exc: Exception) -> int:
    """The seconds of a Retry-After (RFC 9110, section 10.2.3); 0 if there is none, or a date."""
    response = exc.response if isinstance(exc, HandshakeError) else None
    value = "" if response is None else response.headers.get("Retry-After", "")
    return int(value) if _SECONDS.fullmatch(value) else 0
