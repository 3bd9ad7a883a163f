"""One connection after the other: ``async for ws in reconnecting(url)``.

A loop tells nobody that it was left: ``break``, ``return`` and an exception in its body drop the iterator, and that is
all. So no nursery may be open in the loop's own task while its body runs. An async generator with a nursery around its
``yield`` has one: left by ``break``, its cancel scopes stay in the task until the generator is collected, and are then
closed in another. Here each connection has a :class:`_Home`: a nursery in a task of its own, beside the caller's, in
which nothing but the connection runs. Three things end it, all by cancelling its scope: the next turn of the loop,
:meth:`Reconnecting.aclose`, and the iterator's end. In ``async for ws in reconnecting(url)`` the loop alone holds the
iterator, so CPython drops it with the loop, at once; who holds it in a variable uses ``async with``.

Connecting happens in the caller's task: cancelling it cancels that, and what is raised comes out of the loop. What the
body raises never comes here, so it cannot be taken for an error of the connection.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from contextvars import copy_context
from http import HTTPStatus
from secrets import SystemRandom
from typing import TYPE_CHECKING

import trio

from .client import Target
from .errors import HandshakeError
from .transaction import Transaction
from .transport import is_eof
from .wire.frames import Opcode

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from .settings import ClientOptions

__all__ = ["Reconnecting", "is_transient", "reconnecting"]

logger = logging.getLogger("trio_pyjo_ws")

_jitter = SystemRandom()
_DOUBLINGS = 60
"""More would be the same: a second becomes longer than any time there is, and two to the 1024th is no float."""

_SECONDS = re.compile("[0-9]{1,9}")
_CLOSE_1000 = (True, False, False, False, Opcode.CLOSE, b"\x03\xe8")


def is_transient(exc: Exception) -> bool:
    """Whether what failed to connect may succeed later: what :func:`reconnecting` asks unless it is told otherwise.

    That is a name that does not resolve, a connection that is refused, reset, lost in the opening handshake or too
    slow, and a response with 429 or 5xx. Any other response is not, nor a failure of TLS (a bad certificate above all),
    nor arguments that do not fit.
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
    return isinstance(exc, (OSError, trio.TooSlowError))


def reconnecting(
    url: str,
    *,
    initial_delay: float = 1.0,
    max_delay: float = 60.0,
    healthy_after: float = 60.0,
    max_attempts: int | None = None,
    is_transient: Callable[[Exception], bool] = is_transient,
    **options: Unpack[ClientOptions],
) -> Reconnecting:
    """Connections to ``url``, one after the other, for ``async for``; each as :func:`~trio_pyjo_ws.connect` opens it.

    The next one is opened when the body of the loop has ended; what is still open of the last one is closed with 1000
    before. Before each but the first the loop waits: a random time of at most ``initial_delay`` seconds, which doubles
    with each failure in a row up to ``max_delay`` (exponential backoff with full jitter), and with a connection that
    held for less than ``healthy_after`` seconds, too. A Retry-After in seconds is waited for besides, within
    ``max_delay``.

    ``is_transient`` is asked about each exception of connecting: where it returns False, and after ``max_attempts``
    attempts in a row, that exception comes out of the loop. ``options`` are those of
    :class:`~trio_pyjo_ws.ClientOptions`. Raises ValueError or TypeError at once for arguments that do not fit.
    """
    for name, value in (("initial_delay", initial_delay), ("max_delay", max_delay), ("healthy_after", healthy_after)):
        if not value >= 0:
            raise ValueError(f"{name} is a number of seconds, not {value!r}")
    if max_attempts is not None and max_attempts < 1:
        raise ValueError(f"max_attempts is at least 1, or None for no limit; not {max_attempts!r}")
    target = Target(url, options)
    return Reconnecting(target, initial_delay, max_delay, healthy_after, max_attempts, is_transient)


