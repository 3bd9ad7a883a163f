from functools import partial

import trio

from trio_pyjo_ws import Transaction, open_websocket, serve

FRAME = 32 * 1024  # bytes: what Amazon API Gateway takes in one frame


async def send_text(ws: Transaction, text: str) -> None:
    data = text.encode()
    await ws.send(text=[data[start : start + FRAME] for start in range(0, len(data), FRAME)])


async def show_frames(ws: Transaction) -> None:
    async with ws.open_channel("frame") as frames:
        async for frame in frames:
            print(int(frame.opcode), len(frame.payload), "the last" if frame.fin else "and more")
            if frame.fin:
                break
    print(len(await ws.receive()), "characters")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, show_frames, 0, host="127.0.0.1"))
        async with open_websocket(server.url) as ws:
            await send_text(ws, "ü" * 40_000)
            await ws.drain()
            async for _ in ws:
                pass
        await server.aclose()


if __name__ == "__main__":
    trio.run(main)
