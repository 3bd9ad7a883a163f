"""The handlers of trio_pyjo_ws that are measured: each way of taking messages, and a room to broadcast to.

Nothing of the package is imported before a handler runs, so that a process can prepare what the package shall find.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_pyjo_ws import Transaction

room: set[Transaction] = set()


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


async def echo_by_channel(ws: Transaction) -> None:
    async with ws.open_channel("message") as messages:
        async for message in messages:
            await ws.send(message)


async def echo_by_callback(ws: Transaction) -> None:
    @ws.on
    def message(ws: Transaction, message: str | bytes) -> None:
        ws.send_nowait(message)

    async for _ in ws:  # ends with the connection
        pass


async def chat(ws: Transaction) -> None:
    from trio_pyjo_ws import broadcast

    room.add(ws)
    try:
        async for message in ws:
            await broadcast(room, message)
    finally:
        room.discard(ws)
