"""What a client has got, up to the end of its connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from trio_pyjo_ws import ConnectionClosed

if TYPE_CHECKING:
    from trio_pyjo_ws import Transaction

FOREVER = 100
"""Seconds after which a test has failed."""


async def receive(ws: Transaction, count: int) -> list[str | bytes]:
    """So many messages."""
    with trio.fail_after(FOREVER):
        return [await ws.receive() for _ in range(count)]


async def read_to_end(ws: Transaction) -> tuple[list[str | bytes], str]:
    """All messages, and how the connection ended."""
    messages = []
    with trio.fail_after(FOREVER):
        try:
            while True:
                messages.append(await ws.receive())
        except (ConnectionClosed, trio.EndOfChannel, trio.ClosedResourceError) as exc:
            return messages, str(exc)
