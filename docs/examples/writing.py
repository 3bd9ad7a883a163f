import trio
from trio.testing import lockstep_stream_pair

from trio_pyjo_ws import Transaction
from trio_pyjo_ws.testing import open_memory_pair


def written(ws: Transaction) -> None:
    print("written")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        # A connection that takes nothing in until the other side reads, as a TCP connection whose buffers are full.
        client, server = open_memory_pair(nursery, streams=lockstep_stream_pair(), write_limit=1000)

        client.send_nowait(written, b"a" * 900)
        client.send_nowait(b"b" * 900)  # this one, too: less than write_limit was waiting
        try:
            client.send_nowait(b"c")
        except trio.WouldBlock:
            print("full:", client.statistics().bytes_unsent, "bytes wait")

        with trio.move_on_after(0.01) as scope:
            await client.send(b"c")  # waits for room
        print("cancelled, and nothing of it is queued:", scope.cancelled_caught)

        received = [await server.receive(), await server.receive()]
        await client.drain()
        print("received", *map(len, received))
        print("bytes that wait:", client.statistics().bytes_unsent)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
