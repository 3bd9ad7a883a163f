from functools import partial

import trio

from trio_pyjo_ws import Frame, Transaction, open_websocket, serve


async def handler(ws: Transaction) -> None:
    # A callback's name is the name of its event.
    @ws.on
    def frame(ws: Transaction, frame: Frame) -> None:
        print(f"FIN: {frame.fin}")
        print(f"RSV1: {frame.rsv1}")
        print(f"RSV2: {frame.rsv2}")
        print(f"RSV3: {frame.rsv3}")
        print(f"Opcode: {frame.opcode}")
        print(f"Payload: {frame.payload!r}")

    @ws.on
    def text(ws: Transaction, chunk: bytes) -> None:
        print(f"Text: {chunk!r}")

    @ws.on
    def binary(ws: Transaction, chunk: bytes) -> None:
        print(f"Binary: {chunk!r}")

    @ws.on
    def message(ws: Transaction, msg: str | bytes) -> None:
        print(f"Message: {msg!r}")

    @ws.on
    def json(ws: Transaction, json: object) -> None:
        print(f"JSON: {json!r}")

    @ws.catch
    def not_json(ws: Transaction, error: Exception) -> None:
        print(f"Error: {error}")

    @ws.once  # for the next time only
    def drain(ws: Transaction) -> None:
        print("All data has been sent")

    @ws.on
    def finish(ws: Transaction, code: int, reason: str) -> None:
        print(f"WebSocket closed with status {code}")

    await ws.send("Welcome!")
    async for _ in ws:  # ends with the connection; every message goes to the callbacks
        pass


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1"))
        async with open_websocket(server.url) as ws:
            await ws.receive()
            await ws.send("Hello World!")
            await ws.send(json={"test": [1, 2, 3]})
            await ws.send(b"[1, 2, 3]")
        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
