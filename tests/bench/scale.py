"""Whether the cost stays flat: `python -m bench.scale`, in the folder tests, prints the tables of the performance page.

Our echo server only. What one message costs beside thousands of open connections; what 64 KiB cost in ever larger
messages; what a fragment costs in messages of ever more fragments; and 10,000 idle connections, each of which answers a
ping. The rounds take turns at the sizes, and the median stands.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from . import load
from .measures import WARM_CONNECTIONS
from .processes import command, free_port, server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CROWDS = [1, 100, 1000, 5000]
SIZES = [1 << 16, 1 << 20, 1 << 22, 1 << 24, 1 << 26]
FRAGMENTS = [256, 4096, 65_536]
IDLE = 10_000
PING = load.masked_frame(b"there?", opcode=9)
PONG = b"\x8a\x06there?"


def crowd(port: int, pid: int, seconds: float, count: int) -> tuple[float, float]:
    """CPU time of a message of 256 bytes alone, and of one of 64 of 32 bytes, while ``count`` connections are open."""
    with load.many(port, count) as streams:
        load.settle(pid)
        alone = load.masked_frame(os.urandom(256))
        together = load.masked_frame(os.urandom(32)) * 64
        return (
            load.slice_of(partial(load.exchange, streams[0], alone, load.unmasked_size(256)), 1, pid, seconds),
            load.slice_of(partial(load.exchange, streams[0], together, 64 * load.unmasked_size(32)), 64, pid, seconds),
        )


def large(port: int, pid: int, seconds: float, size: int) -> float:
    """CPU time of 64 KiB in a message of ``size`` bytes."""
    with load.open_websocket(port) as stream:
        once = partial(load.exchange, stream, load.masked_frame(os.urandom(size)), load.unmasked_size(size))
        return load.slice_of(once, size >> 16, pid, seconds)


def fragments(port: int, pid: int, seconds: float, count: int) -> float:
    """CPU time of a fragment in a message of ``count`` fragments of one byte."""
    with load.open_websocket(port) as stream:
        blob = load.message_in_fragments(bytes(count), count)
        once = partial(load.exchange, stream, blob, load.unmasked_size(count))
        return load.slice_of(once, count, pid, seconds)


def idle(port: int, pid: int, count: int) -> tuple[float, float]:
    """KiB of each of ``count`` idle connections, and the CPU time of a ping; each of them has answered one."""
    with load.many(port, WARM_CONNECTIONS):
        load.settle(pid)
        before = load.resident_kib(pid)
        with load.many(port, count) as streams:
            load.settle(pid)
            memory = (load.resident_kib(pid) - before) / count
            spent = load.cpu_ns(pid)
            for stream in streams:
                stream.sendall(PING)
            for stream in streams:
                if stream.recv(len(PONG)) != PONG:
                    raise ConnectionError("a ping was not answered")
            return memory, (load.cpu_ns(pid) - spent) / len(streams) / 1000


def medians(measure: Callable[[int], float], among: Sequence[int], rounds: int) -> list[float]:
    found: dict[int, list[float]] = {amount: [] for amount in among}
    for _ in range(rounds):
        for amount in among:
            found[amount].append(measure(amount))
    return [median(values) for values in found.values()]


def show(title: str, among: Sequence[str], rows: dict[str, list[float]]) -> None:
    print(f"| {title} | {' | '.join(among)} |")
    print("|---" + "|---:" * len(among) + "|")
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(f'{value:.3g}' for value in values)} |")
    print(flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description="Whether the cost stays flat.")
    parser.add_argument("--rounds", type=int, default=15, help="how often each is measured; 15")
    parser.add_argument("--slice", type=float, default=0.1, help="seconds, of each figure of a round; 0.1")
    parser.add_argument("--quick", action="store_true", help="one short round of the small ones, to see that all works")
    options = parser.parse_args(arguments)
    rounds, seconds = (1, 0.05) if options.quick else (options.rounds, options.slice)
    part = 2 if options.quick else None
    crowds, sizes, counts = CROWDS[:part], SIZES[:part], FRAGMENTS[:part]
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    port = free_port()
    with server(command("ours", "servers", "echo", "ours", str(port)), port) as pid:
        memory, ping = idle(port, pid, 100 if options.quick else IDLE)  # first: in a process that has served nothing
        show(
            "Idle connections", [f"{100 if options.quick else IDLE:,}"], {"KiB of each": [memory], "µs a ping": [ping]}
        )
        pairs = {count: [crowd(port, pid, seconds, count) for _ in range(rounds)] for count in crowds}
        rows = {
            name: [median(found[index] for found in pairs[count]) for count in crowds]
            for index, name in enumerate(["256 B, one in flight (µs)", "32 B, 64 in flight (µs)"])
        }
        show("Connections open", [f"{count:,}" for count in crowds], rows)
        sized = medians(partial(large, port, pid, seconds), sizes, rounds)
        show("Size of a message", [size_of(size) for size in sizes], {"µs for 64 KiB": sized})
        counted = medians(partial(fragments, port, pid, seconds), counts, rounds)
        show("Fragments of a message", [f"{count:,}" for count in counts], {"µs a fragment": counted})


def size_of(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


if __name__ == "__main__":
    main(sys.argv[1:])
