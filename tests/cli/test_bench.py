from __future__ import annotations

import json
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from trio_pyjo_ws.cli.bench import Latencies

from .program import Pipes, echo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_pyjo_ws import Server, Transaction

    StartServer = Callable[..., Awaitable[Server]]


def latencies(*values: float) -> Latencies:
    made = Latencies()
    for value in values:
        made.add(value)
    return made


def test_percentiles_are_exact_to_one_percent() -> None:
    found = latencies(*[number / 1000 for number in range(1, 1001)])
    for percent in (0.1, 1, 50, 75, 90, 99, 99.9, 100):
        assert found.percentile(percent) == pytest.approx(percent / 100, rel=0.011)
    assert found.highest == 1.0
    assert found.percentile(100) == 1.0  # never more than there was


def test_one_latency_is_every_percentile() -> None:
    assert {latencies(0.002).percentile(percent) for percent in (0.1, 50, 99.9)} == {0.002}
    assert latencies(0.0).percentile(50) == 0.0


def test_the_histogram_holds_them_all() -> None:
    rows = latencies(0.001, 0.001, 0.010, 0.1).rows(12)
    assert len(rows) <= 12
    assert [times for _, times in rows if times] == [2, 1, 1]
    assert rows == sorted(rows)
    assert rows[-1][0] >= 0.1
    assert latencies(0.5).rows(12)[0][1] == 1


def test_many_latencies_take_no_more_memory_than_few() -> None:
    found = latencies(*[number / 1_000_000 for number in range(1, 20_000)])
    assert len(found._counts) < 1000


async def test_a_load(pipes: Pipes, start_server: StartServer) -> None:
    server = await start_server(echo)
    assert await pipes.run("bench", "-c", "3", "-d", "0.1", "-s", "200", str(server.url)) == 0
    lines = pipes.read_rest().splitlines()
    assert re.fullmatch(r"[\d,]+ messages of 200 bytes over 3 connections in 0\.\d s: [\d,]+ a second", lines[0]), (
        lines[0]
    )
    number = r"[\d.,e+-]+ ms"
    names = ("p50", "p75", "p90", "p99", "p99\\.9", "max")
    assert re.fullmatch("latency: " + ", ".join(f"{name} {number}" for name in names), lines[1])
    assert 1 <= len(lines) - 2 <= 12
    assert all(re.fullmatch(rf"  to +{number} [█▏]* ?[\d,]+", line) for line in lines[2:]), lines
    assert pipes.told == ""


@pytest.mark.parametrize("columns", ["20", "40", "132"])
async def test_the_histogram_is_as_wide_as_the_terminal(
    columns: str, pipes: Pipes, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    server = await start_server(echo)
    assert await pipes.run("bench", "-c", "1", "-d", "0.1", str(server.url)) == 0
    widest = max(map(len, pipes.read_rest().splitlines()[2:]))
    if columns == "20":
        assert widest <= 24  # narrower it cannot be: the bars have a column
    else:
        assert int(columns) - 2 <= widest < int(columns)


async def test_as_json(pipes: Pipes, start_server: StartServer) -> None:
    server = await start_server(echo, compression=True)
    arguments = ["--json", "--compress", "-c", "2", "-r", "200", "-d", "0.2"]
    assert await pipes.run("bench", *arguments, str(server.url)) == 0
    report = json.loads(pipes.read_rest())
    assert (report["connections"], report["rate"], report["size"]) == (2, 200, 32)
    assert 0 < report["answered"] <= report["sent"] <= 45
    assert list(report["latency"]) == ["p50", "p75", "p90", "p99", "p99.9", "max"]
    assert 0 < report["latency"]["p50"] <= report["latency"]["p99.9"] <= report["latency"]["max"]


async def test_latency_counts_from_when_a_message_was_due(
    pipes: Pipes, start_server: StartServer, autojump_clock: trio.testing.MockClock
) -> None:
    async def hesitate(ws: Transaction) -> None:
        message = await ws.receive()
        await trio.sleep(0.2)  # what is due meanwhile has waited for that, too
        await ws.send(message)
        await echo(ws)

    server = await start_server(hesitate)
    assert await pipes.run("bench", "--json", "-c", "1", "-r", "100", "-d", "0.3", str(server.url)) == 0
    report = json.loads(pipes.read_rest())
    assert report["latency"]["p50"] > 0.03


async def test_at_a_rate_what_is_not_back_is_told(pipes: Pipes, start_server: StartServer) -> None:
    async def once(ws: Transaction) -> None:
        await ws.send(await ws.receive())
        await trio.sleep_forever()

    server = await start_server(once)
    assert await pipes.run("bench", "-c", "1", "-r", "100", "-d", "0.2", str(server.url)) == 0
    assert re.search(r"^\d+ that were due were not back in the end$", pipes.read_rest(), re.MULTILINE)


async def test_a_server_that_does_not_answer(pipes: Pipes, start_server: StartServer) -> None:
    async def listen(ws: Transaction) -> None:
        async for _ in ws:
            pass

    server = await start_server(listen)
    assert await pipes.run("bench", "-d", "0.1", str(server.url)) == 1
    assert pipes.told == "no message has come back\n"


@pytest.mark.parametrize("rate", [(), ("-r", "1")])
async def test_a_server_that_answers_something_else(
    rate: tuple[str, ...], pipes: Pipes, start_server: StartServer
) -> None:
    async def chatter(ws: Transaction) -> None:
        await ws.send("Welcome!")
        await echo(ws)

    server = await start_server(chatter)
    wrong = pytest.RaisesExc(RuntimeError, match="does not send back what it gets")
    with pytest.RaisesGroup(wrong, flatten_subgroups=True):
        await pipes.run("bench", "-c", "1", "-d", "5", *rate, str(server.url))


async def test_a_signal_ends_the_load_and_shows_what_there_is(pipes: Pipes, start_server: StartServer) -> None:
    async def interrupt(ws: Transaction) -> None:
        for _ in range(10):
            await ws.send(await ws.receive())
        signal.raise_signal(signal.SIGINT)
        await echo(ws)

    server = await start_server(interrupt)
    assert await pipes.run("bench", "-c", "1", "-d", "3600", str(server.url)) == 0
    assert " messages of 32 bytes " in pipes.read_rest()


async def test_a_bar_where_standard_error_is_a_terminal(
    pipes: Pipes, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes._stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    server = await start_server(echo)
    assert await pipes.run("bench", "-c", "1", "-d", "0.2", str(server.url)) == 0
    assert "━" in pipes.told


async def test_no_bar_without_the_extra(
    pipes: Pipes, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipes._stderr, "isatty", lambda: True)
    monkeypatch.setitem(sys.modules, "trio_pyjo_ws.adapters.progress", None)
    server = await start_server(echo)
    assert await pipes.run("bench", "-c", "1", "-d", "0.1", str(server.url)) == 0
    assert pipes.told == ""
