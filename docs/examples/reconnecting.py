import itertools
from functools import partial

import trio

from trio_pyjo_ws import ConnectionClosed, Transaction, reconnecting, serve

visits = itertools.count(1)


async def handler(ws: Transaction) -> None:
    visit = next(visits)
    await ws.send(f"visit {visit}")
    if visit == 2:
        await ws.finish(1011, "something broke")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1"))

        message: str | bytes = ""
        async with reconnecting(server.url, initial_delay=0.01) as connections:
            async for ws in connections:
                try:
                    async for message in ws:  # ends when the peer closes normally
                        print(message)
                except ConnectionClosed as exc:
                    print(exc)
                if message == "visit 3":
                    break

        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
