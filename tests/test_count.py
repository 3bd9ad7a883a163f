"""`count`: its load and the server that is counted understand each other, without valgrind; arithmetic and table."""

from __future__ import annotations

import os
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from .bench import count
from .bench.count import CASES, Case, Counted, Figure, Figures, Gate, Total
from .bench.counted import END, GO_ON, WAITING
from .bench.plan import Scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

RTT = Case(Scenario("server", "rtt", 256), "callback", 1, 2)
CONN = Case(Scenario("server", "conn"), "for", 1, 2)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="what is counted is forked")


@pytest.fixture(scope="module")
def counted() -> Iterator[Counted]:
    with Counted(sys.executable, "pure", None) as counted:
        yield counted


@pytest.fixture
def ends() -> Iterator[tuple[Gate, socket.socket]]:
    """The load's gate, and the server's end of its connection."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield Gate(ours), theirs


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.scenario.name} {case.way}")
def test_a_server_waits_once_for_each_round(case: Case, counted: Counted) -> None:
    put_load = count.open_and_close if case.scenario.kind == "conn" else count.exchange

    def passes(rounds: int) -> int:
        return counted.run(case.way, partial(put_load, case.scenario, rounds)).passes

    times = 3 if case.scenario.kind == "conn" else 1  # for the request, the message and the Close
    assert passes(5) - passes(3) == 2 * times


def test_the_gate_opens_while_there_is_nothing_to_receive(ends: tuple[Gate, socket.socket]) -> None:
    gate, server = ends
    near, far = socket.socketpair()
    with near, far:
        far.send(b"one")
        assert gate.receive(near, 100) == b"one"
        server.send(WAITING)
        gate.wait()
        far.send(b"two")
        assert gate.receive(near, 100) == b"two"
        assert gate.passes == 0  # nothing was missing
        far.close()
        assert gate.receive(near, 100) == b""
    gate.open()
    gate.open(END)  # it does not wait any more
    assert gate.passes == 1
    assert server.recv(100) == GO_ON


def test_a_server_that_ends_is_an_error(ends: tuple[Gate, socket.socket]) -> None:
    gate, server = ends
    near, far = socket.socketpair()
    server.send(b"child 4711")  # in place of the child, the process that forks it
    with near, far, pytest.raises(ConnectionError, match="has ended"):
        gate.receive(near, 100)
    server.close()
    with pytest.raises(ConnectionError, match="has ended"):
        gate.wait()


def test_what_has_arrived_late_does_not_stop_the_load(
    ends: tuple[Gate, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, server = ends
    monkeypatch.setattr(count, "ARRIVING", 0.0)
    gate.wait()
    gate.open()
    assert gate.passes == 0
    server.send(WAITING)
    gate.wait()
    gate.open()
    assert gate.passes == 1


def test_a_process_that_does_not_start_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(port: int, gate: Gate) -> None:
        raise AssertionError(f"there is no server at {port}")

    with Counted(sys.executable, "pure", None) as counted, pytest.raises(ConnectionError, match="has ended"):
        counted.run("nothing", fail)
    assert "KeyError: 'nothing'" in capfd.readouterr().err


def test_the_gate_has_its_price(counted: Counted) -> None:
    assert count.cost_of_a_pass(counted) == 0  # without valgrind


def test_a_figure_is_the_difference_of_two_runs_without_the_gate() -> None:
    short, long = Total(1000, 50, 10), Total(4000, 110, 30)
    assert count.difference(short, long, 10, 100) == Figure((3000 - 20 * 100) / 10, (60 - 20 * 2) / 10)


def test_the_calls_of_one_process_are_counted() -> None:
    log = """\
==17== Cachegrind, a cache and branch-prediction profiler
SYSCALL[17,1]( 41) sys_socket ( 2, 526337, 0 )[sync] --> Success(0x5)
SYSCALL[18,1](  1) sys_write ( 5, 0x5a6, 4 ) --> [async] ...
SYSCALL[18,1](  1) ... [async] --> Success(0x4)
SYSCALL[18,1](228) sys_clock_gettime( 1, 0x1ffefff5f0 )[sync] --> Success(0x0)
SYSCALL[18,1](232) sys_epoll_wait ( 6, 0x48d1, 3, 4294967295 ) --> [async] ...
"""
    assert count.calls_of(17, log.splitlines()) == 1
    assert count.calls_of(18, log.splitlines()) == 2


def test_the_table_shows_medians_and_how_far_the_repetitions_lie_apart() -> None:
    now: Figures = {(RTT, "pure"): [Figure(1990, 4), Figure(2010, 5), Figure(2000, 4)]}
    assert count.table(now, {}) == [
        "|  | codec | instructions | spread | system calls |",
        "| --- | --- | ---: | ---: | ---: |",
        "| 256 B, one in flight, callback | pure | 2,000 | 1.00% | 4.00 |",
    ]


def test_the_table_shows_two_versions_side_by_side() -> None:
    now: Figures = {(RTT, "pure"): [Figure(2000, 4), Figure(2000, 4)], (CONN, "pure"): [Figure(1e6, 28)]}
    before: Figures = {(RTT, "pure"): [Figure(1590, 3), Figure(1610, 3)], (CONN, "pure"): [Figure(2e6, 28)]}
    assert count.table(now, before)[2:] == [
        "| 256 B, one in flight, callback | pure | 1,600 | 2,000 | 1.250 | 1.25% | 3.00 | 4.00 |",
        "| open, echo once, close, async for | pure | 2,000,000 | 1,000,000 | 0.500 | - | 28.00 | 28.00 |",
    ]


@pytest.mark.parametrize(
    ("words", "titles", "codecs"),
    [
        ([], [case.title for case in CASES], ["compiled", "pure"]),
        (["rtt", "callback", "pure"], ["256 B, one in flight, callback"], ["pure"]),
        (
            ["rtt:256", "talk", "for"],
            ["256 B, one in flight, async for", "256 B, 20 connections talking, async for"],
            ["compiled", "pure"],
        ),
    ],
)
def test_only_chooses(words: list[str], titles: list[str], codecs: list[str]) -> None:
    cases, chosen = count.choose(words)
    assert [case.title for case in cases] == titles
    assert chosen == codecs


def test_only_names_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"expected some of conn, pipe, .*, callback, compiled, pure, not 'call'"):
        count.choose(["call"])
