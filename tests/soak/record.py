"""What a soak has cost: samples over time, the counts at its quiet points, and the verdict on them."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

if TYPE_CHECKING:
    from .world import World

INTERVAL = 0.5
"""Seconds between samples."""

MEMORY = 16 * 2**20
"""Bytes of resident memory that a phase may leave behind: the allocator cannot give back what is not compact."""
BLOCKS = 0.02
"""The share of allocated blocks by which a phase may differ: caches of Python's own, which fill at their leisure."""
TRACED = 64 * 2**10
"""Bytes, by tracemalloc, that may be left of what was allocated in the traced phase."""


class Sample(NamedTuple):
    seconds: float
    resident: int
    """Bytes."""
    connections: int
    """Of the servers."""


class Quiet(NamedTuple):
    """The process when no visitor is there."""

    phase: str
    """What came before."""
    resident: int
    """Bytes."""
    blocks: int
    """That Python has allocated."""
    descriptors: int
    tasks: int


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - for each of them a Path would be made


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def sample(world: World, samples: list[Sample]) -> None:
    """Take samples until cancelled."""
    start = time.monotonic()
    while True:
        samples.append(Sample(round(time.monotonic() - start, 2), resident(), world.connections()))
        await trio.sleep(INTERVAL)


def tidy() -> None:
    """Give back what is in no use."""
    for _ in range(3):
        gc.collect()
    with suppress(AttributeError):  # where the C library is not glibc
        ctypes.CDLL(None).malloc_trim(0)
    # Python remembers where it has found an attribute by the address of its name, for up to 4096 names. Each call of a
    # method from C makes a new one: contextlib's and trio's exception groups do.
    clear = getattr(sys, "_clear_internal_caches", getattr(sys, "_clear_type_cache", None))  # from 3.13 on, and before
    if clear is not None:
        clear()
    # trio keeps the cancel scopes of up to a thousand deadlines that are off, until their time has come.
    with suppress(AttributeError):
        trio._core._run.GLOBAL_RUN_CONTEXT.runner.deadlines._prune()


async def settle(world: World, phase: str, baseline: Quiet | None, patience: float = 30.0) -> Quiet:
    """Wait until nothing of the visitors is left, or until there is no hope; then count."""
    with trio.move_on_after(patience):
        while True:
            await trio.sleep(0.2)
            still = baseline is None or (tasks() <= baseline.tasks and descriptors() <= baseline.descriptors)
            if not world.connections() and still:
                break
    tidy()
    return Quiet(phase, resident(), sys.getallocatedblocks(), descriptors(), tasks())


def verdict(quiet: list[Quiet], traced: int, failures: list[str]) -> list[str]:
    """What is wrong, a line each. ``quiet`` begins with the baseline, and ``traced`` is what tracemalloc has found."""
    wrong = list(failures)
    base = quiet[0]
    for one in quiet[1:]:
        where = f"after the {one.phase}"
        if one.descriptors != base.descriptors:
            wrong.append(f"{where} there are {one.descriptors} descriptors, not {base.descriptors}")
        if one.tasks != base.tasks:
            wrong.append(f"{where} there are {one.tasks} tasks, not {base.tasks}")
        if one.resident > base.resident + MEMORY:
            wrong.append(f"{where} {(one.resident - base.resident) / 2**20:.1f} MiB more are resident")
        if one.blocks > base.blocks * (1 + BLOCKS):
            wrong.append(f"{where} {one.blocks - base.blocks:,} more blocks are allocated")
    if traced > TRACED:
        wrong.append(f"of the traced phase {traced / 2**10:.0f} KiB are left")
    return wrong


def markdown(results: dict[str, Any]) -> str:
    """The report: what happened, and what was left of it."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    quiet = [Quiet(*one) for one in results["quiet"]]
    lines = [
        f"- {results['date']}, `{results['command']}`, seed {results['seed']}",
        f"- {machine['cpu']}, {machine['cores']} cores; {machine['system']}",
        f"- {machine['python']}; {versions}; {results['codec']} codec",
        "",
        "| | |",
        "|---|---:|",
        f"| connections that came and went by | {sum(results['visits'].values()):,} |",
        f"| of these opened, echoed once and closed | {results['visits'].get('churn', 0):,} |",
        f"| connections that stayed throughout | {results['staying']:,} |",
        f"| messages whose number and checksum were compared | {results['messages']:,} |",
        f"| bytes of these | {results['bytes'] / 2**20:,.0f} MiB |",
        f"| connections at once, at most | {max(sample[2] for sample in results['samples']):,} |",
        f"| resident memory, at most | {max(sample[1] for sample in results['samples']) / 2**20:.1f} MiB |",
        f"| seconds | {results['samples'][-1][0]:,.0f} |",
        f"| left of what the traced phase allocated | {results['traced'] / 2**10:.1f} KiB |",
        "",
        "| After the | resident memory | blocks of Python | descriptors | tasks |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {one.phase} | {one.resident / 2**20:.1f} MiB | {one.blocks:,} | {one.descriptors} | {one.tasks} |"
            for one in quiet
        ),
        "",
        "| Visits | |",
        "|---|---:|",
        *(f"| {name.replace('_', ' ')} | {count:,} |" for name, count in sorted(results["visits"].items())),
        "",
        *(
            ["**Wrong:**", "", *(f"- {one}" for one in results["wrong"])]
            if results["wrong"]
            else ["Nothing was wrong."]
        ),
    ]
    return "\n".join(lines) + "\n"
