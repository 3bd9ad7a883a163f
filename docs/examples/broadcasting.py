from contextlib import AsyncExitStack
from functools import partial

import trio

from trio_pyjo_ws import Transaction, broadcast, open_websocket, serve

room: set[Transaction] = set()


async def chat(ws: Transaction) -> None:
    room.add(ws)
    try:
        async for message in ws:
            await broadcast(room, message, slow="close")  # a client that does not read is closed with 1013
    finally:
        room.discard(ws)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, chat, 0, host="127.0.0.1"))
        async with AsyncExitStack() as stack:
            people = [await stack.enter_async_context(open_websocket(server.url)) for _ in range(3)]
            await people[0].send("Hello, everybody!")
            for person in people:
                print(await person.receive())
        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
