import httpx
from httpx_ws import AsyncWebSocketSession, aconnect_ws
from httpx_ws.transport import ASGIWebSocketTransport

from trio_pyjo_ws import Transaction, asgi


async def shout(ws: Transaction) -> None:
    async for message in ws:
        assert isinstance(message, str)
        await ws.send(message.upper())


async def test_shout() -> None:
    transport = ASGIWebSocketTransport(asgi({"/shout": shout}))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        ws: AsyncWebSocketSession
        async with aconnect_ws("/shout", client) as ws:
            await ws.send_text("hello")
            assert await ws.receive_text() == "HELLO"
        assert (await client.get("/nowhere")).status_code == 404
