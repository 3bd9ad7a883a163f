import argparse
import signal
from functools import partial

import trio

from trio_pyjo_ws import Response, Transaction, inherited_listeners, serve_listeners


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


async def who(ws: Transaction) -> None:
    await ws.send(f"you are {ws.remote_address}, by way of {ws.original_remote_address}")


def on_request(ws: Transaction) -> Response | None:
    return Response(200, body="fine\n") if ws.req.path == "/health" else None


async def main(port: int, ping_interval: float) -> None:
    # Before it listens: a SIGTERM that nobody waits for would end the program at once.
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            start = partial(
                serve_listeners,
                {"/": echo, "/who": who},
                inherited_listeners() or await trio.open_tcp_listeners(port, host="127.0.0.1"),
                on_request=on_request,
                trusted_proxies=["127.0.0.1", "::1"],
                ping_interval=ping_interval,  # less than the proxy's time-out
                max_websocket_size=16 * 2**20,
            )
            server = await nursery.start(start)
            print(f"listening on {server.url}", flush=True)
            async for _ in signals:
                await server.aclose(1001, "the server is shutting down", grace=20)
                break


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An echo behind a proxy, by socket activation or on a port.")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--ping-interval", type=float, default=20)
    arguments = parser.parse_args()
    trio.run(main, arguments.port, arguments.ping_interval)
