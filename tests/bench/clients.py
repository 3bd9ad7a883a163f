"""The clients, one to a process: ``python -m bench.clients LIBRARY PORT``.

For each line `KIND:SIZExCOUNT SECONDS` that it reads, it opens a connection, measures for a slice of so many seconds,
and prints the CPU time that a message has cost this process, in microseconds. A message is one that goes out and comes
back. While the others are measured it waits for the next line, and does nothing else: its loop stands still. A library
is imported where it is used, so that a process holds one.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter, process_time_ns
from typing import Any

from .load import HOST, WARM_UP

Repeat = Callable[[bytes, int, float], Awaitable[int]]
"""Sends a payload so many times and receives as many, again and again for so many seconds; returns how often."""

Visit = Callable[[Repeat], Awaitable[None]]
"""Called with each new connection; measures on it."""

MAX_SIZE = 1 << 24


def repeat_with(send: Callable[[bytes], Awaitable[object]], receive: Callable[[], Awaitable[object]]) -> Repeat:
    async def repeat(payload: bytes, count: int, seconds: float) -> int:
        times, end = 0, perf_counter() + seconds
        while not times or perf_counter() < end:
            for _ in range(count):
                await send(payload)
            for _ in range(count):
                await receive()
            times += 1
        return times

    return repeat


def run_ours(url: str, visits: Iterator[Visit]) -> None:
    import trio

    from trio_pyjo_ws import open_websocket

    async def main() -> None:
        for visit in visits:
            async with open_websocket(url, compression=False, max_websocket_size=MAX_SIZE) as ws:
                await visit(repeat_with(ws.send, ws.receive))

    trio.run(main)


def run_picows(url: str, visits: Iterator[Visit]) -> None:
    import picows

    class Client(picows.WSListener):
        transport: Any
        payload: bytes
        count = left = times = 0
        end = 0.0
        done: asyncio.Future[int]

        async def repeat(self, payload: bytes, count: int, seconds: float) -> int:
            self.payload, self.count, self.times = payload, count, 0
            self.end = perf_counter() + seconds
            self.done = asyncio.get_running_loop().create_future()
            self.send()
            return await self.done

        def send(self) -> None:
            self.left = self.count
            for _ in range(self.count):
                self.transport.send(picows.WSMsgType.BINARY, self.payload)

        def on_ws_connected(self, transport: picows.WSTransport) -> None:
            self.transport = transport

        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            if frame.msg_type != picows.WSMsgType.BINARY:
                transport.disconnect()
                return
            frame.get_payload_as_bytes()
            self.left -= 1
            if not self.left:
                self.times += 1
                if perf_counter() < self.end:
                    self.send()
                else:
                    self.done.set_result(self.times)

        def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
            if not self.done.done():
                self.done.set_exception(ConnectionError("the server has closed"))

    async def main() -> None:
        for visit in visits:
            transport, client = await picows.ws_connect(Client, url, max_frame_size=MAX_SIZE)
            await visit(client.repeat)  # type: ignore[attr-defined, unused-ignore]
            transport.send_close(picows.WSCloseCode.OK)
            await transport.wait_disconnected()

    asyncio.run(main())


def run_aiohttp(url: str, visits: Iterator[Visit]) -> None:
    import aiohttp

    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            for visit in visits:
                async with session.ws_connect(url, compress=0, max_msg_size=MAX_SIZE) as ws:
                    await visit(repeat_with(ws.send_bytes, ws.receive_bytes))

    asyncio.run(main())


def run_websockets_asyncio(url: str, visits: Iterator[Visit]) -> None:
    from websockets.asyncio.client import connect

    async def main() -> None:
        for visit in visits:
            async with connect(url, compression=None, max_size=MAX_SIZE, proxy=None) as ws:
                await visit(repeat_with(ws.send, ws.recv))

    asyncio.run(main())


def run_websockets_trio(url: str, visits: Iterator[Visit]) -> None:
    import trio
    from websockets.trio.client import connect

    async def main() -> None:
        for visit in visits:
            async with connect(url, compression=None, max_size=MAX_SIZE, proxy=None) as ws:
                await visit(repeat_with(ws.send, ws.recv))

    trio.run(main)


def run_trio_websocket(url: str, visits: Iterator[Visit]) -> None:
    import trio
    from trio_websocket import open_websocket_url

    async def main() -> None:
        for visit in visits:
            async with open_websocket_url(url, max_message_size=MAX_SIZE) as ws:
                await visit(repeat_with(ws.send_message, ws.get_message))

    trio.run(main)


CLIENTS = {
    "ours": run_ours,
    "ours-pure": run_ours,  # the parent process has set the environment variable
    "before": run_ours,  # the parent process has chosen the interpreter
    "picows": run_picows,
    "aiohttp": run_aiohttp,
    "websockets-asyncio": run_websockets_asyncio,
    "websockets-trio": run_websockets_trio,
    "trio-websocket": run_trio_websocket,
}


def visitor(name: str, seconds: float, figures: list[float]) -> Visit:
    size, _, count = name.partition(":")[2].partition("x")
    payload, messages = os.urandom(int(size)), int(count or 1)

    async def visit(repeat: Repeat) -> None:
        for _ in range(WARM_UP):
            await repeat(payload, messages, 0)
        before = process_time_ns()
        times = await repeat(payload, messages, seconds)
        figures.append((process_time_ns() - before) / (times * messages) / 1000)

    return visit


def visits() -> Iterator[Visit]:
    for line in iter(sys.stdin.readline, ""):
        name, seconds = line.split()
        figures: list[float] = []
        yield visitor(name, float(seconds), figures)
        print(*figures, flush=True)  # the connection is closed


def main() -> None:
    library, port = sys.argv[1:]
    CLIENTS[library](f"ws://{HOST}:{port}/", visits())


if __name__ == "__main__":
    main()
