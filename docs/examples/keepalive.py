import trio
from trio.testing import MockClock, memory_stream_pair

from trio_pyjo_ws import ConnectionClosed
from trio_pyjo_ws.testing import Faults, FaultyStream, open_memory_pair


async def main() -> None:
    ours, theirs = memory_stream_pair()
    outward, inward = Faults(), Faults()  # the two directions of a cable
    async with trio.open_nursery() as nursery:
        streams = FaultyStream(ours, send=outward, receive=inward), theirs
        client, _server = open_memory_pair(nursery, streams=streams, ping_interval=20, ping_timeout=10)

        with trio.move_on_after(3600):  # a time-out of your own: cancelling receive() loses no message
            await client.receive()
        print("an hour of silence:", client.closed or "still open")

        outward.stall()
        inward.stall()
        cut = trio.current_time()
        try:
            await client.receive()
        except ConnectionClosed as exc:
            print(exc)
        print("noticed within 30 seconds:", trio.current_time() - cut <= 30)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, clock=MockClock(autojump_threshold=0))
