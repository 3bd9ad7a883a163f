"""The peers `websockets` and `picows`, which has the same surface; the argument after the setup says which."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .process import SUBPROTOCOL, Closed, main, run

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator, Sequence

LIBRARY = sys.argv[2]
if LIBRARY == "websockets":
    from websockets.asyncio.client import connect
    from websockets.asyncio.server import serve
    from websockets.exceptions import ConnectionClosed
    from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory
else:
    import picows
    from picows.websockets import ConnectionClosed, connect, serve

OPTIONS: dict[str, Any] = {"max_size": None, "compression": None, "ping_interval": None}
if LIBRARY == "picows":
    # Over TLS it waits for close_notify, also where it has stopped reading for a full queue: then it never ends.
    OPTIONS["max_queue"] = None


def options(role: str, parameters: dict[str, Any] | None) -> dict[str, Any]:
    if parameters is None:
        return OPTIONS
    if LIBRARY == "picows":  # It has permessage-deflate without parameters.
        return {**OPTIONS, "compression": "deflate"}
    factory = ServerPerMessageDeflateFactory if role == "server" else ClientPerMessageDeflateFactory
    return {**OPTIONS, "extensions": [factory(**parameters)]}


@contextmanager
def closing() -> Iterator[None]:
    try:
        yield
    except ConnectionClosed as exc:
        raise Closed from exc


class Connection:
    def __init__(self, ws: Any) -> None:
        self._ws = ws

    async def receive(self) -> str | bytes:
        with closing():
            message: str | bytes = await self._ws.recv()
        return message

    async def send(self, message: str | bytes) -> None:
        with closing():
            await self._ws.send(message)

    async def send_fragments(self, fragments: list[str] | list[bytes]) -> None:
        with closing():
            await self._ws.send(iter(fragments))

    async def ping(self, payload: bytes) -> None:
        with closing():
            await (await self._ws.ping(payload))

    async def close(self, code: int, reason: str) -> None:
        await self._ws.close(code, reason)

    async def abort(self) -> None:
        if LIBRARY == "websockets":
            self._ws.transport.abort()
        else:  # It gives its transport to nobody.
            (transport,) = [one for one in gc.get_referents(self._ws) if isinstance(one, picows.WSTransport)]
            transport.disconnect(graceful=False)

    async def end(self) -> tuple[int, str, str | None]:
        await self._ws.wait_closed()
        # picows says None where there was no Close, and where that had no reason.
        return self._ws.close_code or 1006, self._ws.close_reason or "", self._ws.subprotocol


def select(_: Any, offered: Sequence[str]) -> str | None:
    return SUBPROTOCOL if SUBPROTOCOL in offered else None


class Peer:
    async def serve(self, deflate: Any, context: ssl.SSLContext | None) -> int:
        async def handle(ws: Any) -> None:
            await run(Connection(ws), ws.request.path[1:])

        given = options("server", deflate)
        server = await serve(handle, "127.0.0.1", 0, ssl=context, select_subprotocol=select, **given)
        port: int = next(iter(server.sockets)).getsockname()[1]
        return port

    async def connect(self, job: dict[str, Any], deflate: Any, context: ssl.SSLContext | None) -> None:
        given = options("client", deflate)
        async with connect(job["url"], ssl=context, subprotocols=job["subprotocols"], **given) as ws:
            await run(Connection(ws), job["action"])


if __name__ == "__main__":
    asyncio.run(main(Peer()))
