from collections.abc import AsyncIterator
from functools import partial

import trio

from trio_pyjo_ws import Transaction, open_websocket, serve


async def count_bytes(ws: Transaction) -> None:
    while True:
        size = 0
        async with ws.receive_stream() as message:  # the next message, of any size
            async for piece in message:
                size += len(piece)
        await ws.send(f"{size} bytes of {message.kind}")


async def read_file() -> AsyncIterator[bytes]:
    async with await trio.open_file(__file__, "rb") as file:
        while piece := await file.read(100):
            yield piece


async def speak() -> AsyncIterator[str]:
    for word in ["as ", "it ", "comes"]:
        await trio.sleep(0.01)
        yield word


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, count_bytes, 0, host="127.0.0.1", max_websocket_size=1024))
        async with open_websocket(server.url) as ws:
            await ws.send(text=speak())
            print(await ws.receive())
            await ws.send(binary=read_file())
            size = int((await ws.receive()).split()[0])
            print(size == (await trio.Path(__file__).stat()).st_size, size > 1024)
        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
