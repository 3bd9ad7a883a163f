import sys

import trio

from trio_pyjo_ws import open_websocket


async def main(url: str) -> None:
    async with open_websocket(url) as ws:
        await ws.send("Hello World!")  # str: a text message; bytes: a binary one
        print(await ws.receive())
        await ws.send(json={"test": [1, 2, 3]})
        print(await ws.receive())


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
