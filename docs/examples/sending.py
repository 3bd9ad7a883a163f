from functools import partial

import trio

from trio_pyjo_ws import Transaction, open_websocket, serve


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


def written(ws: Transaction) -> None:
    print("all data has been written")


async def talk(ws: Transaction) -> None:
    await ws.send("Hello World!")  # str: text
    await ws.send(b"Hello World!")  # bytes: binary
    await ws.send(text="Hello World!")
    await ws.send(binary=b"Hello World!")
    await ws.send(json={"test": [1, 2, 3]})
    await ws.send(frame=[0, 0, 0, 0, 1, b"Hello "])  # FIN is 0: the message goes on
    await ws.send(frame=[1, 0, 0, 0, 0, b"World!"])
    await ws.send(frame=[1, 0, 0, 0, 9, b"Hello World!"])  # a ping
    for _ in range(6):
        print(repr(await ws.receive()))

    # With a drain callback, first or by name.
    await ws.send(written, "Hello World!")
    await ws.send(written, json=[1, 2, 3])
    await ws.send(text="Hello World!", cb=written)
    await ws.drain()  # returns once all that is queued has been written
    for _ in range(3):
        print(repr(await ws.receive()))

    # From code that cannot wait: send_nowait() raises trio.WouldBlock while too much is queued.
    for number in range(3):
        ws.send_nowait(f"message {number}")
    await ws.drain()
    for _ in range(3):
        print(repr(await ws.receive()))

    # Compressed, where both sides agreed to it in the opening handshake.
    print("compressed", ws.compressed)
    ws.compressed = False  # for what this side sends from now on
    await ws.send(b"Hello World!")
    print(repr(await ws.receive()))


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1", compression=True))
        async with open_websocket(server.url, compression=True) as ws:
            await talk(ws)
        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
