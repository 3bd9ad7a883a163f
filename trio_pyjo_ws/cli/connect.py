"""``connect URL``: talk with a server, typing in a terminal or through pipes."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from base64 import b64encode
from contextlib import asynccontextmanager, nullcontext, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol

import trio

from .. import ConnectionClosed, Transaction, open_websocket
from ..wire.http1 import Url
from ..wire.tunnel import Proxy
from .arguments import seconds, url
from .ending import Status, status_of_close, watch_signals
from .pipes import LineReader, LineWriter
from .show import fold, one_line, parse_json, preview, visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from ..adapters.terminal import Terminal

__all__ = ["EXIT_STATUSES", "Kind", "Pipes", "add_arguments", "add_talk_arguments", "open_connection", "run", "talk"]

Kind = Literal["text", "binary", "json"]

DESCRIPTION = """\
Connect to a WebSocket server. In a terminal: type a line to send it, Ctrl-D to close. In a pipe: a line of standard
input is a message, and a message is a line of standard output; all else goes to standard error.
"""
EXIT_STATUSES = """\
exit status: 0 closed normally (1000, 1001 or no code), 1 failed (for example a line that is no JSON), 2 wrong usage,
3 no connection, 4 refused by the server, 5 closed otherwise, 128 + N ended by the signal N (130: Ctrl-C).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell ``parser`` what ``connect`` takes."""
    parser.description, parser.epilog = DESCRIPTION, EXIT_STATUSES
    parser.add_argument("url", type=url, metavar="URL", help="ws://host:port/path or wss://host:port/path")
    add_talk_arguments(parser)


def add_talk_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell ``parser`` how to connect, and what to do with lines."""
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        "--text",
        action="store_const",
        dest="kind",
        const="text",
        default="text",
        help="a line is a text message (default)",
    )
    kinds.add_argument(
        "--binary", action="store_const", dest="kind", const="binary", help="a line is a binary message, in hexadecimal"
    )
    kinds.add_argument(
        "--json", action="store_const", dest="kind", const="json", help="a line is JSON, in both directions"
    )
    parser.add_argument(
        "-H", "--header", action="append", default=[], type=_header, metavar="'NAME: VALUE'", help="add to the request"
    )
    parser.add_argument(
        "-s", "--subprotocol", action="append", default=[], metavar="NAME", help="offer; the first is preferred"
    )
    parser.add_argument("--origin", help="send as Origin")
    parser.add_argument("--auth", metavar="USER:PASSWORD", type=_basic, help="authenticate (Basic)")
    parser.add_argument(
        "--proxy",
        type=_proxy,
        default=True,
        metavar="URL",
        help="http://, https:// or socks5h://host:port; 'none' for none (default: that of the environment)",
    )
    parser.add_argument("--compress", action="store_true", help="offer permessage-deflate")
    parser.add_argument(
        "--ping", type=seconds, metavar="SECONDS", help="ping this often, and tell how long the pong took"
    )
    parser.add_argument(
        "--wait",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="after the end of standard input, close when nothing has come for so long (default 1; inf: never)",
    )


def _header(given: str) -> tuple[str, str]:
    name, colon, value = given.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{given!r} has no colon, accepted is 'NAME: VALUE'")
    return name.strip(), value.strip()


def _basic(given: str) -> tuple[str, str]:
    return "Authorization", f"Basic {b64encode(given.encode()).decode()}"


def _proxy(given: str) -> str | None:
    if given == "none":
        return None
    try:
        Proxy.parse(given)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    return given


class Screen(Protocol):
    """Where lines come from and messages go: a terminal or pipes."""

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C was pressed, where that is no signal."""
        ...

    async def read_line(self) -> str | None:
        """The next line, None for the end."""
        ...

    async def send(self, ws: Transaction, message: str | bytes) -> None:
        """Send a message, and show it."""

    async def received(self, message: str | bytes) -> None:
        """Show what has come."""

    async def note(self, text: str) -> None:
        """Tell about the connection."""


class Pipes:
    """Standard input and output, one message a line."""

    interrupted = False

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._reader = LineReader(sys.stdin.fileno())
        self._writer = LineWriter(sys.stdout.fileno())

    async def read_line(self) -> str | None:
        """See :class:`Screen`."""
        line = await self._reader.read_line()
        return None if line is None else line.decode()

    async def send(self, ws: Transaction, message: str | bytes) -> None:
        """Send, and say nothing: standard output has what comes."""
        await ws.send(message)

    async def received(self, message: str | bytes) -> None:
        """Write a line."""
        if self._kind == "json":
            line = _as_json(message)
        else:
            line = one_line(message) if isinstance(message, str) else message.hex()
        await self._writer.write_line(line.encode())

    async def note(self, text: str) -> None:
        """Write to standard error."""
        print(text, file=sys.stderr, flush=True)


class Window:
    """A terminal, with rich and prompt_toolkit."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._lock = trio.Lock()

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._terminal.interrupted

    async def read_line(self) -> str | None:
        """See :class:`Screen`."""
        return await self._terminal.read_line()

    async def send(self, ws: Transaction, message: str | bytes) -> None:
        """See :class:`Screen`."""
        async with self._lock:  # so that no answer is shown before it
            await ws.send(message)
            await self._show("→", message)

    async def received(self, message: str | bytes) -> None:
        """See :class:`Screen`."""
        async with self._lock:
            await self._show("←", message)

    async def note(self, text: str) -> None:
        """See :class:`Screen`."""
        await self._terminal.show_note(_now(), text)

    async def _show(self, arrow: str, message: str | bytes) -> None:
        value = parse_json(message) if isinstance(message, str) else None
        kind = "binary" if isinstance(message, bytes) else "text" if value is None else "json"
        body = preview(message) if value is None else fold(value)
        await self._terminal.show_message(_now(), arrow, f"{kind} {len(message):,}", body, is_json=value is not None)


