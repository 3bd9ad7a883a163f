import trio
from trio.testing import lockstep_stream_pair

from trio_pyjo_ws import ConnectionClosed, broadcast
from trio_pyjo_ws.testing import open_memory_pair


async def main() -> None:
    async with trio.open_nursery() as nursery:
        # The stream of the slow one takes nothing in, since nobody reads at its other end.
        slow_client, slow = open_memory_pair(nursery, streams=lockstep_stream_pair(), write_limit=1000)
        quick_client, quick = open_memory_pair(nursery)

        print("both get it:", await broadcast([quick, slow], b"1" * 1000))
        print("the slow one does not:", await broadcast([quick, slow], b"2"))
        print("it is closed:", await broadcast([quick, slow], b"3", slow="close"))
        print("it is gone:", await broadcast([quick, slow], b"4"))

        print([len(await quick_client.receive()) for _ in range(4)])
        print(len(await slow_client.receive()))
        try:
            await slow_client.receive()
        except ConnectionClosed as exc:
            print(exc)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
