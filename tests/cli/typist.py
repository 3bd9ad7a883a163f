"""Somebody who types at a terminal of prompt_toolkit's, and reads what stands in it."""

from __future__ import annotations

import io
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output
from trio.lowlevel import ParkingLot

from trio_pyjo_ws.cli.main import make_parser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prompt_toolkit.input import PipeInput

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Tty(io.StringIO):
    """A file that says that it is a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._trio = trio.lowlevel.current_trio_token()
        self.written = ParkingLot()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._trio.run_sync_soon(self.written.unpark_all)
        return super().write(text)


class Typist:
    """Ctrl-C is \x03, Ctrl-D is \x04, Return is \r."""

    def __init__(self, keyboard: PipeInput, screen: Tty) -> None:
        self.type = keyboard.send_text
        self._screen = screen

    @property
    def coloured(self) -> str:
        return self._screen.getvalue()

    @property
    def seen(self) -> str:
        return _ESCAPES.sub("", self.coloured)

    async def wait_for(self, pattern: str) -> re.Match[str]:
        with trio.fail_after(10):
            while not (found := re.search(pattern, self.seen)):
                await self._screen.written.park()
        return found

    async def run(self, *argv: str) -> int:
        """Do what main() does with ``argv``, in this terminal."""
        arguments = make_parser().parse_args(argv)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", self._screen)
            patch.setattr(sys, "stdout", self._screen)
            return int(await arguments.run(arguments))


@contextmanager
def open_typist() -> Iterator[Typist]:
    screen = Tty()
    output = Vt100_Output(screen, lambda: Size(rows=24, columns=80), enable_cpr=False)
    with create_pipe_input() as keyboard, create_app_session(keyboard, output):
        yield Typist(keyboard, screen)
