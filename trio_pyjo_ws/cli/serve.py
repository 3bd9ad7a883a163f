"""``serve``: a server from the command line, that echoes, broadcasts, or runs a command for each connection."""

from __future__ import annotations

import argparse
import mimetypes
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from .. import Response, Transaction, broadcast, serve
from ..escaping import escape
from .arguments import count, port, readable_file
from .certificates import server_context
from .ending import Status, watch_signals
from .processes import execute

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Unpack

    from .. import Server
    from ..options import ServerOptions
    from ..server.serving import Handlers, OnRequest

__all__ = ["HOST", "PORT", "add_address_arguments", "add_arguments", "run", "serve_until_signal"]

DESCRIPTION = """\
Serve WebSockets until a signal comes (Ctrl-C, SIGTERM): then the connections are closed with 1001, and the exit status
is 0. Connections are logged on standard error.
"""
MAX_CONNECTIONS = 100

HOST = "127.0.0.1"
PORT = 8000
"""Where it listens if the arguments do not say."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``serve`` to ``parser``."""
    parser.description = DESCRIPTION
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--echo", action="store_true", help="send every message back")
    what.add_argument("--broadcast", action="store_true", help="a chat room: send every message to all the others")
    what.add_argument(
        "--exec",
        type=_command,
        metavar="COMMAND",
        help="run a process for each connection: a message is a line of its input, a line of its output a message; "
        "its environment has the variables of CGI",
    )
    add_address_arguments(parser)
    parser.add_argument("--page", type=_page, metavar="FILE", help="answer plain HTTP requests for / with this file")
    parser.add_argument(
        "--cert", type=readable_file, metavar="FILE", help="serve wss:// with this certificate chain, in PEM"
    )
    parser.add_argument("--key", type=readable_file, metavar="FILE", help="its private key, unless it is in that file")
    parser.add_argument("--compress", action="store_true", help="accept permessage-deflate")
    parser.add_argument(
        "--max-connections",
        type=count,
        default=MAX_CONNECTIONS,
        metavar="N",
        help=f"refuse more than so many at once, and so processes (default {MAX_CONNECTIONS})",
    )


def add_address_arguments(parser: argparse.ArgumentParser) -> None:
    """Add to ``parser`` the address to listen on."""
    parser.add_argument("--host", default=HOST, help=f"address to listen on (default {HOST}: this machine)")
    parser.add_argument("--port", type=port, default=PORT, help=f"port to listen on (default {PORT}; 0: any free one)")


def _command(given: str) -> list[str]:
    try:
        command = shlex.split(given)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{given!r}: {exc}") from None
    if not command or shutil.which(command[0]) is None:
        raise argparse.ArgumentTypeError(f"no such command: {given!r}")
    return command


def _page(given: str) -> Response:
    body = Path(readable_file(given)).read_bytes()
    return Response(200, {"Content-Type": mimetypes.guess_type(given)[0] or "application/octet-stream"}, body)


async def run(arguments: argparse.Namespace) -> int:
    """Do it, and return the exit status."""
    context = server_context(arguments)
    handler = echo
    if arguments.broadcast:
        handler = Room().join
    elif arguments.exec:
        handler = partial(execute, arguments.exec, context is not None)

    async def handle(ws: Transaction) -> None:
        _tell(ws, "connected")
        ws.on("finish", _tell_end)
        await handler(ws)

    page: Response | None = arguments.page

    def answer(ws: Transaction) -> Response | None:
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
        try:
            server: Server = await nursery.start(start)
        except OSError as exc:
            where = f"{arguments.host}:{arguments.port}"
            raise OSError(f"cannot listen on {where}: {exc.strerror or exc}") from None
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


def _tell_end(ws: Transaction, code: int, reason: str) -> None:
    _tell(ws, f"closed with {code}{f' ({escape(reason)})' if reason else ''}")


def _tell(ws: Transaction, what: str) -> None:
    print(f"{ws.remote_address}:{ws.remote_port} {what}", file=sys.stderr, flush=True)
