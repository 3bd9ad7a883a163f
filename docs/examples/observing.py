import logging
import sys
from functools import partial

import trio

from trio_pyjo_ws import Server, Transaction, open_websocket, serve


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


async def watch(server: Server) -> None:
    """What a task beside the server would hand to a monitoring system every few seconds."""
    figures = server.statistics()
    print(f"{figures.connections_open} open of {figures.connections_accepted}")
    print(f"{figures.messages_received} received, {figures.messages_sent} sent, {figures.messages_waiting} waiting")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1", compression=True))
        async with open_websocket(server.url, compression=True, ping_interval=5) as ws:
            await ws.send("Hello World! " * 100)
            await ws.receive()
            latency = await ws.ping(b"how long?")
            figures = ws.statistics()
            print(latency == figures.latency, figures.latencies == (latency,), 0 < latency < 1)
            before, after = figures.compression_sent
            print(before, after < before / 10)
            await ws.pong()  # a sign of life that wants no answer
            await watch(server)
        await server.aclose()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)
    trio.run(main)
