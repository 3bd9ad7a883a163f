"""Autobahn's wstest at one end, an echo of ours at the other, in either role."""

from __future__ import annotations

import json
import subprocess
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from trio_pyjo_ws import ConnectionClosed, Deflate, open_websocket, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from pathlib import Path

    from trio_pyjo_ws import Options, Server, Transaction

HOST = "127.0.0.1"
AGENT = "trio_pyjo_ws"
STARTING = 60.0
"""Seconds that wstest may take until it listens."""
TELLING = 60.0
"""Seconds from one line of progress to the next."""

OPTIONS: Options = {
    "compression": Deflate(threshold=0),  # so that the short messages of groups 12 and 13 are compressed too
    "max_websocket_size": 1 << 24,  # the largest of group 9
}


async def echo(ws: Transaction) -> None:
    with suppress(ConnectionClosed):  # How a case ends is for wstest to judge.
        async for message in ws:
            await ws.send(message)


@asynccontextmanager
async def wstest(path: Path, mode: str, folder: Path, spec: dict[str, Any]) -> AsyncIterator[trio.Process]:
    """wstest in a process of its own, which ends with the block; what it prints goes to ``folder``."""
    (folder / "spec.json").write_text(json.dumps({"outdir": str(folder), **spec}), "utf-8")
    # -E: it needs a package of this one's name, and PYTHONPATH must not lead to this one. -u: for the progress.
    command = [str(path.with_name("python")), "-E", "-u", str(path), "--mode", mode, "--webport", "0"]
    log = folder / "wstest.log"
    async with trio.open_nursery() as nursery:
        with log.open("wb") as output:
            run = partial(trio.run_process, stdout=output, stderr=subprocess.STDOUT)
            process: trio.Process = await nursery.start(run, [*command, "--spec", str(folder / "spec.json")])
        nursery.start_soon(tell_progress, log, mode)
        yield process
        nursery.cancel_scope.cancel()


async def tell_progress(log: Path, mode: str) -> None:
    while True:
        await trio.sleep(TELLING)
        print(f"{mode}: {(await trio.Path(log).read_bytes()).count(b'Running test case')} cases", flush=True)


async def test_server(path: Path, cases: Sequence[str], folder: Path) -> None:
    """Our server, and wstest as its client."""
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, echo, 0, host=HOST, **OPTIONS))
        spec = {"servers": [{"agent": AGENT, "url": server.url}], "cases": cases}
        async with wstest(path, "fuzzingclient", folder, spec) as process:
            await process.wait()
        nursery.cancel_scope.cancel()


async def test_client(path: Path, cases: Sequence[str], folder: Path) -> None:
    """wstest as server, and our client: a connection for each case."""
    listeners = await trio.open_tcp_listeners(0, host=HOST)
    url = f"ws://{HOST}:{listeners[0].socket.getsockname()[1]}"
    await listeners[0].aclose()
    async with wstest(path, "fuzzingserver", folder, {"url": url, "cases": cases}):
        count = int(await first_answer(f"{url}/getCaseCount"))
        for number in range(1, count + 1):
            async with open_websocket(f"{url}/runCase?case={number}&agent={AGENT}", **OPTIONS) as ws:
                await echo(ws)
        async with open_websocket(f"{url}/updateReports?agent={AGENT}") as ws:
            await echo(ws)


async def first_answer(url: str) -> str | bytes:
    """The answer of wstest, once it listens."""
    with trio.fail_after(STARTING):
        while True:
            with suppress(OSError):
                async with open_websocket(url) as ws:
                    return await ws.receive()
            await trio.sleep(0.05)


ROLES: dict[str, Callable[[Path, Sequence[str], Path], Awaitable[None]]] = {
    "client": test_client,
    "server": test_server,
}
