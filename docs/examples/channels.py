from functools import partial

import trio

from trio_pyjo_ws import Transaction, open_websocket, serve


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


async def talk(ws: Transaction) -> None:
    # A message goes to each open channel that matches it.
    async with ws.open_channel("text") as texts, ws.open_channel("message") as messages:
        await ws.send("Grüße")
        print("text", await texts.receive())
        print("message", await messages.receive())

    async with ws.open_channel("binary") as chunks:
        await ws.send(b"\x00\x01")
        print("binary", await chunks.receive())

    async with ws.open_channel("json", max_buffer_size=16) as objects:
        await ws.send(json={"test": [1, 2, 3]})
        await ws.send("no JSON")
        print("json", await objects.receive())
        try:
            await objects.receive()
        except ValueError as error:
            print("json", error)

    async with ws.open_channel("frame") as frames:
        await ws.send(frame=[1, 0, 0, 0, 9, b"Test 123"])
        print("frame", await frames.receive())

    async with ws.open_channel("drain") as drained:
        await ws.send("Hello World!")
        print("drain", await drained.receive() is ws)

    # Where no channel is open for it, a message is kept for receive().
    print("receive", await ws.receive())

    finished = ws.open_channel("finish")
    await ws.finish(1000)
    print("finish", await finished.receive())


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1"))
        async with open_websocket(server.url) as ws:
            await talk(ws)
        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
