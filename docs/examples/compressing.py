from functools import partial

import trio

from trio_pyjo_ws import Deflate, Transaction, open_websocket, serve


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


async def talk(ws: Transaction, jpeg: bytes, update: object) -> None:
    await ws.send(jpeg, compress=False)  # it is compressed already
    await ws.send(json=update, compress=True)  # short, but much like the one before
    print(len(await ws.receive()), await ws.receive())


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1", compression=Deflate(level=1)))
        async with open_websocket(server.url, compression=True) as ws:
            await ws.send("Hello World! " * 1000)
            await ws.receive()
            before, after = ws.statistics().compression_sent
            print(before, "bytes became less than a hundredth:", after < before / 100)
            await talk(ws, b"\xff\xd8\xff" * 100, {"x": 1})
        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
