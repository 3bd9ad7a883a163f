"""The peer `aiohttp`. It cannot send fragments."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import ClientSession, WSMsgType, web

from .process import SUBPROTOCOL, Closed, main, run

if TYPE_CHECKING:
    import ssl

DATA = {WSMsgType.TEXT, WSMsgType.BINARY}


class Connection:
    def __init__(self, ws: Any) -> None:
        self._ws = ws
        self._reason = ""

    async def _next(self) -> Any:
        message = await self._ws.receive()
        if message.type is WSMsgType.ERROR:
            raise message.data
        if message.type is WSMsgType.CLOSE:
            self._reason = message.extra or ""
        if message.type in {WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED}:
            raise Closed
        return message

    async def receive(self) -> str | bytes:
        message = await self._next()
        assert message.type in DATA, f"unexpected {message}"
        data: str | bytes = message.data
        return data

    async def send(self, message: str | bytes) -> None:
        await (self._ws.send_str(message) if isinstance(message, str) else self._ws.send_bytes(message))

    async def send_fragments(self, fragments: list[str] | list[bytes]) -> None:
        raise NotImplementedError

    async def ping(self, payload: bytes) -> None:
        await self._ws.ping(payload)
        message = await self._next()
        assert (message.type, message.data) == (WSMsgType.PONG, payload), f"no pong: {message}"

    async def close(self, code: int, reason: str) -> None:
        await self._ws.close(code=code, message=reason.encode())

    async def abort(self) -> None:
        self._ws.get_extra_info("socket").shutdown(2)

    async def end(self) -> tuple[int, str, str | None]:
        await self._ws.close()
        protocol = self._ws.ws_protocol if isinstance(self._ws, web.WebSocketResponse) else self._ws.protocol
        return self._ws.close_code, self._reason, protocol


def options(action: str) -> dict[str, Any]:
    # Where pings are answered by the library, it shows no pongs.
    return {"autoping": not action.startswith("ping/"), "max_msg_size": 0}


class Peer:
    async def serve(self, deflate: Any, context: ssl.SSLContext | None) -> int:
        async def handle(request: web.Request) -> web.WebSocketResponse:
            # It takes whatever parameters a client asks for, and asks for none.
            action = request.raw_path[1:]
            ws = web.WebSocketResponse(compress=deflate is not None, protocols=[SUBPROTOCOL], **options(action))
            await ws.prepare(request)
            await run(Connection(ws), action)
            return ws

        app = web.Application()
        app.router.add_get("/{action:.*}", handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        port: int = runner.addresses[0][1]
        return port

    async def connect(self, job: dict[str, Any], deflate: Any, context: ssl.SSLContext | None) -> None:
        given = {**options(job["action"]), "protocols": job["subprotocols"], "ssl": context or True}
        compress = 0 if deflate is None else 15  # the bits of its window
        async with ClientSession() as session, session.ws_connect(job["url"], compress=compress, **given) as ws:
            await run(Connection(ws), job["action"])


if __name__ == "__main__":
    asyncio.run(main(Peer()))
