"""Pages of Quart-Trio and WebSockets of trio_pyjo_ws on one port: `anycorn --worker-class trio quart_app:app`."""

from typing import Any

from quart_trio import QuartTrio

from trio_pyjo_ws import Transaction, asgi, broadcast


async def chat(ws: Transaction) -> None:
    async for message in ws:
        await broadcast(live.connections, message)


async def page() -> str:
    return "This is the page.\n"


live = asgi({"/chat": chat})
pages = QuartTrio(__name__)
pages.add_url_rule("/", view_func=page)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await live(scope, receive, send)
    else:
        await pages(scope, receive, send)
