import trio
from trio.testing import MockClock

from trio_pyjo_ws import Transaction
from trio_pyjo_ws.testing import serve_memory


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


async def test_echo(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    server = await nursery.start(serve_memory, echo)
    ws = await server.connect(nursery)
    await ws.send("Hello World!")
    assert await ws.receive() == "Hello World!"
    await trio.sleep(3600)  # takes no time
    await ws.send("Still here?")
    assert await ws.receive() == "Still here?"
