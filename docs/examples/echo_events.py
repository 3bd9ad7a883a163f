import argparse
import signal
from functools import partial

import trio

from trio_pyjo_ws import Transaction, serve


async def echo(ws: Transaction) -> None:
    @ws.on
    def message(ws: Transaction, message: str | bytes) -> None:
        ws.send_nowait(message)

    async for _ in ws:  # ends with the connection; every message goes to the callback
        pass


async def main(port: int, compress: bool) -> None:
    start = partial(serve, echo, port, host="127.0.0.1", compression=compress, max_websocket_size=16 * 2**20)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(start)  # returns once the server listens
            print(f"listening on {server.url}", flush=True)
            async for _ in signals:
                await server.aclose(1001, "the server is shutting down", grace=10)
                break


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Send every message back.")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--compress", action="store_true")
    arguments = parser.parse_args()
    trio.run(main, arguments.port, arguments.compress)
