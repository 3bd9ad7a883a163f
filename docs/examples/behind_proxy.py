import tempfile
from functools import partial
from pathlib import Path

import trio

from trio_pyjo_ws import Transaction, open_unix_listener, open_websocket, serve_listeners


async def who(ws: Transaction) -> None:
    await ws.send(f"you are {ws.remote_address}")


async def main(path: Path) -> None:
    async with trio.open_nursery() as nursery:
        listeners = [open_unix_listener(path, mode=0o660)]
        start = partial(serve_listeners, who, listeners, trusted_proxies=["unix:", "10.0.0.0/8"])
        server = await nursery.start(start)

        # What a proxy does for a client that tells lies about itself:
        stream = await trio.open_unix_socket(path)
        headers = {"X-Forwarded-For": "127.0.0.1, 203.0.113.7, 10.1.2.3"}
        async with open_websocket("ws://localhost/", stream=stream, additional_headers=headers) as ws:
            print(await ws.receive())
        await server.aclose()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        trio.run(main, Path(folder) / "socket")