class _Home:
    """The nursery of one connection, in a task of its own. Nothing in it refers to the loop, whose end ends it."""

    nursery: trio.Nursery
    transaction: Transaction
    since: float

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.opened = trio.Event()
        self.closed = trio.Event()
        self.failure: Exception | None = None

    async def run(self) -> None:
        try:
            with self.scope:
                async with trio.open_nursery() as self.nursery:
                    self.opened.set()
                    await trio.sleep_forever()
        finally:
            self.closed.set()

    def crash(self, exc: Exception) -> None:
        """A callback has failed: the connection ends, and the exception waits for the loop's next turn."""
        if self.failure is None:
            self.failure = exc
        else:
            logger.error("another callback of %r failed", self.transaction, exc_info=exc)
        self.transaction._close_soon(1011)  # noqa: SLF001 - as a server does

    def leave(self) -> None:
        """The loop was left: tell the peer, in case, and do not wait."""
        with suppress(trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self.transaction.send_nowait(frame=_CLOSE_1000)
        if self.failure is not None:
            logger.error("a callback of %r failed", self.transaction, exc_info=self.failure)
        self.scope.cancel()


class Reconnecting(trio.abc.AsyncResource, AsyncIterator[Transaction]):
    """The connections of :func:`reconnecting`.

    ``async for ws in reconnecting(url)`` needs nothing else: leaving that loop, in whatever way, sends Close 1000, as
    far as that goes without waiting, and closes the socket. ``async with reconnecting(url) as connections`` around the
    loop closes gracefully, and waits for it, when the block is left; use it wherever the object has a name of its own.
    """

    _home: _Home | None = None
    _token: trio.lowlevel.TrioToken

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
        self._closed = False
        self._opening = trio.CancelScope()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Transaction:
        """Close the last connection, and open the next. A checkpoint; cancelled, no connection is open.

        Raises the exception of a callback that has failed, which has closed its connection with 1011.
        """
        await self._end_last()
        if self._closed:
            raise StopAsyncIteration
        home = _Home()
        self._opening = trio.CancelScope()
        try:
            name = f"connections to {self._target.url.origin}"
            trio.lowlevel.spawn_system_task(home.run, name=name, context=copy_context())
            with self._opening:
                await home.opened.wait()
                home.transaction = await self._connect(home)
        except BaseException:
            home.scope.cancel()
            raise
        if self._opening.cancelled_caught:
            home.scope.cancel()
            raise StopAsyncIteration
        home.since = trio.current_time()
        self._home = home
        self._token = trio.lowlevel.current_trio_token()
        return home.transaction

    async def _connect(self, home: _Home) -> Transaction:
        attempts = retry_after = 0
        origin = self._target.url.origin
        why = f"the connection to {origin} has ended"
        while True:
            if self._failures:
                delay = min(self._draw_delay() + retry_after, self._max_delay)
                logger.info("%s; connecting in %.1f seconds", why, delay)
                await trio.sleep(delay)
            try:
                return await self._target.connect(home.nursery, crash=home.crash)
            except Exception as exc:
                attempts += 1
                if attempts == self._max_attempts or not self._is_transient(exc):
                    raise
                self._failures += 1
                retry_after = _retry_after(exc)
                why = f"connecting to {origin} has failed: {exc!r}"

    def _draw_delay(self) -> float:
        longest = self._initial_delay * 2.0 ** min(self._failures - 1, _DOUBLINGS)
        return _jitter.uniform(0, min(longest, self._max_delay))

    async def _end_last(self) -> None:
        """Close what is open of the last connection; gracefully, unless cancelled."""
        home, self._home = self._home, None
        if home is None:
            await trio.lowlevel.checkpoint()
            return
        healthy = trio.current_time() - home.since >= self._healthy_after
        self._failures = 1 if healthy else self._failures + 1
        try:
            await home.transaction.aclose()
        finally:
            home.scope.cancel()
        await home.closed.wait()
        if home.failure is not None:
            raise home.failure

    async def aclose(self) -> None:
        """End the loop, also where it is connecting: close what is open with 1000, and wait for that.

        Cancelled, the socket is closed at once. Raises what :meth:`__anext__` raises of callbacks. A checkpoint.
        """
        self._closed = True
        self._opening.cancel()
        await self._end_last()

    def __del__(self) -> None:
        if self._home is not None:
            # The collector may call this anywhere, in any thread, and after the run.
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._home.leave)


def _retry_after(exc: Exception) -> int:
    """The seconds of a Retry-After (RFC 9110, section 10.2.3); 0 where there is none, or a date."""
    response = exc.response if isinstance(exc, HandshakeError) else None
    value = "" if response is None else response.headers.get("Retry-After", "")
    return int(value) if _SECONDS.fullmatch(value) else 0
