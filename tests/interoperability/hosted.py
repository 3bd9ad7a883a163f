"""The application that the ASGI hosts run: what it sees of its clients goes to standard output."""

from __future__ import annotations

import json
import sys

from trio_pyjo_ws import ConnectionClosed, Response, Transaction, asgi
from trio_pyjo_ws.adapters.asgi import AsgiHandshake


def tell(*values: object) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


async def echo(ws: Transaction) -> None:
    try:
        async for message in ws:
            await ws.send(message)
    except ConnectionClosed as exc:
        tell("closed", *exc.close)
        raise
    tell("closed", *ws.closed or ())


async def who(ws: Transaction) -> None:
    assert ws.req is not None
    assert isinstance(ws.handshake, AsgiHandshake)
    told = {"name": ws.req.path_parameters["name"], "query": dict(ws.req.query_parameters), "subprotocol": ws.protocol}
    await ws.send(json={**told, "address": ws.remote_address, "http": ws.handshake.scope["http_version"]})
    tell("finished", *await ws.finish(4001, "enough"))


async def fail(_: Transaction) -> None:
    raise ValueError("fault")


def on_request(ws: Transaction) -> Response | None:
    assert ws.req is not None
    if ws.req.path == "/refused":
        return Response(401, {"X-Why": "because"}, "who are you?")
    return Response(200, body="fine\n") if ws.req.path == "/health" else None


routes = {"/echo": echo, "/who/{name}": who, "/fail": fail, "/refused": echo, "/health": echo}
app = asgi(routes, on_request=on_request, subprotocols=["v1"], max_websocket_size=1_000_000)
