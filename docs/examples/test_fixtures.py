import trio
from trio.testing import MockClock

from trio_pyjo_ws import Transaction
from trio_pyjo_ws.testing import ScriptedWebSocketFixture, WebSocketPairFixture, WebSocketServerFixture


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


async def test_a_server(
    websocket_server: WebSocketServerFixture, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = await websocket_server(echo, compression=True)
    ws = await server.connect(nursery, "/path", compression=True)
    await ws.send("Hello World!")
    assert await ws.receive() == "Hello World!"


async def test_a_pair(websocket_pair: WebSocketPairFixture, autojump_clock: MockClock) -> None:
    client, server = websocket_pair(subprotocols=["chat"])
    await client.send("Hello World!")
    assert await server.receive() == "Hello World!"


async def test_a_script(scripted_websocket: ScriptedWebSocketFixture, autojump_clock: MockClock) -> None:
    ws, peer = scripted_websocket("server")
    await peer.reply("Hello World!")
    assert await ws.receive() == "Hello World!"
