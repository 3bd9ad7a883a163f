import argparse
import os
import signal
import sys
from functools import partial

import trio

from trio_pyjo_ws import Transaction, serve


async def tell(ws: Transaction) -> None:
    await ws.send(str(os.getpid()))


async def work(port: int) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve, tell, port, host="127.0.0.1", reuse_port=True))
            print(server.port, flush=True)
            async for _ in signals:
                await server.aclose()
                break


async def main(port: int, workers: int) -> None:
    command = [sys.executable, __file__, "--port", str(port)]
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            processes = [await nursery.start(trio.run_process, command) for _ in range(workers)]
            async for _ in signals:
                for process in processes:
                    process.terminate()
                break


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Several processes, one port.")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.workers:
        trio.run(main, arguments.port, arguments.workers)
    else:
        trio.run(work, arguments.port)
