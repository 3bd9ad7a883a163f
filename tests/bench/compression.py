"""What permessage-deflate costs: `python -m bench.compression`, in the folder tests, prints the tables of its guide.

One thread, no network: the codec of a connection is given messages. Where zlib-ng is installed, both zlibs take turns,
message by message size, and the lowest of the rounds stands for each; so a slower minute of the machine meets both.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tracemalloc
import zlib
from contextlib import suppress
from importlib import import_module
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from trio_pyjo_ws.wire import deflate
from trio_pyjo_ws.wire.deflate import Deflate, PerMessageDeflate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MODULES: dict[str, Any] = {"zlib": zlib}
with suppress(ImportError):
    MODULES["zlib-ng"] = import_module("zlib_ng.zlib_ng")

SIZES = [32, 64, 128, 256, 1024, 16_384, 262_144]
ALONE = {"client_no_context_takeover": True, "server_no_context_takeover": True}
MEMORY: list[dict[str, Any]] = [
    {},
    {"server_max_window_bits": 12, "client_max_window_bits": 12, "memory_level": 5},
    {"server_max_window_bits": 9, "client_max_window_bits": 9, "memory_level": 1},
    ALONE,
]


def messages(size: int, count: int) -> list[bytes]:
    """JSON of a kind that applications send: the same names, other values, and some words."""
    words = islice(cycle((__doc__ or "").split()), 7 * size + count, None, 3)
    found = []
    for number in range(count):
        objects: list[dict[str, Any]] = []
        while len(text := json.dumps(objects, separators=(",", ":"))) < size:
            id_ = (number * 7919 + len(objects) * 104_729) % 1_000_003
            text = " ".join(next(words) for _ in range(6))
            objects.append({"type": "chat", "id": id_, "price": id_ % 99_991 / 100, "text": text})
        found.append(text.encode()[:size])
    return found


def pair(wishes: Deflate) -> tuple[PerMessageDeflate, PerMessageDeflate]:
    return wishes.codec(client=True), wishes.codec(client=False)


def inflate(receiver: PerMessageDeflate, payload: bytes) -> None:
    """Take in a whole message."""
    receiver.feed(payload)
    while receiver.more:
        receiver.inflate(1 << 20)
    receiver.end()


def measure_once(wishes: Deflate, given: Sequence[bytes]) -> tuple[float, float, float]:
    """Seconds of compressing and of decompressing a message, and its bytes between."""
    sender, receiver = pair(wishes)
    start = time.perf_counter()
    compressed = [sender.compress(message) for message in given]
    middle = time.perf_counter()
    for payload in compressed:
        inflate(receiver, payload)
    end = time.perf_counter()
    return (middle - start) / len(given), (end - middle) / len(given), sum(map(len, compressed)) / len(given)


def memory_of(wishes: Deflate) -> float:
    """KiB that the codec of an idle connection holds, which has received and sent a message of 50,000 bytes."""
    (message,) = messages(50_000, 1)
    tracemalloc.start()
    kept = []
    for _ in range(10):
        sender, receiver = pair(wishes)
        inflate(receiver, sender.compress(message))
        inflate(sender, receiver.compress(message))
        kept.append((sender, receiver))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / len(kept) / 2 / 1024


def with_module(name: str) -> None:
    deflate._fastest = MODULES[name]  # otherwise chosen once


def rows_of_time(rounds: int, level: int) -> Iterator[list[str]]:
    for options in ({}, ALONE):
        for size in SIZES:
            given = messages(size, max(2, min(300, 200_000 // size)))
            best = dict.fromkeys(MODULES, (9.9, 9.9, 0.0))
            for _ in range(rounds):
                for name in MODULES:
                    with_module(name)
                    new = measure_once(Deflate(level=level, **options), given)
                    best[name] = (min(new[0], best[name][0]), min(new[1], best[name][1]), new[2])
            for name, (there, back, left) in best.items():
                context = "anew" if options else "taken over"
                figures = f"{left / size:.0%}", f"{there * 1e6:,.1f}", f"{back * 1e6:,.1f}"
                yield [f"{size:,}", context, name, *figures]


def rows_of_memory() -> Iterator[list[str]]:
    for options in MEMORY:
        shown = ", ".join(f"{name}={value}" for name, value in options.items()) or "the defaults"
        held = []
        for name in MODULES:
            with_module(name)
            held.append(f"{memory_of(Deflate(**options)):.0f}")
        yield [shown, *held]


def show(head: Sequence[str], rows: Iterator[list[str]]) -> None:
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)
    print()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.compression", description="What compression costs.")
    parser.add_argument("--rounds", type=int, default=15, help="how often each is measured; 15")
    parser.add_argument("--level", type=int, default=6, help="the compression level; 6")
    options = parser.parse_args(arguments)
    head = ["bytes", "context", "module", "remain", "us to compress", "us to decompress"]
    show(head, rows_of_time(options.rounds, options.level))
    show(["KiB of an idle connection with", *MODULES], rows_of_memory())


if __name__ == "__main__":
    main(sys.argv[1:])
