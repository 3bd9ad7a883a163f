"""The servers, one to a process: ``python -m bench.servers WHAT LIBRARY PORT [CERTIFICATE | URL]``.

WHAT is `echo`, `tls` (with the certificate), `deflate` (with compression as the library has it), `level` (with
compression at level 1), `broadcast`, `rooms` (with the URL of a redis-server, if it is to use one) or `turn`. Each
server is what the library's own documentation shows, with room for the largest message. A library is imported where it
is used, so that a process holds one.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import thread_time_ns
from typing import TYPE_CHECKING, Any, NamedTuple

from . import ours
from .load import HOST

if TYPE_CHECKING:
    import trio
    from websockets.asyncio.server import ServerConnection as AsyncioConnection
    from websockets.trio.server import ServerConnection as TrioConnection

    from trio_pyjo_ws import Transaction

MAX_SIZE = 1 << 26
LEVEL = 1
"""That of aiohttp, which has no other."""


class Options(NamedTuple):
    port: int
    context: ssl.SSLContext | None = None
    compression: bool = False
    level: int | None = None
    """That of the compression; None for the library's own."""
    redis: str | None = None
    """The URL of a redis-server that rooms are shared by."""


Server = Callable[[Options], object]
"""Serves until the process is killed."""


def _serve_ours(
    handler: Callable[[Transaction], Any], options: Options, instruments: Sequence[trio.abc.Instrument] = ()
) -> None:
    import trio

    from trio_pyjo_ws import Deflate, serve

    compression = options.compression if options.level is None else Deflate(level=options.level)
    start = partial(serve, handler, options.port, host=HOST, ssl_context=options.context)
    trio.run(partial(start, compression=compression, max_websocket_size=MAX_SIZE), instruments=instruments)


def rooms_ours(options: Options) -> None:
    """Publish what a member sends; answer `joined?` alone, which waits until it has joined."""
    import trio

    from trio_pyjo_ws import open_rooms, serve

    async def main() -> None:
        async with open_rooms(options.redis) as rooms:

            async def chat(ws: Transaction) -> None:
                async with rooms.join("chat", ws) as room:
                    async for message in ws:
                        if message == "joined?":
                            await ws.send("joined")
                        else:
                            await room.publish(message)

            await serve(chat, options.port, host=HOST, compression=options.compression, max_websocket_size=MAX_SIZE)

    trio.run(main)


def turns_ours(options: Options) -> None:
    """Send to all by `send_nowait`; answer `longest` with the milliseconds of the longest turn since the last time."""
    import trio

    class Turns(trio.abc.Instrument):
        longest = began = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.began = thread_time_ns()

        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            self.longest = max(self.longest, thread_time_ns() - self.began)

    turns = Turns()
    room: set[Transaction] = set()

    async def chat(ws: Transaction) -> None:
        room.add(ws)
        try:
            async for message in ws:
                if message == "longest":
                    await ws.send(str(turns.longest / 1e6))
                    turns.longest = 0
                else:
                    for other in room:
                        other.send_nowait(message)
        finally:
            room.discard(ws)

    _serve_ours(chat, options, [turns])


def echo_picows(options: Options) -> None:
    import picows

    class Echo(picows.WSListener):
        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            if frame.msg_type == picows.WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code())
                transport.disconnect()
            else:
                transport.send(frame.msg_type, frame.get_payload_as_bytes())

    async def main() -> None:
        server = await picows.ws_create_server(
            lambda _: Echo(), HOST, options.port, ssl=options.context, max_frame_size=MAX_SIZE
        )
        await server.serve_forever()

    asyncio.run(main())


def echo_picows_uvloop(options: Options) -> None:
    import uvloop

    uvloop.install()
    echo_picows(options)


def echo_aiohttp(options: Options) -> None:
    from aiohttp import WSMsgType, web

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=options.compression, max_msg_size=MAX_SIZE)
        await ws.prepare(request)
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                await ws.send_str(message.data)
            else:
                await ws.send_bytes(message.data)
        return ws

    app = web.Application()
    app.router.add_get("/", echo)
    web.run_app(app, host=HOST, port=options.port, ssl_context=options.context, print=None, access_log=None)


