"""Connections that come, talk, stall, break and go for minutes; afterwards nothing may be left of them."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import os
import platform
import shlex
import sys
import time
import tracemalloc
from importlib import metadata
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import trio

import trio_pyjo_ws
from trio_pyjo_ws import open_websocket

from . import record, visits
from .world import OPTIONS, Crash, World

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .record import Quiet, Sample

OUTPUT = Path(__file__).resolve().parents[2] / "docs" / "soak"
PACKAGES = ["trio-pyjo-ws", "trio", "h11"]
VISITORS = 60
"""Visits that go on at a time."""
WARM_UP = 5.0
"""Seconds of visits before the baseline is taken: the first ones pay for what is kept for good."""
TRACED = 20.0
"""Seconds of visits under tracemalloc, which makes them slow, so that there are fewer at a time."""
CHURNERS = 20
STAYING = 2
"""Connections of each kind, TCP or TLS and compressed or not, that stay while visitors come and go."""

logger = logging.getLogger("trio_pyjo_ws")


class Soak:
    """One soak, phase after phase."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.seed = seed
        self.samples: list[Sample] = []
        self.quiet: list[Quiet] = []
        self.phases: list[tuple[str, float]] = []
        self._number = 0

    def _random(self) -> Random:
        self._number += 1
        return Random(f"{self.seed}/{self._number}")

    async def phase(self, name: str, run: Callable[[], Awaitable[object]]) -> None:
        """Have a phase, and take count when all is quiet behind it."""
        self.phases.append((name, self.samples[-1].seconds if self.samples else 0.0))
        progress(f"{name} ...")
        await run()
        quiet = await record.settle(self.world, name, self.quiet[0] if self.quiet else None)
        self.quiet.append(quiet)
        progress(
            f"{name}: {sum(self.world.visits.values()):,} visits so far, {quiet.resident / 2**20:.1f} MiB, "
            f"{quiet.descriptors} descriptors, {quiet.tasks} tasks, {len(self.world.failures)} failures"
        )

    async def visit(self, seconds: float, visitors: int = VISITORS) -> None:
        """Visitors, one after the other in each of so many tasks."""
        end = trio.current_time() + seconds
        names, weights = list(visits.VISITS), [weight for weight, _ in visits.VISITS.values()]

        async def visitor() -> None:
            while trio.current_time() < end:
                random = self._random()
                await visits.run(random.choices(names, weights)[0], self.world, random)

        async with trio.open_nursery() as nursery:
            for _ in range(visitors):
                nursery.start_soon(visitor)

    async def traffic(self, seconds: float) -> None:
        """Visitors, around connections that stay."""
        leaving = trio.Event()
        async with trio.open_nursery() as nursery:
            for kind in ("tcp", "tls"):
                for compressed in (False, True):
                    for _ in range(STAYING):
                        nursery.start_soon(visits.stay, self.world, self._random(), kind, compressed, leaving)
            await self.visit(seconds)
            leaving.set()

    async def churn(self, count: int) -> None:
        """Connections that open, echo once and close, as fast as they can."""
        left = count
        url = f"{self.world.servers['tcp'].url}echo"

        async def churner() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                self.world.visits["churn"] += 1
                try:
                    async with open_websocket(url, compression=False, **OPTIONS) as ws:
                        await ws.send("hello")
                        assert await ws.receive() == "hello"
                except Exception as exc:
                    self.world.fail("churn", exc)

        async with trio.open_nursery() as nursery:
            for _ in range(CHURNERS):
                nursery.start_soon(churner)

    async def traced(self, seconds: float) -> int:
        """Visits under tracemalloc; the bytes that are left of what they have allocated."""
        tracemalloc.start()
        try:
            before = 0

            async def warm() -> None:
                nonlocal before
                await self.visit(seconds / 2, VISITORS // 4)
                await record.settle(self.world, "", self.quiet[0])
                before = tracemalloc.get_traced_memory()[0]
                await self.visit(seconds / 2, VISITORS // 4)

            await self.phase("traced visits", warm)
            return tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Unexpected(logging.Handler):
    """What the library logs as an error, and no handler has raised on purpose, is a failure."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, log: logging.LogRecord) -> None:
        exc = log.exc_info[1] if log.exc_info else None
        if not isinstance(exc, Crash):
            self._world.failures.append(f"logged: {log.getMessage()}: {exc!r}")


async def soak(arguments: argparse.Namespace) -> dict[str, Any]:
    world = World(Random(arguments.seed))
    unexpected = Unexpected(world)
    logger.addHandler(unexpected)
    soak = Soak(world, arguments.seed)
    async with trio.open_nursery() as nursery, world.open():
        nursery.start_soon(record.sample, world, soak.samples)
        await soak.phase("warm-up", lambda: soak.visit(WARM_UP if arguments.minutes > 1 else 2.0))
        await soak.phase("visits", lambda: soak.traffic(arguments.minutes * 60))
        if arguments.churn:
            await soak.phase("churn", lambda: soak.churn(arguments.churn))
        traced = await soak.traced(TRACED)
        nursery.cancel_scope.cancel()
    logger.removeHandler(unexpected)
    return {
        "seed": arguments.seed,
        "visits": dict(world.visits),
        "staying": 4 * STAYING,
        "messages": world.messages,
        "bytes": world.bytes,
        "quiet": soak.quiet,
        "phases": soak.phases,
        "traced": traced,
        "wrong": record.verdict(soak.quiet, traced, world.failures),
        "samples": soak.samples,
    }


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s soak --", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="of visits (default: 2)")
    parser.add_argument(
        "--churn", type=int, default=100_000, help="connections that open, echo and close (default: 100000)"
    )
    parser.add_argument("--seed", type=int, default=1, help="what comes by chance comes from it (default: 1)")
    parser.add_argument("--quick", action="store_true", help="some seconds, to see that all works")
    parser.add_argument(
        "--output",
        type=Path,
        help="the folder of the results (default: docs/soak; with --quick, they are only printed)",
    )
    arguments = parser.parse_args()
    if arguments.minutes <= 0 or arguments.churn < 0:
        parser.error("--minutes is more than 0, --churn at least 0")
    if arguments.quick:
        arguments.minutes, arguments.churn = 0.1, 500
    elif arguments.output is None:
        arguments.output = OUTPUT
    return arguments


def main() -> None:
    arguments = options()
    started = time.time()
    results = {
        "date": dt.datetime.fromtimestamp(started, dt.timezone.utc).date().isoformat(),
        "command": shlex.join(["nox", "-s", "soak", *(["--", *sys.argv[1:]] if sys.argv[1:] else [])]),
        "machine": {
            "cpu": cpu_model(),
            "cores": len(os.sched_getaffinity(0)),
            "system": f"{platform.system()} {platform.release()}",
            "python": f"{platform.python_implementation()} {platform.python_version()}",
        },
        "versions": {package: metadata.version(package) for package in PACKAGES},
        "codec": trio_pyjo_ws.codec,
        **trio.run(soak, arguments),
    }
    print(record.markdown(results), end="")
    if arguments.output is not None:
        from . import plot  # noqa: PLC0415 - matplotlib is not in the memory that was measured

        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "results.json").write_text(json.dumps(results) + "\n", "utf-8")
        (arguments.output / "results.md").write_text(record.markdown(results), "utf-8")
        (arguments.output / "results.svg").write_text(plot.svg(results), "utf-8")
    if results["wrong"]:
        sys.exit(f"{len(results['wrong'])} things are wrong")


if __name__ == "__main__":
    main()
