import trio
from trio.testing import MockClock

from trio_pyjo_ws import Transaction
from trio_pyjo_ws.testing import open_memory_pair


async def greet(ws: Transaction) -> None:
    await trio.sleep(3600)
    await ws.send("Sorry, I was away.")


async def test_an_hour_of_silence(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    client, server = open_memory_pair(nursery)
    nursery.start_soon(greet, server)
    assert await client.receive() == "Sorry, I was away."  # at once: only the mock clock waited
    assert trio.current_time() >= 3600
