import trio

from trio_pyjo_ws import Transaction
from trio_pyjo_ws.testing import open_memory_pair


async def work(ws: Transaction) -> None:
    try:
        await trio.sleep_forever()
    finally:
        with trio.move_on_after(5, shield=True):
            await ws.finish(1001, "going home")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        client, server = open_memory_pair(nursery)
        with trio.move_on_after(0.1):
            await work(server)
        async for _ in client:
            pass
        print(client.closed)


if __name__ == "__main__":
    trio.run(main)
