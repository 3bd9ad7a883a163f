import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from trio_pyjo_ws import connect
from trio_pyjo_ws.testing import open_memory_pair, open_scripted_pair


async def test_a_server_that_does_not_answer(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    stream, _peer = memory_stream_pair()
    with pytest.raises(trio.TooSlowError):
        await connect(nursery, "ws://memory.test/", stream=stream, open_timeout=10)
    assert trio.current_time() == 10


async def test_a_peer_that_does_not_close(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    client, _silent = open_scripted_pair(nursery, "client", close_timeout=10)
    close = await client.finish(1000)
    assert close.code == 1006  # no Close came
    assert trio.current_time() == 10


async def test_a_timeout_of_your_own(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    client, server = open_memory_pair(nursery)
    with trio.move_on_after(60) as minute:
        await client.receive()
    assert minute.cancelled_caught
    await server.send("late")  # cancelling receive() has lost nothing
    assert await client.receive() == "late"
