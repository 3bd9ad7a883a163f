"""``inspect``: frames bit by bit, of a live connection or of captured bytes."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from .. import ConnectionClosed, Opcode
from ..wire.frames import build_frame, parse_frame
from .arguments import readable_file, url
from .connect import EXIT_STATUSES, add_talk_arguments, client_options, talk
from .ending import Status
from .pipes import LineWriter
from .screens import Pipes, now
from .show import shorten

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from .. import EventChannel, Frame, Transaction

__all__ = ["add_arguments", "describe_frame", "run"]

DESCRIPTION = """\
Show frames bit by bit (RFC 6455, section 5.2). Of a URL: those of a connection, ← received and → sent; lines of
standard input are sent as by `connect`. Of a file: those that it holds, as they were captured in one direction, with or
without the HTTP of the opening handshake before them.
"""
_HOST_AND_PORT = re.compile(r"[^/]+:[0-9]+(/|$)")
MAX_PAYLOAD = 1_000
"""Characters of a payload that are shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``inspect`` to ``parser``."""
    parser.description, parser.epilog = DESCRIPTION, EXIT_STATUSES
    parser.add_argument("url", type=_target, metavar="TARGET", help="a URL, a file, or - for standard input")
    add_talk_arguments(parser)


def _target(given: str) -> str | Path:
    if "://" in given or (_HOST_AND_PORT.match(given) and not Path(given).exists()):
        return url(given)
    return Path("/dev/stdin" if given == "-" else readable_file(given))


def describe_frame(buffer: bytearray, *, key_known: bool = True) -> Iterator[str]:
    """Remove the first frame from ``buffer`` and describe it, line by line; nothing if there is no whole frame.

    ``key_known``: whether the masking key in ``buffer`` is the one that travelled.
    """
    second = buffer[1] if len(buffer) > 1 else 0
    more = {126: 2, 127: 8}.get(second & 0x7F, 0)
    key = bytes(buffer[2 + more : 6 + more])
    frame = parse_frame(buffer)
    if frame is None:
        return
    yield f"{_bits(frame.head, 0x80)}  FIN: {frame.fin}"
    yield f"{_bits(frame.head, 0x40)}  RSV1: {frame.rsv1}"
    yield f"{_bits(frame.head, 0x20)}  RSV2: {frame.rsv2}"
    yield f"{_bits(frame.head, 0x10)}  RSV3: {frame.rsv3}"
    named = frame.opcode.name.lower() if isinstance(frame.opcode, Opcode) else "reserved"
    yield f"{_bits(frame.head, 0x0F)}  Opcode: {frame.opcode:d} ({named})"
    yield f"{_bits(second, 0x80)}  Mask: {bool(second & 0x80)}"
    length = f"{_bits(second, 0x7F)}  Length: {len(frame.payload)}"
    yield f"{length} (in {more} more bytes)" if more else length
    if second & 0x80 and key_known:
        yield f"           Masking key: {key.hex(' ')}"
    yield f"           Payload: {shorten(repr(frame.payload), MAX_PAYLOAD)}"


def _bits(byte: int, mask: int) -> str:
    """The bits of ``byte`` that are in ``mask``, dots for the others."""
    bits = "".join(str(byte >> place & 1) if mask >> place & 1 else "." for place in range(7, -1, -1))
    return f"{bits[:4]} {bits[4:]}"


class Frames(Pipes):
    """Lines to send from standard input, and frames to standard output."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__(arguments.kind)
        self._lock = trio.Lock()

    async def send(self, ws: Transaction, message: str | bytes) -> None:
        """Send a message as the frame that it becomes, and show that."""
        frame = parse_frame(bytearray(ws.build_message(message)))
        assert frame is not None
        async with self._lock:  # so that no answer is shown before it
            await ws.send(frame=frame)
            await self._write("→", frame, masked=True)

    async def received(self, message: str | bytes) -> None:
        """Nothing: its frames are shown."""

    def opened(self, ws: Transaction, nursery: trio.Nursery) -> None:
        """Show the frames that come."""
        nursery.start_soon(self._show_received, ws.open_channel("frame"))

    async def _show_received(self, channel: EventChannel[Frame]) -> None:
        with suppress(ConnectionClosed):  # How it ended is shown by the conversation.
            async for frame in channel:
                async with self._lock:
                    await self._write("←", frame, masked=False)

    async def _write(self, arrow: str, frame: Frame, *, masked: bool) -> None:
        buffer = bytearray(build_frame(*frame, masked=masked))
        lines = [f"{arrow} {now()} {len(buffer)} bytes", *describe_frame(buffer, key_known=False), ""]
        await self._writer.write_line("\n".join(lines).encode())


async def run(arguments: argparse.Namespace) -> int:
    """Do it, and return the exit status."""
    if isinstance(arguments.url, Path):
        return await _inspect_file(arguments.url)
    options = client_options(arguments)
    options["ping_interval"] = None  # Its pongs would be shown, without the pings before them.
    return await talk(Frames(arguments), arguments, options)


async def _inspect_file(path: Path) -> int:
    data = bytearray(await trio.Path(path).read_bytes())
    size = len(data)
    writer = LineWriter(sys.stdout.fileno())
    if data.startswith((b"GET ", b"HTTP/1.1 ")):
        head, _, data = data.partition(b"\r\n\r\n")
        await writer.write_line(f"the HTTP of the opening handshake: {len(head) + 4} bytes\n".encode())
    start = size - len(data)
    while lines := list(describe_frame(data)):
        end = size - len(data)
        await writer.write_line("\n".join([f"at {start}: {end - start} bytes", *lines, ""]).encode())
        start = end
    if data:
        print(f"{len(data)} bytes left: not a whole frame", file=sys.stderr)
        return Status.FAILED
    return Status.DONE
