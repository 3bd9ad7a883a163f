import argparse
import os
import signal
import sys
from functools import partial

import trio

from trio_pyjo_ws import Transaction, serve

FIRST_DELAY, MAX_DELAY = 0.1, 10.0  # seconds before a worker is started again
HEALTHY = 30.0  # seconds after which a worker that ends has been well
GRACE = 20.0  # seconds that a worker has to end by itself


async def tell(ws: Transaction) -> None:
    await ws.send(str(os.getpid()))


async def work(port: int) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve, tell, port, host="127.0.0.1", reuse_port=True))
            print(server.port, flush=True)
            async for _ in signals:
                await server.aclose()
                break


async def stop(process: trio.Process) -> None:
    process.terminate()
    await trio.sleep(GRACE)
    process.kill()


async def keep_working(command: list[str]) -> None:
    delay = FIRST_DELAY
    while True:
        started = trio.current_time()
        worker = await trio.run_process(command, check=False, deliver_cancel=stop)
        if trio.current_time() - started > HEALTHY:
            delay = FIRST_DELAY
        print(f"a worker ended with {worker.returncode}, another starts in {delay:g} s", file=sys.stderr, flush=True)
        await trio.sleep(delay)
        delay = min(2 * delay, MAX_DELAY)


async def main(port: int, workers: int) -> None:
    command = [sys.executable, __file__, "--port", str(port)]
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            for _ in range(workers):
                nursery.start_soon(keep_working, command)
            async for _ in signals:
                nursery.cancel_scope.cancel()  # which stops each worker, and waits for it
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
