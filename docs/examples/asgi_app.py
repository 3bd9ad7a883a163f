"""Starlette's pages and WebSockets of trio_pyjo_ws on one port: `anycorn --worker-class trio asgi_app:app`."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from trio_pyjo_ws import Transaction, asgi, broadcast


async def chat(ws: Transaction) -> None:
    room = ws.req.path_parameters["room"]
    async for message in ws:
        await broadcast(live.connections, f"{room}: {message!s}")


async def page(_: Request) -> PlainTextResponse:
    return PlainTextResponse("This is the page.\n")


live = asgi({"/chat/{room}": chat}, max_websocket_size=65_536)
app = Starlette(routes=[Route("/", page), Mount("/live", app=live)])
