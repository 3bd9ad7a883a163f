import pytest
import trio
from trio.testing import MockClock

from trio_pyjo_ws import Transaction, reconnecting
from trio_pyjo_ws.testing import serve_memory


async def follow(news: trio.abc.SendChannel[str | bytes]) -> None:
    async for ws in reconnecting("ws://news.example/", proxy=None, max_delay=60):
        async for message in ws:
            await news.send(message)


async def tell(ws: Transaction) -> None:
    await ws.send("news")
    await trio.sleep(120)


async def test_a_server_that_is_away_for_ten_minutes(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dial(*_: object, **__: object) -> trio.abc.Stream:
        if trio.current_time() < 600:
            raise ConnectionRefusedError("nobody listens")
        stream: trio.abc.Stream = server.open_stream()
        return stream

    server = await nursery.start(serve_memory, tell)
    monkeypatch.setattr(trio, "open_tcp_stream", dial)
    sender, news = trio.open_memory_channel[str | bytes](0)
    nursery.start_soon(follow, sender)
    assert await news.receive() == "news"
    found = trio.current_time()
    assert 600 <= found <= 660  # within max_delay
    assert await news.receive() == "news"
    assert trio.current_time() <= found + 120 + 1  # after a connection that held, the next attempt is soon
