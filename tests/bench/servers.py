"""The servers, one to a process: ``python -m bench.servers echo|broadcast LIBRARY PORT [CERTIFICATE]``.

Each is what the library's own documentation shows, with compression off, and with room for the largest message. A
library is imported where it is used, so that a process holds one.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from .load import HOST

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection as AsyncioConnection
    from websockets.trio.server import ServerConnection as TrioConnection

    from trio_pyjo_ws import Transaction

Server = Callable[[int, "ssl.SSLContext | None"], object]
"""Serves on a port, with TLS where a context is given, until the process is killed."""

MAX_SIZE = 1 << 26


def _serve_ours(handler: Callable[[Any], Any], port: int, context: ssl.SSLContext | None) -> None:
    import trio

    from trio_pyjo_ws import serve

    trio.run(
        partial(serve, handler, port, host=HOST, ssl_context=context, compression=False, max_websocket_size=MAX_SIZE)
    )


def echo_ours(port: int, context: ssl.SSLContext | None) -> None:
    async def echo(ws: Transaction) -> None:
        async for message in ws:
            await ws.send(message)

    _serve_ours(echo, port, context)


def echo_ours_channel(port: int, context: ssl.SSLContext | None) -> None:
    async def echo(ws: Transaction) -> None:
        async with ws.open_channel("message") as messages:
            async for message in messages:
                await ws.send(message)

    _serve_ours(echo, port, context)


def broadcast_ours(port: int, context: ssl.SSLContext | None) -> None:
    from trio_pyjo_ws import broadcast

    room: set[Transaction] = set()

    async def chat(ws: Transaction) -> None:
        room.add(ws)
        try:
            async for message in ws:
                await broadcast(room, message)
        finally:
            room.discard(ws)

    _serve_ours(chat, port, context)


def echo_picows(port: int, context: ssl.SSLContext | None) -> None:
    import picows

    class Echo(picows.WSListener):
        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            if frame.msg_type == picows.WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code())
                transport.disconnect()
            else:
                transport.send(frame.msg_type, frame.get_payload_as_bytes())

    async def main() -> None:
        server = await picows.ws_create_server(lambda _: Echo(), HOST, port, ssl=context, max_frame_size=MAX_SIZE)
        await server.serve_forever()

    asyncio.run(main())


def echo_aiohttp(port: int, context: ssl.SSLContext | None) -> None:
    from aiohttp import web

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False, max_msg_size=MAX_SIZE)
        await ws.prepare(request)
        async for message in ws:
            await ws.send_bytes(message.data)
        return ws

    app = web.Application()
    app.router.add_get("/", echo)
    web.run_app(app, host=HOST, port=port, ssl_context=context, print=None, access_log=None)


def echo_websockets_asyncio(port: int, context: ssl.SSLContext | None) -> None:
    from websockets.exceptions import ConnectionClosed

    async def echo(ws: AsyncioConnection) -> None:
        with suppress(ConnectionClosed):
            async for message in ws:
                await ws.send(message)

    _serve_websockets_asyncio(echo, port, context)


def broadcast_websockets_asyncio(port: int, context: ssl.SSLContext | None) -> None:
    from websockets.asyncio.server import broadcast
    from websockets.exceptions import ConnectionClosed

    room: set[AsyncioConnection] = set()

    async def chat(ws: AsyncioConnection) -> None:
        room.add(ws)
        with suppress(ConnectionClosed):
            async for message in ws:
                broadcast(room, message)
        room.discard(ws)

    _serve_websockets_asyncio(chat, port, context)


def _serve_websockets_asyncio(handler: Callable[[Any], Any], port: int, context: ssl.SSLContext | None) -> None:
    from websockets.asyncio.server import serve

    async def main() -> None:
        async with serve(handler, HOST, port, ssl=context, compression=None, max_size=MAX_SIZE) as server:
            await server.serve_forever()

    asyncio.run(main())


def echo_websockets_trio(port: int, context: ssl.SSLContext | None) -> None:
    import trio
    from websockets.exceptions import ConnectionClosed
    from websockets.trio.server import serve

    async def echo(ws: TrioConnection) -> None:
        with suppress(ConnectionClosed):
            async for message in ws:
                await ws.send(message)

    trio.run(partial(serve, echo, port, host=HOST, ssl=context, compression=None, max_size=MAX_SIZE))


def broadcast_websockets_trio(port: int, context: ssl.SSLContext | None) -> None:
    import trio
    from websockets.exceptions import ConnectionClosed
    from websockets.trio.server import broadcast, serve

    room: set[TrioConnection] = set()

    async def chat(ws: TrioConnection) -> None:
        room.add(ws)
        try:
            with suppress(ConnectionClosed):
                async for message in ws:
                    await broadcast(room, message)
        finally:
            room.discard(ws)

    trio.run(partial(serve, chat, port, host=HOST, ssl=context, compression=None, max_size=MAX_SIZE))


def echo_trio_websocket(port: int, context: ssl.SSLContext | None) -> None:
    import trio
    from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

    async def echo(request: WebSocketRequest) -> None:
        ws = await request.accept()
        with suppress(ConnectionClosed):
            while True:
                await ws.send_message(await ws.get_message())

    trio.run(partial(serve_websocket, echo, HOST, port, context, max_message_size=MAX_SIZE))


SERVERS: dict[tuple[str, str], Server] = {
    ("echo", "ours"): echo_ours,
    ("echo", "ours-pure"): echo_ours,  # the parent process has set the environment variable
    ("echo", "ours-channel"): echo_ours_channel,
    ("echo", "picows"): echo_picows,
    ("echo", "aiohttp"): echo_aiohttp,
    ("echo", "websockets-asyncio"): echo_websockets_asyncio,
    ("echo", "websockets-trio"): echo_websockets_trio,
    ("echo", "trio-websocket"): echo_trio_websocket,
    ("broadcast", "ours"): broadcast_ours,
    ("broadcast", "ours-pure"): broadcast_ours,
    ("broadcast", "websockets-asyncio"): broadcast_websockets_asyncio,
    ("broadcast", "websockets-trio"): broadcast_websockets_trio,
}


def main() -> None:
    what, library, port, *certificate = sys.argv[1:]
    context = None
    if certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate[0])
    SERVERS[what, library](int(port), context)


if __name__ == "__main__":
    main()
