"""A server of a chat, as a process of its own: `python worker.py URL LEASE`. It prints its port."""

from __future__ import annotations

import sys
from functools import partial

import trio

from trio_pyjo_ws import Transaction, open_rooms, serve


async def main(url: str, lease: float) -> None:
    async with trio.open_nursery() as nursery, open_rooms(url, history=1000, lease=lease) as rooms:

        async def chat(ws: Transaction) -> None:
            assert ws.req is not None
            who = ws.req.query_parameters.get("who")
            async with rooms.join("chat", ws, who=who) as room:
                await ws.send("joined")
                async for message in ws:
                    await room.publish(message)

        server = await nursery.start(partial(serve, chat, 0, host="127.0.0.1"))
        print(server.port, flush=True)  # noqa: T201 - whoever starts this reads it
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], float(sys.argv[2]))
