from functools import partial

import trio

from trio_pyjo_ws import Transaction, open_websocket, serve


async def feed(ws: Transaction) -> None:
    for number in range(20_000):
        await ws.send(f"message {number} {'.' * 1000}")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, feed, 0, host="127.0.0.1"))
        async with open_websocket(server.url, max_queue=100) as ws:
            await trio.sleep(0.5)  # nobody receives
            print("waiting to be received:", ws.statistics().messages_waiting)
            (other,) = server.connections
            print("the server has stopped:", other.statistics().tasks_waiting_send == 1)

            print("received:", len([message async for message in ws]))
        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
