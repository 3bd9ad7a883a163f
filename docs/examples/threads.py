import trio

from trio_pyjo_ws import Transaction
from trio_pyjo_ws.testing import open_memory_pair


def work(ws: Transaction) -> None:
    trio.from_thread.run(ws.send, "from a thread")  # waits, as send does
    trio.from_thread.run_sync(ws.send_nowait, "and again")
    try:
        ws.send_nowait("past trio")
    except RuntimeError as exc:
        print(str(exc).partition("belongs")[2])


async def main() -> None:
    async with trio.open_nursery() as nursery:
        client, server = open_memory_pair(nursery)
        await trio.to_thread.run_sync(work, server)
        print(await client.receive(), await client.receive())
        await client.aclose()


if __name__ == "__main__":
    trio.run(main)
