from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from trio_pyjo_ws import Transaction, open_websocket, serve


async def show(what: str, call: Callable[[], Awaitable[object]]) -> None:
    try:
        await call()
    except Exception as exc:
        print(f"{what}\n    {type(exc).__name__}: {exc}")


async def receive_twice(ws: Transaction) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ws.receive)
        await wait_all_tasks_blocked()
        await show("two tasks in receive()", ws.receive)
        nursery.cancel_scope.cancel()


async def receive_after_closing(ws: Transaction) -> None:
    await ws.aclose()
    await ws.receive()


async def receive_after_the_peer_closed(ws: Transaction) -> None:
    await ws.send("close, please")
    await ws.receive()


async def send_after_the_peer_closed(ws: Transaction) -> None:
    await ws.send("close, please")
    async for _ in ws.open_channel("finish"):
        await ws.send("too late")


async def open_with(url: str, **options: Any) -> None:
    async with open_websocket(url, **options):
        pass


async def handler(ws: Transaction) -> None:
    async for _ in ws:
        await ws.finish(4000, "as you wish")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1"))
        url = server.url
        mistakes: dict[str, Callable[[Any], Awaitable[object]]] = {
            "await ws.send(42)": lambda ws: ws.send(42),
            "await ws.send(json={1, 2})": lambda ws: ws.send(json={1, 2}),
            "await ws.finish(1006)": lambda ws: ws.finish(1006),
            "await ws.finish(reason='enough')": lambda ws: ws.finish(reason="enough"),
            "receive() when this side has closed": receive_after_closing,
            "receive() when the peer has closed with 4000": receive_after_the_peer_closed,
            "send() when the peer has closed": send_after_the_peer_closed,
        }
        for what, call in mistakes.items():
            async with open_websocket(url) as ws:
                await show(what, partial(call, ws))
        async with open_websocket(url) as ws:
            await receive_twice(ws)
        await show("open_websocket('http://...')", partial(open_with, "http://127.0.0.1/"))
        await show("open_websocket(url, max_queue=0)", partial(open_with, url, max_queue=0))
        await show("nobody listens there", partial(open_with, "ws://127.0.0.1:1/"))
        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
