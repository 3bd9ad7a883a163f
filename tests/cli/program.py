"""The command line in the test's own process: its pipes, and what it talks with."""

from __future__ import annotations

import io
import os
import pty
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest
import trio

import trio_pyjo_ws
from trio_pyjo_ws import Transaction
from trio_pyjo_ws.cli.main import make_parser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The package that the tests see, whether it is installed or on PYTHONPATH.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(trio_pyjo_ws.__file__).parent.parent), "PYTHONIOENCODING": "utf-8"}


class Pipes:
    """Standard input and output of the program under test, seen from their other ends, and what it tells."""

    def __init__(self) -> None:
        self._files: list[IO[bytes]] = []
        self._stdin, self._writer = self._pipe()
        self._reader, stdout = self._pipe()
        self._stdout = io.TextIOWrapper(stdout, "utf-8", write_through=True)
        self._stderr = io.StringIO()

    def _pipe(self) -> tuple[IO[bytes], IO[bytes]]:
        reader, writer = os.pipe()
        files = os.fdopen(reader, "rb", 0), os.fdopen(writer, "wb", 0)
        self._files += files
        return files

    async def run(self, *argv: str) -> int:
        """Do what main() does with ``argv``, without a run of trio's for it, and with its exceptions."""
        arguments = make_parser().parse_args(argv)
        # Not by a fixture: pytest takes standard input and output anew when the test's body begins.
        with pytest.MonkeyPatch.context() as patch:
            for name in ("stdin", "stdout", "stderr"):
                patch.setattr(sys, name, getattr(self, f"_{name}"))
            return int(await arguments.run(arguments))

    @property
    def told(self) -> str:
        """What stands on standard error."""
        return self._stderr.getvalue()

    def type(self, text: str | bytes) -> None:
        self._writer.write(text if isinstance(text, bytes) else text.encode())

    def end_input(self) -> None:
        self._writer.close()

    def stop_reading(self) -> None:
        self._reader.close()

    async def read_line(self) -> str:
        line = b""
        while not line.endswith(b"\n"):
            await trio.lowlevel.wait_readable(self._reader)
            byte = self._reader.read(1)
            assert byte, f"the program has closed its output after {line!r}"
            line += byte
        return line.decode().rstrip("\n")

    @contextmanager
    def print_to_terminal(self) -> Iterator[Callable[[], str]]:
        """Standard output is a terminal, and what it shows is what the function returns."""
        controller, terminal = pty.openpty()
        self._stdout.close()
        self._stdout = io.TextIOWrapper(os.fdopen(terminal, "wb", 0), "utf-8", write_through=True)
        with os.fdopen(controller, "rb", 0) as screen:
            yield lambda: screen.read(4096).decode()

    def read_rest(self) -> str:
        self._stdout.close()
        return self._reader.read().decode()

    def close(self) -> None:
        for file in (self._stdout, *self._files):
            file.close()


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)
