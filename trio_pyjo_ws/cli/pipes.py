"""Standard input and output, line by line, without threads and without changing how others see them.

Setting a descriptor to non-blocking would do so for the shell that has it open too. Instead each system call waits
until it cannot block: a read for one byte, a write for as many as a pipe then takes for certain.
"""

from __future__ import annotations

import os
import select
import stat

import trio

__all__ = ["LineReader", "LineWriter"]

MAX_LINE = 16 * 2**20
"""Bytes of a line that is read."""

CHUNK = 65_536


class LineReader:
    """The lines that can be read from a descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waits = _may_block(fd)
        self._buffer = bytearray()
        self._searched = 0
        self._ended = False

    async def read_line(self) -> bytes | None:
        """Return the next line, without its line break; None at the end of the file. A checkpoint.

        Raises ValueError for a line of more than 16 MiB.
        """
        while True:
            end = self._buffer.find(b"\n", self._searched)
            if end >= 0 or (self._ended and self._buffer):
                await trio.lowlevel.checkpoint()
                return self._take(end)
            if self._ended:
                return None
            self._searched = len(self._buffer)
            if self._searched > MAX_LINE:
                raise ValueError(f"a line of standard input has more than {MAX_LINE:,} bytes")
            if self._waits:
                await trio.lowlevel.wait_readable(self._fd)
            else:
                await trio.lowlevel.checkpoint()
            data = os.read(self._fd, CHUNK)
            self._buffer += data
            self._ended = not data

    def _take(self, end: int) -> bytes:
        line = bytes(self._buffer if end < 0 else self._buffer[:end])
        del self._buffer[: len(line) + 1]
        self._searched = 0
        return line.removesuffix(b"\r")


class LineWriter:
    """Lines to a descriptor, each written as soon as its reader takes it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waits = _may_block(fd)

    async def write_line(self, line: bytes) -> None:
        """Write ``line`` and a line break. A checkpoint; cancelled, the line may have been written in part.

        Raises BrokenPipeError when nobody reads any more.
        """
        data = memoryview(line + b"\n")
        while data:
            if self._waits:
                await trio.lowlevel.wait_writable(self._fd)
            else:
                await trio.lowlevel.checkpoint()
            data = data[os.write(self._fd, data[: select.PIPE_BUF]) :]


def _may_block(fd: int) -> bool:
    """Whether the kernel can tell when ``fd`` is ready; files on disk and /dev/null always are, and it refuses."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)
