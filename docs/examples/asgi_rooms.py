"""Rooms for as long as the ASGI host runs: `anycorn --worker-class trio asgi_rooms:app`."""

from typing import Any

from trio_pyjo_ws import Rooms, Transaction, asgi, open_rooms

state: dict[str, Rooms] = {}


async def chat(ws: Transaction) -> None:
    async with state["rooms"].join(ws.req.path_parameters["room"], ws) as room:
        async for message in ws:
            await room.publish(message)


live = asgi({"/chat/{room}": chat})


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        async with open_rooms() as state["rooms"]:
            await live(scope, receive, send)
    else:
        await live(scope, receive, send)
