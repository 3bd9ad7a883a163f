from functools import partial

import orjson
import trio

from trio_pyjo_ws import Transaction, open_websocket, serve


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1"))
        async with open_websocket(server.url, json=orjson) as ws:
            await ws.send(json={"fast": True})
            print(await ws.receive_json())
        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
