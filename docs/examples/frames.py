from functools import partial

import trio

from trio_pyjo_ws import Transaction, open_websocket, serve
from trio_pyjo_ws.wire.frames import build_frame, parse_frame


async def handler(ws: Transaction) -> None:
    # Binary frame with FIN bit and payload
    print(ws.build_frame(1, 0, 0, 0, 2, b"Hello World!"))

    # Text frame with payload but without FIN bit
    print(ws.build_frame(0, 0, 0, 0, 1, b"Hello "))

    # Continuation frame with FIN bit and payload
    print(ws.build_frame(1, 0, 0, 0, 0, b"World!"))

    # Close frame with FIN bit and without payload
    print(ws.build_frame(1, 0, 0, 0, 8, b""))

    # Ping frame with FIN bit and payload
    print(ws.build_frame(1, 0, 0, 0, 9, b"Test 123"))

    # Pong frame with FIN bit and payload
    print(ws.build_frame(1, 0, 0, 0, 10, b"Test 123"))

    # Whole messages
    print(ws.build_message(binary=b"Hello World!"))
    print(ws.build_message(text="Hello World!"))
    print(ws.build_message(json={"test": [1, 2, 3]}))
    await ws.send("Your turn.")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1"))
        async with open_websocket(server.url) as ws:
            print(await ws.receive())
            # A client masks its frames, with a fresh key for each.
            buffer = bytearray(ws.build_frame(1, 0, 0, 0, 2, b"Hello World!"))
            print("masked", ws.masked, b"Hello World!" in buffer)

            # Parse single frame and remove it from buffer
            frame = ws.parse_frame(buffer)
            assert frame is not None
            print(f"FIN: {frame.fin}")
            print(f"RSV1: {frame.rsv1}")
            print(f"RSV2: {frame.rsv2}")
            print(f"RSV3: {frame.rsv3}")
            print(f"Opcode: {frame.opcode}")
            print(f"Payload: {frame.payload!r}")
            print(f"Left: {bytes(buffer)!r}")
        await server.aclose()

    # The same without a connection; None while the frame is incomplete.
    buffer = bytearray(build_frame(1, 0, 0, 0, 1, b"Hello", masked=True))
    print(parse_frame(buffer[:-1]), parse_frame(buffer))


if __name__ == "__main__":
    trio.run(main)
