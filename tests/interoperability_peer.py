"""The peer of test_interoperability.py: `websockets`, both roles, in a process of its own, for it needs asyncio.

Argv: JSON of {"deflate": {name: null or parameters}, "certificate": path, "authority": path}. Prints the ports of its
servers as {"name": [plain, tls]}. Then each line of standard input is a client's job, {"url", "deflate", "action"}; and
each connection, in either role, ends with a line of output: {"close": [code, reason], "error": null or text}.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - the peer's own
import json
import ssl
import sys
from typing import Any
from urllib.parse import unquote, urlsplit

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory, ServerPerMessageDeflateFactory

OPTIONS: dict[str, Any] = {"max_size": None, "compression": None, "ping_interval": None}


def tell(value: Any) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def act(ws: Any, action: str) -> None:
    """What this end of a connection does: ``action`` is the path of its URL."""
    name, *arguments = map(unquote, action.lstrip("/").split("/"))
    if name == "echo":
        async for message in ws:
            await ws.send(message)
    elif name == "flood":
        await flood(ws, int(arguments[0]))
    elif name == "fragments":
        for fragments in json.loads(arguments[0]):
            await ws.send(iter(fragments))
            await ws.send(fragment.encode() for fragment in fragments)
        async for _ in ws:
            pass
    elif name == "ping":
        await (await ws.ping(arguments[0]))
        await ws.send("ponged")
        async for _ in ws:
            pass
    elif name == "close":
        await ws.close(int(arguments[0]), arguments[1])
    else:
        raise ValueError(f"there is no action {action!r}")


async def flood(ws: Any, count: int) -> None:
    async def send() -> None:
        for number in range(count):
            await ws.send(str(number))

    async def receive() -> None:
        for number in range(count):
            message = await ws.recv()
            assert message == str(number), f"{message!r} came in place of {number}"

    await asyncio.gather(send(), receive())
    async for _ in ws:
        pass


async def run(ws: Any, action: str) -> None:
    error = None
    try:
        await act(ws, action)
    except ConnectionClosed:
        pass
    except Exception as exc:  # whatever it is, the test shows it
        error = repr(exc)
    await ws.close()
    await ws.wait_closed()
    tell({"close": [ws.close_code, ws.close_reason], "error": error})


async def handle(ws: ServerConnection) -> None:
    assert ws.request is not None
    await run(ws, urlsplit(ws.request.path).path)


async def main(setup: dict[str, Any]) -> None:
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(setup["certificate"])
    client_context = ssl.create_default_context(cafile=setup["authority"])
    ports = {}
    for name, parameters in setup["deflate"].items():
        extensions = [] if parameters is None else [ServerPerMessageDeflateFactory(**parameters)]
        servers = [
            await serve(handle, "127.0.0.1", 0, ssl=context, extensions=extensions, **OPTIONS)
            for context in (None, server_context)
        ]
        ports[name] = [next(iter(server.sockets)).getsockname()[1] for server in servers]
    tell(ports)
    while line := await asyncio.to_thread(sys.stdin.readline):
        job = json.loads(line)
        parameters = setup["deflate"][job["deflate"]]
        extensions = [] if parameters is None else [ClientPerMessageDeflateFactory(**parameters)]
        context = client_context if job["url"].startswith("wss") else None
        async with connect(job["url"], ssl=context, extensions=extensions, **OPTIONS) as ws:
            await run(ws, job["action"])


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
