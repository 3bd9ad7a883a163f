from functools import partial

import trio

from trio_pyjo_ws import ConnectionClosed, Transaction, open_websocket, serve

report, reports = trio.open_memory_channel[str](1)


async def handler(ws: Transaction) -> None:
    ws.max_websocket_size = 1024
    try:
        async for _ in ws:
            pass
    except ConnectionClosed as exc:
        await report.send(f"server: error, {exc.close}")
    else:
        await report.send(f"server: end, {ws.closed}")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1"))

        async with open_websocket(server.url) as ws:
            print("client:", await ws.finish())
            print(await reports.receive())

        async with open_websocket(server.url) as ws:
            print("client:", await ws.finish(1000))
            print(await reports.receive())

        async with open_websocket(server.url) as ws:
            print("client:", await ws.finish(1003, "Cannot accept data!"))
            print(await reports.receive())

        async with open_websocket(server.url) as ws:
            await ws.send("a" * 1025)  # one more than the server accepts
            try:
                await ws.receive()
            except ConnectionClosed as exc:
                print("client: error,", exc.close)
            print(await reports.receive())

        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
