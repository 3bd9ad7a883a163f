"""``bench URL``: a load on a server that sends messages back, and how long that takes."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections import Counter, deque
from contextlib import AsyncExitStack, nullcontext
from itertools import accumulate
from os import urandom
from typing import TYPE_CHECKING, Any

import trio

from .. import Transaction, open_websocket
from ..handshake.messages import hide_secrets
from .arguments import count, seconds, url
from .certificates import add_trust_arguments, client_context
from .ending import Status, naming, watch_signals

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from .. import ClientOptions

__all__ = ["Latencies", "add_arguments", "run"]

DESCRIPTION = """\
Load-test a server of your own that sends every message back, such as `serve --echo`. Without --rate each
connection sends its next message when the last one is back. With it they are sent when they are due, whether the server
keeps up or not, and the latency counts from then.
"""
RESOLUTION = 1.01
"""Each bucket of latencies reaches that much further than the one before: they are exact to 1 %."""

PERCENTILES = (50.0, 75.0, 90.0, 99.0, 99.9)
ROWS = 12
PROGRESS_INTERVAL = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bench`` to ``parser``."""
    parser.description = DESCRIPTION
    parser.add_argument("url", type=url, metavar="URL", help="ws://HOST:PORT/PATH, wss://HOST/PATH, or HOST:PORT")
    parser.add_argument("-c", "--connections", type=count, default=10, metavar="N", help="at once (default 10)")
    parser.add_argument("-r", "--rate", type=count, metavar="N", help="messages a second, of all connections together")
    parser.add_argument("-s", "--size", type=count, default=32, metavar="BYTES", help="of a message (default 32)")
    parser.add_argument(
        "-d", "--duration", type=seconds, default=10.0, metavar="SECONDS", help="of the load (default 10)"
    )
    parser.add_argument("--compress", action="store_true", help="offer permessage-deflate")
    add_trust_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one object of JSON; times are in seconds")


