import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_pyjo_ws import ConnectionClosed
from trio_pyjo_ws.testing import Faults, FaultyStream, open_memory_pair


async def test_byte_by_byte(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    ours, theirs = memory_stream_pair()
    slow = FaultyStream(ours, send=Faults(chunk_size=1), receive=Faults(chunk_size=1))
    client, server = open_memory_pair(nursery, streams=(slow, theirs))
    await client.send("Hello World!")
    assert await server.receive() == "Hello World!"


@pytest.mark.parametrize("place", range(14))
async def test_a_reset_at_each_byte_of_a_message(place: int, autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    ours, theirs = memory_stream_pair()
    broken = FaultyStream(ours, receive=Faults(reset_at=place))
    client, server = open_memory_pair(nursery, streams=(broken, theirs))
    await server.send("Hello World!")  # 2 bytes and 12
    with pytest.raises(ConnectionClosed):
        await client.receive()


async def test_a_peer_that_stops_reading(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    ours, theirs = memory_stream_pair()
    clogged = FaultyStream(ours, send=Faults(stall_at=1000))
    client, server = open_memory_pair(nursery, streams=(clogged, theirs))
    nursery.start_soon(client.send, bytes(5000))
    await wait_all_tasks_blocked()
    assert client.statistics().tasks_waiting_send == 1
    clogged.sending.release()
    assert await server.receive() == bytes(5000)
