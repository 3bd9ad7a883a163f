"""A conversation: messages between a screen and a server, over one connection or, after each other, over several."""

from __future__ import annotations

import re
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from .. import Close, ConnectionClosed, HandshakeError
from ..escaping import escape
from ..handshake.url import Url
from ..json_codec import UndecodedJson, to_json
from ..wire.frames import check_close
from .ending import SIGINT_STATUS, Status, describe, naming, status_of_close, watch_signals
from .show import shorten, visible

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator

    from .. import Request, Response, Transaction
    from .screens import Kind, Screen

__all__ = ["Conversation"]

_COMMAND = re.compile(r"(/+)(ping|close)(?: +(.*))?", re.DOTALL)
"""What is a command if it is typed; with one slash more it is a message with one slash less."""

NORMAL = Close(1000, "")
OWN_CODES = frozenset({1002, 1006, 1007, 1008, 1009})
"""What may be this side's verdict on the server: a lost connection, or a rule or limit that was broken."""

MAX_SHOWN = 60
MAX_BODY = 2_000
"""Characters of a refusal's body that `-v` shows."""


class Conversation:
    """What `connect` does. It outlives a connection: what was read and not sent goes over the next one."""

    def __init__(self, screen: Screen, arguments: argparse.Namespace) -> None:
        self._screen = screen
        self._arguments = arguments
        self._kind: Kind = arguments.kind
        self._typed = screen.typed and not arguments.execute
        self._given: list[str] = list(arguments.execute)
        self._wait: float = arguments.wait or (float("inf") if arguments.one_message else 1.0)
        self._unsent: str | bytes | None = None
        self._received = 0
        self._scope = trio.CancelScope()
        self._silence = trio.CancelScope()
        self._close = NORMAL
        self._over = False
        self._status: int | None = None

    async def run(self, connections: AsyncIterator[Transaction]) -> int:
        """Talk over one connection after the other until it is enough, and return the exit status.

        Raises what connecting raises.
        """
        status: int = Status.DONE
        async with trio.open_nursery() as nursery:
            await nursery.start(watch_signals, self._stop)
            while (ws := await self._connect(connections)) is not None:
                status = await self._talk(ws)
                if self._over or not self._arguments.reconnect:
                    break
            nursery.cancel_scope.cancel()
        return status if self._status is None else self._status

    def retried(self, exc: Exception) -> None:
        """Connecting has failed, and is tried again."""
        self._nursery.start_soon(self._screen.note, f"{describe(exc)}; trying again")

    def _stop(self, number: int) -> None:
        """A signal has come."""
        self._end(128 + number)

    def _end(self, status: int | None = None) -> None:
        """This side has had enough."""
        self._over = True
        if status is not None:
            self._status = status
        self._scope.cancel()

    async def _connect(self, connections: AsyncIterator[Transaction]) -> Transaction | None:
        """Return the next connection; None if the user does not want to wait for it."""
        ws: Transaction | None = None
        async with trio.open_nursery() as self._nursery:
            self._scope = self._nursery.cancel_scope
            self._nursery.start_soon(self._end_when_left)
            try:
                with naming(self._arguments.unix or self._shown_url()):
                    ws = await anext(connections)
            except HandshakeError as exc:
                if self._arguments.verbose and exc.response is not None:
                    await self._show_response(exc.response)
                raise
            self._nursery.cancel_scope.cancel()
        return ws

    async def _end_when_left(self) -> None:
        await self._screen.wait_left()
        self._end(SIGINT_STATUS if self._screen.interrupted else None)

    async def _talk(self, ws: Transaction) -> int:
        """Carry messages until either side has had enough, close, and return the exit status."""
        async with trio.open_nursery() as nursery:
            self._screen.opened(ws, nursery)
            await self._show_opening(ws)
            await self._carry(ws)
            by_server = ws.closed is not None and ws.closed.code not in OWN_CODES
            close = await ws.finish(*self._close)
        reason = f" ({escape(close.reason)})" if close.reason else ""
        await self._screen.note(f"closed{' by the server' if by_server else ''} with {close.code}{reason}")
        if self._arguments.one_message and not self._received:
            await self._screen.note("no message has come")
            return Status.FAILED
        return Status.DONE if close.code == self._close.code else status_of_close(close)

    async def _show_opening(self, ws: Transaction) -> None:
        if self._arguments.verbose:
            await self._show_request(ws.req)
            await self._show_response(ws.res)
        agreed = [f"subprotocol {ws.protocol}"] if ws.protocol else []
        agreed += filter(None, [ws.res.headers.get("Sec-WebSocket-Extensions")])
        await self._screen.note(escape(", ".join([f"connected to {self._shown_url()}", *agreed])))

    def _shown_url(self) -> str:
        """The URL without a password."""
        url = Url.parse(self._arguments.url)
        return f"{'wss' if url.secure else 'ws'}://{url.authority}{url.target}"

    async def _show_request(self, request: Request) -> None:
        lines = [f"{request.method} {request.target} HTTP/1.1", *map(": ".join, request.headers.items())]
        await self._screen.note("\n".join(f"> {escape(line)}" for line in lines))

    async def _show_response(self, response: Response) -> None:
        lines = [f"HTTP/1.1 {response.status} {response.reason}", *map(": ".join, response.headers.items())]
        shown = [f"< {escape(line)}" for line in lines]
        if response.body:
            shown += ["", shorten(visible(response.body.decode(errors="replace").rstrip()), MAX_BODY)]
        await self._screen.note("\n".join(shown))

    async def _carry(self, ws: Transaction) -> None:
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            if self._over:  # since there was a connection
                self._scope.cancel()
            nursery.start_soon(self._receive, ws)
            nursery.start_soon(self._send, ws, nursery)
            if self._arguments.ping is not None:
                nursery.start_soon(self._measure, ws, self._arguments.ping)

    async def _receive(self, ws: Transaction) -> None:
        try:
            async for message in ws:
                self._received += 1
                self._silence.deadline = trio.current_time() + self._wait
                await self._screen.received(message)
                if self._arguments.one_message:
                    self._end()
                    return
        except ConnectionClosed:
            pass  # How it ended is shown in the end.
        except BrokenPipeError:
            self._end(128 + signal.SIGPIPE)
        self._scope.cancel()

    async def _send(self, ws: Transaction, nursery: trio.Nursery) -> None:
        try:
            await self._send_lines(ws, nursery)
        except (ConnectionClosed, trio.ClosedResourceError):  # as above
            self._scope.cancel()
            return
        if not self._typed:
            self._silence = trio.CancelScope(deadline=trio.current_time() + self._wait)
            with self._silence:
                await trio.sleep_forever()
        self._end(SIGINT_STATUS if self._screen.interrupted else None)

    async def _send_lines(self, ws: Transaction, nursery: trio.Nursery) -> None:
        """Send line after line, until there are no more, one of a program's does not parse, or the user closes."""
        while True:
            if self._unsent is not None:
                await self._screen.send(ws, self._unsent)
                self._unsent = None
            line = await self._next_line()
            if line is None:
                return
            command = _COMMAND.fullmatch(line) if self._typed else None
            if command is None:
                self._unsent = await self._parse(line)
                if self._unsent is None and not self._typed:
                    return
            elif command[1] != "/":
                self._unsent = await self._parse(line[1:])
            elif command[2] == "ping":
                nursery.start_soon(self._ping_once, ws)
            elif await self._prepare_close(command[3] or ""):
                return

    async def _next_line(self) -> str | None:
        if self._arguments.execute:
            return self._given.pop(0) if self._given else None
        return await self._screen.read_line()

    async def _parse(self, line: str) -> str | bytes | None:
        """The message of a line; None if it does not parse, which is shown."""
        try:
            line.encode()
            if self._kind == "binary":
                return bytes.fromhex(line)
            if self._kind == "json":
                return to_json(UndecodedJson(line, None).decode(), None)
        except UnicodeEncodeError:
            reason = f"invalid UTF-8: {line[:MAX_SHOWN]!r}"
        except ValueError as exc:
            reason = f"invalid {'JSON' if self._kind == 'json' else 'hexadecimal'}: {line[:MAX_SHOWN]!r} ({exc})"
        else:
            return line
        await self._screen.note(f"not sent: {reason}")
        self._status = Status.FAILED
        return None

    async def _prepare_close(self, given: str) -> bool:
        """`/close CODE REASON`: whether it can be sent; why not is shown."""
        code, _, reason = given.partition(" ")
        try:
            close = Close(int(code or NORMAL.code), reason.strip())
            check_close(*close)  # which says what may be sent
        except ValueError as exc:
            await self._screen.note(f"not closed: {exc} (expected /close CODE REASON)")
            return False
        self._close = close
        return True

    async def _measure(self, ws: Transaction, interval: float) -> None:
        with suppress(ConnectionClosed, trio.ClosedResourceError):
            while True:
                await self._ping(ws)
                await trio.sleep(interval)

    async def _ping_once(self, ws: Transaction) -> None:
        with suppress(ConnectionClosed, trio.ClosedResourceError):
            await self._ping(ws)

    async def _ping(self, ws: Transaction) -> None:
        latency = await ws.ping()
        await self._screen.note(f"pong after {latency * 1000:.3f} ms")