def _now() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]


def _as_json(message: str | bytes) -> str:
    """One line of JSON, whatever the message is: what is none becomes a string."""
    try:
        return json.dumps(json.loads(message), separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError):
        return json.dumps(message if isinstance(message, str) else message.hex(), ensure_ascii=False)


def _parse(line: str, kind: Kind) -> str | bytes:
    if kind == "binary":
        return bytes.fromhex(line)
    if kind == "json":
        return json.dumps(json.loads(line), separators=(",", ":"), ensure_ascii=False)
    return line


def _choose_screen(kind: Kind) -> Callable[[], AbstractAsyncContextManager[Screen]]:
    """What opens the terminal, where there is one, or else the pipes."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return lambda: nullcontext(Pipes(kind))
    from ..adapters.terminal import open_terminal  # noqa: PLC0415 - it needs the extra `cli`

    @asynccontextmanager
    async def open_window() -> AsyncIterator[Screen]:
        async with open_terminal() as terminal:
            yield Window(terminal)

    return open_window


class _Talk:
    """One connection, and the tasks that carry messages between it and a screen."""

    def __init__(self, ws: Transaction, screen: Screen, arguments: argparse.Namespace) -> None:
        self._ws = ws
        self._screen = screen
        self._kind: Kind = arguments.kind
        self._wait: float = arguments.wait
        self._ping: float | None = arguments.ping
        self._scope = trio.CancelScope()
        self._silence = trio.CancelScope()
        self.status: int = Status.DONE

    async def run(self) -> None:
        """Return when either side, or the user, has had enough."""
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            await nursery.start(watch_signals, self.stop)
            nursery.start_soon(self._receive)
            nursery.start_soon(self._send)
            if self._ping is not None:
                nursery.start_soon(self._measure, self._ping)

    def stop(self, number: int) -> None:
        """A signal has come."""
        self.status = 128 + number
        self._scope.cancel()

    async def _receive(self) -> None:
        try:
            async for message in self._ws:
                self._silence.deadline = trio.current_time() + self._wait
                await self._screen.received(message)
        except ConnectionClosed:
            pass  # The end is told, whatever it is, by the one who started this.
        except BrokenPipeError:
            self.stop(signal.SIGPIPE)
        self._scope.cancel()

    async def _send(self) -> None:
        with suppress(ConnectionClosed, trio.ClosedResourceError):  # as above
            await self._send_lines()
        if isinstance(self._screen, Pipes):
            self._silence.deadline = trio.current_time() + self._wait
            with self._silence:
                await trio.sleep_forever()
        if self._screen.interrupted:
            self.status = 128 + signal.SIGINT
        self._scope.cancel()

    async def _send_lines(self) -> None:
        while (line := await self._screen.read_line()) is not None:
            try:
                message = _parse(line, self._kind)
            except ValueError as exc:
                kind = "JSON" if self._kind == "json" else "hexadecimal"
                await self._screen.note(f"not sent, for it is no {kind}: {visible(line[:60])!r} ({exc})")
                self.status = Status.FAILED
                if isinstance(self._screen, Pipes):
                    break
                continue
            await self._screen.send(self._ws, message)

    async def _measure(self, interval: float) -> None:
        with suppress(ConnectionClosed, trio.ClosedResourceError):
            while True:
                latency = await self._ws.ping()
                await self._screen.note(f"pong after {latency * 1000:.3f} ms")
                await trio.sleep(interval)


def _shown(url: str) -> str:
    """The URL without a password."""
    target = Url.parse(url)
    return f"{'wss' if target.secure else 'ws'}://{target.authority}{target.target}"


async def run(arguments: argparse.Namespace) -> int:
    """Do it, and return the exit status."""
    open_screen = _choose_screen(arguments.kind)
    async with open_connection(arguments) as ws, open_screen() as screen:
        return await talk(ws, screen, arguments)


def open_connection(arguments: argparse.Namespace) -> AbstractAsyncContextManager[Transaction]:
    """The connection that ``arguments`` ask for."""
    return open_websocket(
        arguments.url,
        proxy=arguments.proxy,
        additional_headers=[*arguments.header, *filter(None, [arguments.auth])],
        subprotocols=arguments.subprotocol,
        origin=arguments.origin,
        compression=arguments.compress,
    )


async def talk(ws: Transaction, screen: Screen, arguments: argparse.Namespace) -> int:
    """Carry messages between ``ws`` and ``screen`` until it is enough, close, and return the exit status."""
    assert ws.res is not None
    agreed = [f"subprotocol {ws.protocol}"] if ws.protocol else []
    agreed += filter(None, [ws.res.headers.get("Sec-WebSocket-Extensions")])
    await screen.note(visible(", ".join([f"connected to {_shown(arguments.url)}", *agreed])))
    conversation = _Talk(ws, screen, arguments)
    await conversation.run()
    who = "closed" if ws.close is None else "closed by the server"
    close = await ws.finish(1000)
    reason = f" ({visible(one_line(close.reason))})" if close.reason else ""
    await screen.note(f"{who} with {close.code}{reason}")
    return conversation.status or status_of_close(close)
