import trio
from trio.testing import MockClock

from trio_pyjo_ws import Transaction, reconnecting
from trio_pyjo_ws.testing import MemoryServer, serve_memory


async def follow(news: trio.abc.SendChannel[str | bytes], server: MemoryServer) -> None:
    async def open_stream() -> trio.abc.Stream:
        if trio.current_time() < 600:
            raise ConnectionRefusedError("nobody listens")
        return server.open_stream()

    async with reconnecting("ws://news.example/", open_stream=open_stream, max_delay=60) as connections:
        async for ws in connections:
            async for message in ws:
                await news.send(message)


async def tell(ws: Transaction) -> None:
    await ws.send("news")
    await trio.sleep(120)


async def test_a_server_that_is_away_for_ten_minutes(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    server = await nursery.start(serve_memory, tell)
    sender, news = trio.open_memory_channel[str | bytes](0)
    nursery.start_soon(follow, sender, server)
    assert await news.receive() == "news"
    found = trio.current_time()
    assert 600 <= found <= 660  # within max_delay
    assert await news.receive() == "news"
    assert trio.current_time() <= found + 120 + 1  # after a connection that held, the next attempt is soon
