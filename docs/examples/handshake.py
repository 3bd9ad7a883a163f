from functools import partial

import trio

from trio_pyjo_ws import HandshakeError, Response, Transaction, connect, serve


def on_request(ws: Transaction) -> Response:
    if ws.req.path == "/chat":
        ws.with_compression()
        return Response(101, {"Server": "chat/2.0"})  # or None: go on without headers
    return Response(404, body="There is only /chat here.\n")


async def handler(ws: Transaction) -> None:
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
        print(ws.res.status, ws.res.headers["Server"], ws.protocol, ws.compressed)
        print(ws.remote_address, ws.remote_port == server.port)
        async for message in ws:
            print(message)
        print(ws.closed)

        try:
            await connect(nursery, server.url)
        except HandshakeError as exc:
            if exc.response is not None:  # the server has answered
                print(exc.response.status, exc.response.body)

        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
