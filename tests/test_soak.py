"""The soak's own ledger, verdict and plot, and each of its visits once: it can see what it is there to see."""

from __future__ import annotations

import re
from collections import Counter
from random import Random
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import trio

from .soak import record, visits
from .soak.ledger import Ledger, Wrong, binary, text
from .soak.record import Quiet, Sample
from .soak.world import World

pytestmark = pytest.mark.once

BASE = Quiet("warm-up", 50 * 2**20, 100_000, 14, 12)


@pytest.fixture
def results() -> dict[str, Any]:
    return {
        "date": "2026-01-02",
        "command": "nox -s soak",
        "seed": 7,
        "machine": {"cpu": "Some CPU", "cores": 2, "system": "Linux 6", "python": "CPython 3.13.0"},
        "versions": {"trio": "0.35.0"},
        "codec": "compiled",
        "visits": {"talk": 1200, "never_read": 3, "churn": 1000},
        "staying": 8,
        "messages": 12_345,
        "bytes": 5 * 2**20,
        "quiet": [BASE, BASE._replace(phase="visits")],
        "phases": [("warm-up", 0.0), ("visits", 5.0)],
        "traced": 2048,
        "wrong": [],
        "samples": [Sample(0.0, 50 * 2**20, 0), Sample(5.0, 90 * 2**20, 41), Sample(10.0, 51 * 2**20, 0)],
    }


@pytest.mark.parametrize("make", [lambda n: binary(n, b"payload %d" % n), lambda n: text(n, f"znak 🐍 {n}")])
def test_a_ledger_sees_what_is_lost_doubled_out_of_order_or_changed(make: Any) -> None:
    ledger = Ledger()
    ledger.enter(make(0))
    ledger.enter(make(1))
    assert ledger.messages == 2
    assert ledger.bytes == len(make(0)) + len(make(1))
    for number in (3, 1, 0):
        with pytest.raises(Wrong, match=f"message {number} came in place of 2"):
            ledger.enter(make(number))
    changed = make(2)[:-1] + make(9)[-1:]
    with pytest.raises(Wrong, match="message 2 has changed on the way"):
        ledger.enter(changed)
    for headless in (make(2)[:3], b"", "x"):
        with pytest.raises(Wrong, match="has no head"):
            ledger.enter(headless)
    ledger.enter(make(2))


@pytest.mark.parametrize(
    ("change", "traced", "failures", "wrong"),
    [
        ({}, 0, [], []),
        ({"resident": BASE.resident - 1, "blocks": BASE.blocks - 1}, 0, [], []),
        ({"descriptors": 15}, 0, [], ["after the visits there are 15 descriptors, not 14"]),
        ({"tasks": 13}, 0, [], ["after the visits there are 13 tasks, not 12"]),
        ({"resident": 70 * 2**20}, 0, [], ["after the visits 20.0 MiB more are resident"]),
        ({"blocks": 110_000}, 0, [], ["after the visits 10,000 more blocks are allocated"]),
        ({}, 2**20, [], ["of the traced phase 1024 KiB are left"]),
        ({}, 0, ["talk: Wrong()"], ["talk: Wrong()"]),
    ],
)
def test_the_verdict_names_what_is_left(
    change: dict[str, int], traced: int, failures: list[str], wrong: list[str]
) -> None:
    assert record.verdict([BASE, BASE._replace(phase="visits", **change)], traced, failures) == wrong


def test_the_report_tells_counts_and_quiet_points(results: dict[str, Any]) -> None:
    report = record.markdown(results)
    for line in (
        "| connections that came and went by | 2,203 |",
        "| of these opened, echoed once and closed | 1,000 |",
        "| messages whose number and checksum were compared | 12,345 |",
        "| connections at once, at most | 41 |",
        "| resident memory, at most | 90.0 MiB |",
        "| visits | 50.0 MiB | 100,000 | 14 | 12 |",
        "| never read | 3 |",
        "Nothing was wrong.",
    ):
        assert line in report.splitlines()
    results["wrong"] = ["talk: Wrong()"]
    assert "- talk: Wrong()" in record.markdown(results).splitlines()


def test_the_plot_is_a_picture_of_the_samples(results: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib", reason="it is installed for the soak only")
    from .soak import plot  # noqa: PLC0415

    picture = plot.svg(results)
    root = ET.fromstring(picture)  # noqa: S314 - ours
    paths = [element.get("d", "") for element in root.iter("{http://www.w3.org/2000/svg}path")]
    colours = [element.get("style", "") for element in root.iter("{http://www.w3.org/2000/svg}path")]
    lines = [path for path, style in zip(paths, colours, strict=True) if f"stroke: {plot.LINE}" in style]
    assert [len(re.findall("[ML] ", line)) for line in lines] == [3, 3]
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Resident memory, MiB", "Connections of the servers", "warm-up", "visits", "10 s"} <= set(texts)
    light, dark = picture.split("@media (prefers-color-scheme: dark)")
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", light)) <= set(plot.DARK)
    assert f'[style*="stroke: {plot.LINE}"] {{ stroke: {plot.DARK[plot.LINE]} !important }}' in dark


@pytest.mark.parametrize("seed", [1, 2])
async def test_each_visit_passes(seed: int) -> None:
    world = World(Random(seed))
    quick = set(visits.VISITS) - {"handshake_stalls", "garbage", "bad_server", "never_read", "stall"}  # these wait
    async with world.open(), trio.open_nursery() as nursery:
        leaving = trio.Event()
        nursery.start_soon(visits.stay, world, Random(seed), "tls", True, leaving)
        async with trio.open_nursery() as visiting:
            for name in quick:
                visiting.start_soon(visits.run, name, world, Random(seed))
        leaving.set()
    assert world.failures == []
    assert world.visits == Counter(quick)
    assert world.messages > 0


async def test_a_visit_that_goes_wrong_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    async def changes(world: World, random: Random) -> None:
        ledger = Ledger()
        ledger.enter(binary(1, b""))

    monkeypatch.setitem(visits.VISITS, "changes", (1, changes))
    world = World(Random(1))
    await visits.run("changes", world, Random(1))
    assert world.failures == ["changes: Wrong('message 1 came in place of 0')"]


async def test_a_server_that_loses_a_message_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def loses(self: World, ws: Any, _: str) -> None:
        await ws.receive()
        async for message in ws:
            await ws.send(message)

    monkeypatch.setattr(World, "handle_count", loses)
    world = World(Random(1))
    leaving = trio.Event()
    async with world.open():
        await visits.stay(world, Random(1), "tcp", False, leaving)
    assert len(world.failures) == 1
    assert "message 1 came in place of 0" in world.failures[0]