class Latencies:
    """Seconds, counted in buckets that grow by 1 %, so that a long run takes no more memory than a short one."""

    def __init__(self) -> None:
        self.total = 0
        self.highest = 0.0
        self._counts: Counter[int] = Counter()

    def add(self, latency: float) -> None:
        """Count one."""
        self.total += 1
        self.highest = max(self.highest, latency)
        self._counts[math.ceil(math.log(max(latency, 1e-9), RESOLUTION))] += 1

    def percentile(self, percent: float) -> float:
        """What ``percent`` of all are not above, in seconds; there is at least one."""
        rank = math.ceil(self.total * percent / 100)
        buckets = sorted(self._counts)
        reached = accumulate(self._counts[bucket] for bucket in buckets)
        found = next(bucket for bucket, so_many in zip(buckets, reached, strict=True) if so_many >= rank)
        return min(RESOLUTION**found, self.highest)

    def rows(self, number: int) -> list[tuple[float, int]]:
        """The histogram in at most ``number`` rows: up to how many seconds, and how many latencies."""
        first, last = min(self._counts), max(self._counts)
        width = (last - first) // number + 1
        rows = [[first + (row + 1) * width - 1, 0] for row in range((last - first) // width + 1)]
        for bucket, times in self._counts.items():
            rows[(bucket - first) // width][1] += times
        return [(RESOLUTION**bucket, times) for bucket, times in rows]


class _Load:
    """The connections, and what has come of their messages."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._payload = urandom(arguments.size)
        self._interval = arguments.connections / arguments.rate if arguments.rate else None
        self.latencies = Latencies()
        self.sent = 0
        self.elapsed = 0.0
        self.scope = trio.CancelScope()

    async def run(self, connections: list[Transaction], duration: float, show: Callable[[float], object]) -> None:
        """Put the load on, for ``duration`` seconds or until a signal comes."""
        start = trio.current_time()
        with trio.move_on_after(duration) as self.scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(watch_signals, lambda _: self.scope.cancel())
                for number, ws in enumerate(connections):
                    if self._interval is None:
                        nursery.start_soon(self._ask, ws)
                    else:
                        due: deque[float] = deque()
                        first = start + self._interval * number / len(connections)
                        nursery.start_soon(self._send, ws, due, first, self._interval)
                        nursery.start_soon(self._receive, ws, due)
                while True:
                    show(trio.current_time() - start)
                    await trio.sleep(PROGRESS_INTERVAL)
        self.elapsed = trio.current_time() - start

    async def _ask(self, ws: Transaction) -> None:
        while True:
            asked = trio.current_time()
            self.sent += 1
            await ws.send(self._payload)
            self._take(await ws.receive(), asked)

    async def _send(self, ws: Transaction, due: deque[float], moment: float, interval: float) -> None:
        while True:
            await trio.sleep_until(moment)
            due.append(moment)
            self.sent += 1
            await ws.send(self._payload)
            moment += interval

    async def _receive(self, ws: Transaction, due: deque[float]) -> None:
        while True:
            message = await ws.receive()
            self._take(message, due.popleft() if due else math.nan)

    def _take(self, message: str | bytes, asked: float) -> None:
        if message != self._payload or math.isnan(asked):
            raise RuntimeError("the server does not send back what it gets, and nothing else")
        self.latencies.add(trio.current_time() - asked)


async def run(arguments: argparse.Namespace) -> int:
    """Do it, and return the exit status."""
    load = _Load(arguments)
    options: ClientOptions = {
        "compression": arguments.compress,
        "max_websocket_size": max(arguments.size, 2**18),
        "ssl_context": client_context(arguments),
    }
    async with AsyncExitStack() as stack:
        with naming(hide_secrets(arguments.url)):
            connections = [
                await stack.enter_async_context(open_websocket(arguments.url, **options))
                for _ in range(arguments.connections)
            ]
        with _progress(arguments.duration) as show:
            await load.run(connections, arguments.duration, show)
    if not load.latencies.total:
        print("no message has come back", file=sys.stderr)
        return Status.FAILED
    if arguments.json:
        print(json.dumps(_report(load, arguments)))
    else:
        _print(load, arguments)
    return Status.DONE


def _progress(duration: float) -> AbstractContextManager[Callable[[float], object]]:
    """A bar on standard error, if that is a terminal and rich is installed."""
    if sys.stderr.isatty():
        try:
            from ..adapters.progress import open_progress  # noqa: PLC0415 - it needs the extra `cli`
        except ImportError:
            pass
        else:
            return open_progress(duration)
    return nullcontext(lambda _: None)


def _report(load: _Load, arguments: argparse.Namespace) -> dict[str, Any]:
    latencies = load.latencies
    return {
        "connections": arguments.connections,
        "rate": arguments.rate,
        "size": arguments.size,
        "duration": round(load.elapsed, 3),
        "sent": load.sent,
        "answered": latencies.total,
        "answered_per_second": round(latencies.total / load.elapsed, 1),
        "latency": {
            **{f"p{percent:g}": round(latencies.percentile(percent), 9) for percent in PERCENTILES},
            "max": round(latencies.highest, 9),
        },
    }


def _print(load: _Load, arguments: argparse.Namespace) -> None:
    latencies = load.latencies
    print(
        f"{latencies.total:,} messages of {arguments.size:,} bytes over {arguments.connections:,} connections "
        f"in {load.elapsed:.1f} s: {latencies.total / load.elapsed:,.0f} a second"
    )
    if arguments.rate:
        print(f"{load.sent - latencies.total:,} that were due were not back in the end")
    shown = [f"p{percent:g} {_milliseconds(latencies.percentile(percent))}" for percent in PERCENTILES]
    print("latency: " + ", ".join([*shown, f"max {_milliseconds(latencies.highest)}"]))
    rows = latencies.rows(ROWS)
    highest = max(times for _, times in rows)
    # A column stays free: some terminals break a line that fills them.
    room = shutil.get_terminal_size().columns - len(f"  to {'':>10}  {highest:,} ")
    for upto, times in rows:
        bar = "█" * round(max(room, 1) * times / highest) or ("▏" if times else "")
        print(f"  to {_milliseconds(upto):>10} {bar} {times:,}")


def _milliseconds(latency: float) -> str:
    return f"{latency * 1000:.3g} ms" if latency < 1 else f"{latency * 1000:,.0f} ms"
