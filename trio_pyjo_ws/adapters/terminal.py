"""A terminal to talk in: a line to edit at the bottom (prompt_toolkit), and above it what happens (rich).

prompt_toolkit runs on an event loop of its own, so its application lives in a worker thread of trio's, for as long as
:func:`open_terminal` is open; it is the only thread of this package. The two meet in three places: a line that was
typed goes into a memory channel, text to be shown is handed to the application's loop and waited for, and closing
asks the application to exit.
"""

from __future__ import annotations

import math
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import trio

try:
    from prompt_toolkit import PromptSession
    from rich.console import Console
    from rich.highlighter import JSONHighlighter
    from rich.text import Text
except ImportError as exc:
    raise ImportError(f"a terminal to type in needs the extra `cli`: pip install 'trio-pyjo-ws[cli]' ({exc})") from exc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from prompt_toolkit.buffer import Buffer

__all__ = ["Terminal", "open_terminal"]

STYLES = {"→": "bold cyan", "←": "bold green"}


class Terminal:
    """An open terminal. :func:`open_terminal` makes it."""

    def __init__(self) -> None:
        self.interrupted = False
        """Whether Ctrl-C has ended the typing."""
        self._console = Console(force_terminal=True)
        self._session: PromptSession[None] = PromptSession("> ", erase_when_done=True)
        self._session.default_buffer.accept_handler = self._accept
        self._typed, self._lines = trio.open_memory_channel[str](math.inf)
        self._unshown: deque[tuple[str, trio.Event]] = deque()
        self._left = trio.Event()
        self._ended = False
        self._trio = trio.lowlevel.current_trio_token()

    async def read_line(self) -> str | None:
        """Return the next line that was typed; None after Ctrl-D on an empty line, or Ctrl-C. A checkpoint."""
        with suppress(trio.EndOfChannel):
            return await self._lines.receive()
        return None

    async def wait_left(self) -> None:
        """Return after Ctrl-D on an empty line, or Ctrl-C; there may be lines left to read. A checkpoint."""
        await self._left.wait()

    async def show_message(self, time: str, arrow: str, kind: str, body: str, *, is_json: bool) -> None:
        """Show a message above the line that is edited, and return once it is there.

        ``arrow`` is → for sent and ← for received, ``body`` text that is safe to print. A checkpoint.
        """
        text = Text(body)
        if is_json:
            JSONHighlighter().highlight(text)
        head = Text.assemble((time, "dim"), " ", (arrow, STYLES[arrow]), " ", (kind, "magenta"), " ")
        await self._show(head + text)

    async def show_note(self, time: str, note: str) -> None:
        """Show something about the connection. A checkpoint."""
        await self._show(Text.assemble((time, "dim"), " ", (f"· {note}", "yellow")))

    async def _show(self, text: Text) -> None:
        with self._console.capture() as captured:
            self._console.print(text, soft_wrap=True)
        shown = trio.Event()
        self._unshown.append((captured.get(), shown))
        if self._ended:
            self._write()
        else:
            self._in_loop(self._write_above)
        await shown.wait()

    def _write_above(self) -> None:
        """In the thread: write above the line that is edited.

        Not by run_in_terminal(), which gives the terminal back for that while: what is typed then would be echoed, and
        Ctrl-C lost.
        """
        app = self._session.app
        app.renderer.erase()
        self._write()
        app.renderer.reset()
        app.invalidate()

    def _write(self) -> None:
        """Write what is to be shown: in the thread, or, once that has ended, by whoever comes."""
        output = self._session.app.output
        output.enable_autowrap()
        written = []
        while self._unshown:
            text, shown = self._unshown.popleft()
            output.write_raw(text)
            written.append(shown)
        output.flush()
        for shown in written:
            self._trio.run_sync_soon(shown.set)

    def _in_loop(self, callback: Callable[[], object]) -> None:
        """Have the application call ``callback`` in its thread, unless it has ended."""
        loop = self._session.app.loop
        if loop is not None:
            with suppress(RuntimeError):  # It has ended since.
                loop.call_soon_threadsafe(callback)

    def _accept(self, buffer: Buffer) -> bool:
        """In the thread: a line was typed."""
        trio.from_thread.run_sync(self._typed.send_nowait, buffer.text)
        return False  # Do not keep it in the line.

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Let the user type, until :meth:`exit`, Ctrl-C or Ctrl-D. A task, started when there is a line to edit."""

        def run() -> None:
            try:
                self._session.app.run(
                    pre_run=lambda: trio.from_thread.run_sync(task_status.started),
                    set_exception_handler=False,
                    handle_sigint=False,
                )
            except EOFError:
                pass
            except KeyboardInterrupt:
                self.interrupted = True

        with self._typed:
            await trio.to_thread.run_sync(run)
        self._ended = True
        self._write()
        self._left.set()

    def exit(self) -> None:
        """Have the application leave the terminal as it was."""
        app = self._session.app
        self._in_loop(lambda: app.is_done or app.exit())


@asynccontextmanager
async def open_terminal() -> AsyncIterator[Terminal]:
    """A terminal on standard input and output, for ``async with``; leaving the block leaves it as it was found.

    Raises ImportError, which names the extra, if rich or prompt_toolkit is missing when this module is imported.
    """
    terminal = Terminal()
    async with trio.open_nursery() as nursery:
        await nursery.start(terminal.run)
        try:
            yield terminal
        finally:
            terminal.exit()
