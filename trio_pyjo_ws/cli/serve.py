"""``serve``: a server from the command line, that echoes, broadcasts, or runs a command for each connection."""

from __future__ import annotations

import argparse
import mimetypes
import shlex
import shutil
import ssl
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from .. import ConnectionClosed, Response, Transaction, broadcast, serve
from .arguments import count, port
from .ending import Status, watch_signals
from .show import one_line, visible

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .. import Server
    from ..server import Handlers, OnRequest
    from ..settings import ServerOptions

__all__ = ["add_address_arguments", "add_arguments", "run", "serve_until_signal"]

DESCRIPTION = """\
Serve WebSockets until a signal comes (Ctrl-C, SIGTERM): then the connections are closed with 1001, and the exit status
is 0. Who comes and goes is told on standard error.
"""
MAX_CONNECTIONS = 100
EXEC_GRACE = 5.0
"""Seconds that a command has to end by itself when its standard input has ended, before SIGTERM; trio sends SIGKILL
five seconds after that."""
CHUNK = 65_536


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell ``parser`` what ``serve`` takes."""
    parser.description = DESCRIPTION
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--echo", action="store_true", help="send every message back")
    what.add_argument("--broadcast", action="store_true", help="a chat room: send every message to all the others")
    what.add_argument(
        "--exec",
        type=_command,
        metavar="COMMAND",
        help="run a process for each connection: a message is a line of its input, a line of its output a message",
    )
    add_address_arguments(parser)
    parser.add_argument("--page", type=_page, metavar="FILE", help="answer plain HTTP requests for / with this file")
    parser.add_argument("--cert", metavar="FILE", help="serve wss:// with this certificate chain, in PEM")
    parser.add_argument("--key", metavar="FILE", help="its private key, where that is not in the same file")
    parser.add_argument("--compress", action="store_true", help="accept permessage-deflate")
    parser.add_argument(
        "--max-connections",
        type=count,
        default=MAX_CONNECTIONS,
        metavar="N",
        help=f"refuse more than so many at once, and so processes (default {MAX_CONNECTIONS})",
    )


def add_address_arguments(parser: argparse.ArgumentParser) -> None:
    """Tell ``parser`` about the address to listen on."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine)")
    parser.add_argument("--port", type=port, default=8000, help="port to listen on (default 8000; 0: any free one)")


def _command(given: str) -> list[str]:
    try:
        command = shlex.split(given)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{given!r}: {exc}") from None
    if not command or shutil.which(command[0]) is None:
        raise argparse.ArgumentTypeError(f"there is no command {given!r}")
    return command


def _page(given: str) -> Response:
    try:
        body = Path(given).read_bytes()
    except OSError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    return Response(200, {"Content-Type": mimetypes.guess_type(given)[0] or "application/octet-stream"}, body)


async def run(arguments: argparse.Namespace) -> int:
    """Do it, and return the exit status."""
    context = None
    if arguments.cert:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(arguments.cert, arguments.key)
    handler = echo
    if arguments.broadcast:
        handler = Room().join
    elif arguments.exec:
        handler = partial(execute, arguments.exec)

    async def handle(ws: Transaction) -> None:
        _tell(ws, "connected")
        ws.on("finish", _tell_end)
        await handler(ws)

    page: Response | None = arguments.page

    def answer(ws: Transaction) -> Response | None:
        assert ws.req is not None
        is_page = page is not None and ws.req.path == "/" and "Upgrade" not in ws.req.headers
        return page if is_page else None

    return await serve_until_signal(
        handle,
        arguments,
        context=context,
        on_request=answer,
        compression=arguments.compress,
        max_connections=arguments.max_connections,
    )


async def serve_until_signal(
    handler: Handlers,
    arguments: argparse.Namespace,
    announcement: str = "listening on {url}",
    *,
    context: ssl.SSLContext | None = None,
    on_request: OnRequest | None = None,
    **options: Unpack[ServerOptions],
) -> int:
    """Serve where ``arguments`` say, announce it on standard output, stop gracefully at a signal."""
    start = partial(
        serve,
        handler,
        arguments.port,
        host=arguments.host,
        ssl_context=context,
        on_request=on_request,
        **options,
    )
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(watch_signals, lambda _: stopping.set())
        server: Server = await nursery.start(start)
        url = str(server.url)
        print(announcement.format(url=url, address=url.split("/")[2]), flush=True)
        await stopping.wait()
        await server.aclose()
    return Status.DONE


async def echo(ws: Transaction) -> None:
    """Send every message back."""
    async for message in ws:
        await ws.send(message)


class Room:
    """Who is there, and hears what the others say."""

    def __init__(self) -> None:
        self._people: set[Transaction] = set()

    async def join(self, ws: Transaction) -> None:
        """Send every message of ``ws`` to all the others. Who is too slow to take one does not get it."""
        self._people.add(ws)
        try:
            async for message in ws:
                await broadcast(self._people - {ws}, message)
        finally:
            self._people.remove(ws)


async def execute(command: list[str], ws: Transaction) -> None:
    """Run ``command`` for ``ws``, until either ends.

    A command that ends with status 0 closes with 1000, any other way with 1011.
    """
    run_process = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, check=False)
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(run_process)
        nursery.start_soon(_feed, ws, process, nursery.cancel_scope)
        try:
            complete = await _send_lines(process, ws)
        except (ConnectionClosed, trio.ClosedResourceError):
            complete = True  # What it still writes is for nobody.
        if not complete:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await ws.finish(1011, f"a line of more than {ws.max_websocket_size} bytes")
        status = await process.wait()
        if status:
            await ws.finish(1011, f"the command ended with status {status}")
        nursery.cancel_scope.cancel()


async def _feed(ws: Transaction, process: trio.Process, scope: trio.CancelScope) -> None:
    """Write the messages of ``ws`` to the process; when they end, have it end."""
    assert process.stdin is not None
    listening = True
    try:
        async for message in ws:
            line = message.encode() if isinstance(message, str) else message
            if b"\n" in line:
                await ws.finish(1003, "a line break in a message")
            elif listening:
                try:
                    await process.stdin.send_all(line + b"\n")
                except trio.BrokenResourceError:
                    listening = False  # It reads no more, and may still write.
    except (ConnectionClosed, trio.ClosedResourceError):
        pass
    await process.stdin.aclose()
    await trio.sleep(EXEC_GRACE)
    scope.cancel()


async def _send_lines(process: trio.Process, ws: Transaction) -> bool:
    """Send what the process writes, line by line; False as soon as a line is longer than a message may be."""
    assert process.stdout is not None
    buffer = bytearray()
    async with process.stdout:
        async for data in process.stdout:
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                if len(line) > ws.max_websocket_size:
                    return False
                await ws.send(line.decode(errors="replace"))
            if len(buffer) > ws.max_websocket_size:
                return False
    if buffer:
        await ws.send(buffer.decode(errors="replace"))
    return True


def _tell_end(ws: Transaction, code: int, reason: str) -> None:
    _tell(ws, f"closed with {code}{f' ({visible(one_line(reason))})' if reason else ''}")


def _tell(ws: Transaction, what: str) -> None:
    print(f"{ws.remote_address}:{ws.remote_port} {what}", file=sys.stderr, flush=True)
