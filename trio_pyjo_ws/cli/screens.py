"""Where the lines of `connect` come from and its messages go: a terminal, or standard input and output as pipes."""

from __future__ import annotations

import json
import sys
from contextlib import asynccontextmanager, nullcontext
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

import trio

from ..escaping import escape
from .pipes import LineReader, LineWriter
from .show import fold, one_line, parse_json, preview

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from .. import Transaction

__all__ = ["Kind", "Pipes", "Screen", "choose_screen"]

Kind = Literal["text", "binary", "json"]

PLAIN = "type a line to send it, Ctrl-D to close (the extra `cli` adds editing and colours)"


class Screen(Protocol):
    """Where lines come from and messages go."""

    typed: bool
    """Whether somebody types the lines: then there are commands among them, and a mistake is not the end."""

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C was pressed, if the terminal does not make a signal of it."""
        ...

    def opened(self, ws: Transaction, nursery: trio.Nursery) -> None:
        """Follow a connection that was opened, by tasks that end with it."""

    async def read_line(self) -> str | None:
        """Return the next line; None at the end. A checkpoint; cancelled, no line is lost.

        Bytes that are not UTF-8 become surrogates, as Python does with arguments and names of files.
        """
        ...

    async def wait_left(self) -> None:
        """Return when the user has left, without taking a line; never, if only reading can tell."""

    async def send(self, ws: Transaction, message: str | bytes) -> None:
        """Send a message, and show it."""

    async def received(self, message: str | bytes) -> None:
        """Show a message that has come."""

    async def note(self, text: str) -> None:
        """Show something about the connection."""


class Pipes:
    """Standard input and output, one message a line."""

    interrupted = False

    def __init__(self, kind: Kind) -> None:
        self.typed = sys.stdin.isatty()
        self._kind = kind
        self._is_terminal = sys.stdout.isatty()

    @cached_property
    def _reader(self) -> LineReader:
        return LineReader(sys.stdin.fileno())

    @cached_property
    def _writer(self) -> LineWriter:
        return LineWriter(sys.stdout.fileno())

    def opened(self, ws: Transaction, nursery: trio.Nursery) -> None:
        """See :class:`Screen`."""

    async def read_line(self) -> str | None:
        """See :class:`Screen`."""
        line = await self._reader.read_line()
        return None if line is None else line.decode(errors="surrogateescape")

    async def wait_left(self) -> None:
        """See :class:`Screen`."""
        await trio.sleep_forever()

    async def send(self, ws: Transaction, message: str | bytes) -> None:
        """Send, and say nothing: standard output has what comes."""
        await ws.send(message)

    async def received(self, message: str | bytes) -> None:
        """Write a line: as it is to a program, and safe to print to a terminal."""
        if self._kind == "json":
            line = _as_json(message)
        else:
            line = one_line(message) if isinstance(message, str) else message.hex()
        if self._is_terminal:
            line = escape(line)
        await self._writer.write_line(line.encode())

    async def note(self, text: str) -> None:
        """Write to standard error."""
        print(text, file=sys.stderr, flush=True)


class Terminal(Protocol):
    """A terminal to type in: with rich and prompt_toolkit (`adapters.terminal`), or :class:`PlainTerminal`."""

    interrupted: bool

    async def read_line(self) -> str | None:
        """Return the next line; None at the end."""
        ...

    async def wait_left(self) -> None:
        """See :class:`Screen`."""

    async def show_message(self, time: str, arrow: str, kind: str, body: str, *, is_json: bool) -> None:
        """Show a message."""

    async def show_note(self, time: str, note: str) -> None:
        """Show something about the connection."""


class PlainTerminal:
    """A terminal without third packages: the kernel edits the line, and Ctrl-C is a signal."""

    def __init__(self) -> None:
        self.interrupted = False
        self._reader = LineReader(sys.stdin.fileno())

    async def read_line(self) -> str | None:
        """Return the next line; None after Ctrl-D on an empty line."""
        line = await self._reader.read_line()
        return None if line is None else line.decode(errors="surrogateescape")

    async def wait_left(self) -> None:
        """See :class:`Screen`."""
        await trio.sleep_forever()

    async def show_message(self, time: str, arrow: str, kind: str, body: str, *, is_json: bool) -> None:
        """Print what has come; what was sent stands where it was typed."""
        if arrow == "←":
            print(time, arrow, kind, body, flush=True)

    async def show_note(self, time: str, note: str) -> None:
        """See :class:`Terminal`."""
        print(time, "·", note, flush=True)


class Window:
    """A terminal, in which messages stand with their time, kind and size."""

    typed = True

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._lock = trio.Lock()

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._terminal.interrupted

    def opened(self, ws: Transaction, nursery: trio.Nursery) -> None:
        """See :class:`Screen`."""

    async def read_line(self) -> str | None:
        """See :class:`Screen`."""
        return await self._terminal.read_line()

    async def wait_left(self) -> None:
        """See :class:`Screen`."""
        await self._terminal.wait_left()

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
        await self._terminal.show_note(now(), text)

    async def _show(self, arrow: str, message: str | bytes) -> None:
        value = parse_json(message) if isinstance(message, str) else None
        kind = "binary" if isinstance(message, bytes) else "text" if value is None else "json"
        body = preview(message) if value is None else fold(value)
        await self._terminal.show_message(now(), arrow, f"{kind} {len(message):,}", body, is_json=value is not None)


def now() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S.%f")[:-3]


def _as_json(message: str | bytes) -> str:
    """One line of JSON, whatever the message is: one that is not JSON becomes a string."""
    try:
        return json.dumps(json.loads(message), separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError):
        return json.dumps(message if isinstance(message, str) else message.hex(), ensure_ascii=False)


def choose_screen(kind: Kind, *, typing: bool) -> Callable[[], AbstractAsyncContextManager[Screen]]:
    """What opens the terminal, if there is one and somebody is to type, or else the pipes."""
    if not (typing and sys.stdin.isatty() and sys.stdout.isatty()):
        return lambda: nullcontext(Pipes(kind))
    try:
        from ..adapters.terminal import open_terminal  # noqa: PLC0415 - it needs the extra `cli`
    except ImportError:
        return _open_plain

    @asynccontextmanager
    async def open_window() -> AsyncIterator[Screen]:
        async with open_terminal() as terminal:
            yield Window(terminal)

    return open_window


@asynccontextmanager
async def _open_plain() -> AsyncIterator[Screen]:
    screen = Window(PlainTerminal())
    await screen.note(PLAIN)
    yield screen
