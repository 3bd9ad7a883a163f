from functools import partial

import trio

from trio_pyjo_ws import ConnectionClosed, HandshakeError, ServerOptions, Transaction, open_websocket, serve

limits: ServerOptions = {
    "max_connections": 1000,
    "max_connections_per_address": 2,
    "max_message_rate": 10,
    "idle_timeout": 600,
}


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1", **limits))
        async with open_websocket(server.url), open_websocket(server.url) as ws:
            try:
                async with open_websocket(server.url):
                    pass
            except HandshakeError as exc:
                print(exc)
            try:
                while True:
                    await ws.send("Are we there yet?")
            except ConnectionClosed as exc:
                print(exc)
        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
