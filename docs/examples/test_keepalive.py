import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from trio_pyjo_ws import ConnectionClosed
from trio_pyjo_ws.testing import Faults, FaultyStream, open_memory_pair


async def test_a_day_of_pings(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    client, server = open_memory_pair(nursery, ping_interval=20)
    await trio.sleep(24 * 60 * 60)
    await server.send("still here")
    assert await client.receive() == "still here"
    assert client.statistics().latency == 0  # of the last ping: the mock clock stands still while anybody runs


async def test_a_peer_that_is_gone(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    ours, theirs = memory_stream_pair()
    cut = FaultyStream(ours, send=Faults(stall_at=0), receive=Faults(stall_at=0))  # nothing gets through any more
    client, _server = open_memory_pair(nursery, streams=(cut, theirs), ping_interval=20, ping_timeout=5)
    with pytest.raises(ConnectionClosed) as caught:
        await client.receive()
    assert caught.value.close.code == 1006
    assert trio.current_time() <= 25  # the first ping goes out within 20 seconds; for 5 more there is no pong
