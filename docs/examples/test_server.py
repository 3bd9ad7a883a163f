from functools import partial

import pytest
import trio
from trio.testing import MockClock

from trio_pyjo_ws import HandshakeError, Response, Transaction, open_websocket
from trio_pyjo_ws.testing import serve_memory


async def greet(ws: Transaction) -> None:
    await ws.send(f"welcome to {ws.req.target}")
    async for message in ws:
        await ws.send(message)


def members_only(ws: Transaction) -> Response | None:
    return None if "Cookie" in ws.req.headers else Response(403)


async def test_a_handler(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    server = await nursery.start(serve_memory, greet)
    ws = await server.connect(nursery, "/chat")
    assert await ws.receive() == "welcome to /chat"
    await ws.send("Hello")
    assert await ws.receive() == "Hello"


async def test_a_request_that_is_refused(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    server = await nursery.start(partial(serve_memory, greet, on_request=members_only))
    with pytest.raises(HandshakeError) as caught:
        await server.connect(nursery)
    assert caught.value.response
    assert caught.value.response.status == 403


async def program() -> str | bytes:
    async with open_websocket("ws://chat.example/lobby", proxy=None) as ws:
        return await ws.receive()


async def test_a_program_that_connects_by_itself(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await nursery.start(serve_memory, greet)

    async def dial(*_: object, **__: object) -> trio.abc.Stream:
        stream: trio.abc.Stream = server.open_stream()
        return stream

    monkeypatch.setattr(trio, "open_tcp_stream", dial)
    assert await program() == "welcome to /lobby"
