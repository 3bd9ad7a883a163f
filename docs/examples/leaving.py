import trio

from trio_pyjo_ws import Transaction
from trio_pyjo_ws.testing import open_memory_pair


async def say_and_go(ws: Transaction) -> None:
    async with ws:  # closes with 1000
        for word in ("one", "two", "three"):
            await ws.send(word)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        client, server = open_memory_pair(nursery)
        await say_and_go(server)
        async for message in client:  # what came before the end is there
            print(message)
        print("the server closed:", client.closed)
        try:
            await client.send("Wait!")
        except trio.BrokenResourceError as exc:
            print(f"{type(exc).__name__}: {exc}")

        client, server = open_memory_pair(nursery)
        await server.send("sent before, and read")
        await trio.sleep(0.5)  # nobody receives, so a task in the background reads
        nursery.start_soon(server.send, "sent before the server knows, and read")
        print("this side closed:", await client.finish(4000, "enough"))
        try:
            while True:
                print(await client.receive())
        except trio.ClosedResourceError as exc:
            print(f"{type(exc).__name__}: {exc}")


if __name__ == "__main__":
    trio.run(main)