def echo_websockets_asyncio(options: Options) -> None:
    from websockets.exceptions import ConnectionClosed

    async def echo(ws: AsyncioConnection) -> None:
        with suppress(ConnectionClosed):
            async for message in ws:
                await ws.send(message)

    _serve_websockets_asyncio(echo, options)


def broadcast_websockets_asyncio(options: Options) -> None:
    from websockets.asyncio.server import broadcast
    from websockets.exceptions import ConnectionClosed

    room: set[AsyncioConnection] = set()

    async def chat(ws: AsyncioConnection) -> None:
        room.add(ws)
        with suppress(ConnectionClosed):
            async for message in ws:
                broadcast(room, message)
        room.discard(ws)

    _serve_websockets_asyncio(chat, options)


def _compression_of_websockets(options: Options) -> dict[str, Any]:
    from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

    if options.level is not None:
        return {"extensions": [ServerPerMessageDeflateFactory(compress_settings={"level": options.level})]}
    return {"compression": "deflate" if options.compression else None}


def _serve_websockets_asyncio(handler: Callable[[Any], Any], options: Options) -> None:
    from websockets.asyncio.server import serve

    async def main() -> None:
        compression = _compression_of_websockets(options)
        async with serve(handler, HOST, options.port, ssl=options.context, max_size=MAX_SIZE, **compression) as server:
            await server.serve_forever()

    asyncio.run(main())


def _serve_websockets_trio(handler: Callable[[Any], Any], options: Options) -> None:
    import trio
    from websockets.trio.server import serve

    compression = _compression_of_websockets(options)
    trio.run(partial(serve, handler, options.port, host=HOST, ssl=options.context, max_size=MAX_SIZE, **compression))


def echo_websockets_trio(options: Options) -> None:
    from websockets.exceptions import ConnectionClosed

    async def echo(ws: TrioConnection) -> None:
        with suppress(ConnectionClosed):
            async for message in ws:
                await ws.send(message)

    _serve_websockets_trio(echo, options)


def broadcast_websockets_trio(options: Options) -> None:
    from websockets.exceptions import ConnectionClosed
    from websockets.trio.server import broadcast

    room: set[TrioConnection] = set()

    async def chat(ws: TrioConnection) -> None:
        room.add(ws)
        try:
            with suppress(ConnectionClosed):
                async for message in ws:
                    await broadcast(room, message)
        finally:
            room.discard(ws)

    _serve_websockets_trio(chat, options)


def echo_trio_websocket(options: Options) -> None:
    import trio
    from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

    async def echo(request: WebSocketRequest) -> None:
        ws = await request.accept()
        with suppress(ConnectionClosed):
            while True:
                await ws.send_message(await ws.get_message())

    trio.run(partial(serve_websocket, echo, HOST, options.port, options.context, max_message_size=MAX_SIZE))


ECHO: dict[str, Server] = {
    "ours": partial(_serve_ours, ours.echo),
    "ours-callback": partial(_serve_ours, ours.echo_by_callback),
    "ours-channel": partial(_serve_ours, ours.echo_by_channel),
    "picows": echo_picows,
    "picows-uvloop": echo_picows_uvloop,
    "aiohttp": echo_aiohttp,
    "websockets-asyncio": echo_websockets_asyncio,
    "websockets-trio": echo_websockets_trio,
    "trio-websocket": echo_trio_websocket,
}
BROADCAST: dict[str, Server] = {
    "ours": partial(_serve_ours, ours.chat),
    "websockets-asyncio": broadcast_websockets_asyncio,
    "websockets-trio": broadcast_websockets_trio,
}
SERVERS: dict[str, dict[str, Server]] = {
    **dict.fromkeys(["echo", "tls", "deflate", "level"], ECHO),
    "broadcast": BROADCAST,
    "rooms": {"ours": rooms_ours, "ours-redis": rooms_ours},
    "turn": {"ours": turns_ours},
}


def main() -> None:
    what, library, port, *more = sys.argv[1:]
    # Which codec and which version of ours it is, the parent process has chosen.
    library = library.replace("before", "ours").replace("ours-pure", "ours")
    options = Options(int(port), compression=what in {"deflate", "level"}, level=LEVEL if what == "level" else None)
    if what == "tls":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*more)
        options = options._replace(context=context)
    elif more:
        options = options._replace(redis=more[0])
    SERVERS[what][library](options)


if __name__ == "__main__":
    main()
