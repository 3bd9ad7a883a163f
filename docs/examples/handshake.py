from functools import partial

import trio

from trio_pyjo_ws import HandshakeError, Response, Transaction, connect, serve


def on_request(ws: Transaction) -> Response | None:
    assert ws.req is not None
    if ws.req.path == "/chat":
        ws.with_compression()
        return None  # go on
    return Response(404, body="There is only /chat here.\n")


async def handler(ws: Transaction) -> None:
    assert ws.req is not None
    await ws.send(f"{ws.req.headers['X-Name']} speaks {ws.protocol}")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        start = partial(serve, handler, 0, host="127.0.0.1", on_request=on_request, subprotocols=["chat.v2", "chat.v1"])
        server = await nursery.start(start)

        ws = await connect(
            nursery,
            f"{server.url}chat",
            additional_headers={"X-Name": "Ada"},
            subprotocols=["chat.v1", "chat.v2"],
            compression=True,
        )
        assert ws.res is not None
        print(ws.res.status, ws.protocol, ws.compressed)
        print(ws.remote_address, ws.remote_port == server.port)
        async for message in ws:
            print(message)
        print(ws.close)

        try:
            await connect(nursery, server.url)
        except HandshakeError as exc:
            if exc.response is not None:  # the server has answered
                print(exc.response.status, exc.response.body)

        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
