"""Deadlines, corked transactions and background tasks, in one task that sleeps unless there is something to do."""

from __future__ import annotations

import itertools
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_pyjo_ws._engine.housekeeper import SWEEP, Housekeeper
from trio_pyjo_ws._engine.transport import Transport
from trio_pyjo_ws.testing import open_memory_pair

from ..peer import set_clock

if TYPE_CHECKING:
    from collections.abc import Callable

DAY = 24 * 3600


class ToClose(Transport):
    """A transport that has something left to close."""

    def __init__(self, during: Callable[[], object] = lambda: None) -> None:
        self.closed = 0
        self._during = during

    async def aclose(self) -> None:
        try:
            await trio.lowlevel.checkpoint()
            self._during()
        finally:
            self.closed += 1


class Connection:
    """What the housekeeper knows of one."""

    def __init__(self, end: Callable[[], None] = lambda: None) -> None:
        self.end = end


class Corked:
    """What has something to write at the end of the turn."""

    def __init__(self, uncork: Callable[[], None]) -> None:
        self.uncork = uncork


class Steps(trio.abc.Instrument):
    """How often each task is run, by its name."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.of[task.name.partition(" of ")[0]] += 1


@pytest.fixture
def house(nursery: trio.Nursery) -> Housekeeper:
    house = Housekeeper(nursery)
    nursery.start_soon(house.run)
    return house


@pytest.fixture
def called() -> list[tuple[object, float]]:
    return []


@pytest.fixture
def note(called: list[tuple[object, float]]) -> Callable[[object], Callable[[], None]]:
    """Make a call that notes its name, and when it came."""
    return lambda name: lambda: called.append((name, trio.current_time()))


# Deadlines


async def test_calls_come_when_they_are_due(
    house: Housekeeper, called: list, note: Callable, autojump_clock: MockClock
) -> None:
    for when in (30, 10, 20, 10):
        house.at(when, note(when))
    assert house.deadlines == 4
    await trio.sleep(25)
    assert called == [(10, 10), (10, 10), (20, 20)]
    assert house.deadlines == 1
    await trio.sleep(5.5)
    assert called[3:] == [(30, 30)]
    assert house.deadlines == 0


async def test_one_set_before_the_housekeeper_runs(
    nursery: trio.Nursery, autojump_clock: MockClock, called: list, note: Callable
) -> None:
    house = Housekeeper(nursery)
    house.at(7, note("early"))
    nursery.start_soon(house.run)
    await trio.sleep(8)
    assert called == [("early", 7)]


async def test_one_that_is_earlier_than_all_the_others_is_not_late(
    house: Housekeeper, called: list, note: Callable, autojump_clock: MockClock
) -> None:
    house.at(100, note("late"))
    await trio.sleep(1)  # the housekeeper is parked with 100 as its deadline
    house.at(5, note("early"))
    await trio.sleep(5)
    assert called == [("early", 5)]


async def test_one_in_the_past_is_called_at_once(
    house: Housekeeper, called: list, note: Callable, autojump_clock: MockClock
) -> None:
    await trio.sleep(10)
    house.at(3, note("past"))
    await wait_all_tasks_blocked()
    assert called == [("past", 10)]


async def test_a_call_may_set_the_next(
    house: Housekeeper, called: list, note: Callable, autojump_clock: MockClock
) -> None:
    def tick() -> None:
        note("tick")()
        if len(called) < 5:
            house.at(trio.current_time() + 10, tick)

    house.at(10, tick)
    await trio.sleep(100)
    assert called == [("tick", 10), ("tick", 20), ("tick", 30), ("tick", 40), ("tick", 50)]


async def test_a_call_may_set_one_that_is_due_already(
    house: Housekeeper, called: list, note: Callable, autojump_clock: MockClock
) -> None:
    house.at(10, lambda: house.at(5, note("due")) and None)
    await trio.sleep(11)
    assert called == [("due", 10)]


async def test_a_cancelled_deadline_is_not_called(
    house: Housekeeper, called: list, note: Callable, autojump_clock: MockClock
) -> None:
    first, second, third = (house.at(when, note(when)) for when in (10, 20, 30))
    house.cancel(first)
    house.cancel(third)
    assert house.deadlines == 1
    await trio.sleep(40)
    assert called == [(20, 20)]
    assert house.deadlines == 0
    for deadline in (first, second, third):  # all of them are over
        house.cancel(deadline)
    assert house.deadlines == 0


async def test_a_call_may_cancel_the_next(
    house: Housekeeper, called: list, note: Callable, autojump_clock: MockClock
) -> None:
    second = house.at(20, note("second"))
    house.at(10, lambda: house.cancel(second))
    house.at(30, note("third"))
    await trio.sleep(40)
    assert called == [("third", 30)]


async def test_churn_leaves_no_deadlines_behind(house: Housekeeper, autojump_clock: MockClock) -> None:
    kept = [house.at(DAY, lambda: None) for _ in range(10)]
    for _ in range(10_000):
        house.cancel(house.at(DAY, lambda: None))
        assert len(house._deadlines) <= 2 * max(SWEEP, len(kept)) + 2
    assert house.deadlines == 10


async def test_a_sweep_from_within_a_due_call_forgets_no_deadline(
    house: Housekeeper, called: list, note: Callable, autojump_clock: MockClock
) -> None:
    # As when a connection ends by its timeout, takes its other deadlines along, and these are the most by now.
    cancelled = [house.at(when, note("cancelled")) for when in range(100, 100 + 2 * SWEEP)]

    def end() -> None:
        for deadline in cancelled:
            house.cancel(deadline)
        house.at(300, note("set after the sweep"))

    house.at(10, end)
    await trio.sleep(400)
    assert called == [("set after the sweep", 300)]
    assert house.deadlines == 0
    assert house._deadlines == []


# Corks


@pytest.mark.parametrize("corked", [False, True])
async def test_what_is_for_the_next_turn_is_done_then_and_in_order(
    house: Housekeeper, autojump_clock: MockClock, corked: bool
) -> None:
    flushed: list[int] = []
    await wait_all_tasks_blocked()
    for number in range(3):
        call = partial(flushed.append, number)
        if corked:
            house.cork(Corked(call))
        else:
            house.soon(call)
    assert flushed == []
    for _ in range(2):  # in a turn the order of the tasks is random
        await trio.lowlevel.checkpoint()
    assert flushed == [0, 1, 2]
    await wait_all_tasks_blocked()
    assert flushed == [0, 1, 2]


async def test_a_flush_that_leads_to_the_next_does_not_starve_the_others(
    house: Housekeeper, autojump_clock: MockClock
) -> None:
    # As a drain callback that sends, which is the way to write as fast as the kernel takes it.
    flushed = 0

    def flush() -> None:
        nonlocal flushed
        flushed += 1
        if flushed < 1000:
            house.cork(Corked(flush))

    house.cork(Corked(flush))
    turns = 0
    while flushed < 1000:
        await trio.lowlevel.checkpoint()
        turns += 1
        assert flushed <= turns + 1
    assert turns >= 999


async def test_deadlines_are_kept_while_flushes_go_on(
    house: Housekeeper, called: list, note: Callable, autojump_clock: MockClock
) -> None:
    stop = False

    def flush() -> None:
        if not stop:
            house.soon(flush)

    house.soon(flush)
    house.at(trio.current_time() - 1, note("due"))
    for _ in range(5):
        await trio.lowlevel.checkpoint()
    stop = True
    assert [name for name, _ in called] == ["due"]


# Transactions that come and go


async def test_ends_at_once_when_retired_and_alone(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        house = Housekeeper(nursery)
        house.retire()
        nursery.start_soon(house.run)
    assert trio.current_time() == 0


async def test_ends_when_the_last_has_left_after_retiring(autojump_clock: MockClock) -> None:
    transports = [ToClose(), ToClose()]
    connections = [Connection(), Connection()]
    async with trio.open_nursery() as nursery:
        house = Housekeeper(nursery)
        nursery.start_soon(house.run)
        for connection in connections:
            house.join(connection)
        await wait_all_tasks_blocked()
        house.retire()
        for number in range(2):
            await trio.sleep(10)
            assert len(nursery.child_tasks) == 1
            house.leave(connections[number], transports[number])
            await wait_all_tasks_blocked()
            assert [transport.closed for transport in transports] == [1, number]
    assert trio.current_time() == 20


async def test_goes_on_alone_while_not_retired(
    house: Housekeeper, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    house.join(connection := Connection())
    house.leave(connection, ToClose())
    await trio.sleep(DAY)
    assert len(house.nursery.child_tasks) == 1


async def test_what_comes_while_a_transport_closes_is_not_forgotten(
    house: Housekeeper, called: list, note: Callable, autojump_clock: MockClock
) -> None:
    def during() -> None:
        house.soon(note("corked"))
        house.leave(Connection(), second)
        house.at(trio.current_time(), note("due"))

    first, second = ToClose(during), ToClose()
    house.leave(Connection(), first)
    await wait_all_tasks_blocked()
    assert first.closed == second.closed == 1
    assert sorted(name for name, _ in called) == ["corked", "due"]


async def test_cancelled_it_aborts_those_that_are_left_and_closes_their_transports(autojump_clock: MockClock) -> None:
    transports = {name: ToClose() for name in "abc"}
    aborted: list[str] = []
    connections: dict[str, Connection] = {}
    async with trio.open_nursery() as nursery:
        house = Housekeeper(nursery)
        nursery.start_soon(house.run)
        for name, transport in transports.items():

            def end(name: str = name, transport: ToClose = transport) -> None:
                aborted.append(name)
                house.leave(connections[name], transport)

            connections[name] = Connection(end)
            house.join(connections[name])
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sorted(aborted) == ["a", "b", "c"]
    assert {transport.closed for transport in transports.values()} == {1}


async def test_one_that_leaves_after_the_cancellation_is_closed_as_well(autojump_clock: MockClock) -> None:
    # As a connection that is accepted in the very turn in which the server is cancelled.
    transport = ToClose()
    async with trio.open_nursery() as nursery:
        house = Housekeeper(nursery)
        with trio.CancelScope() as scope:
            scope.cancel()
            await house.run()
        house.join(connection := Connection())
        nursery.cancel_scope.cancel()
        house.leave(connection, transport)
    assert transport.closed == 1


async def test_tasks_are_started_in_its_nursery_under_their_name(
    house: Housekeeper, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    house.start_soon(trio.sleep_forever, "a reader")
    assert "a reader" in {task.name for task in house.nursery.child_tasks}


# Idle is free


async def test_a_pair_without_keepalive_is_not_run_for_a_day(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    client, server = open_memory_pair(nursery, ping_interval=None)
    nursery.start_soon(client.receive)
    nursery.start_soon(server.receive)
    await trio.sleep(1)  # more than the grace
    trio.lowlevel.add_instrument(steps := Steps())
    await trio.sleep(DAY)
    trio.lowlevel.remove_instrument(steps)
    assert sum(steps.of.values()) == 1  # this task's own waking


@pytest.mark.parametrize("receiving", [True, False], ids=["receiving", "nobody receives"])
async def test_an_idle_pair_wakes_for_its_keepalive_only(
    nursery: trio.Nursery, autojump_clock: MockClock, receiving: bool
) -> None:
    client, server = open_memory_pair(nursery, ping_interval=60, ping_timeout=60)
    if receiving:
        nursery.start_soon(client.receive)
        nursery.start_soon(server.receive)
    await trio.sleep(1)
    trio.lowlevel.add_instrument(steps := Steps())
    await trio.sleep(DAY)
    trio.lowlevel.remove_instrument(steps)
    pings = 2 * DAY // 60
    assert steps.of["housekeeper"] == pings
    assert client.statistics().latency == server.statistics().latency == 0
    # Of a ping and of its pong: a writer's task and a reader's, each with the three steps of a memory stream's call.
    # Under load either one yields more.
    assert sum(steps.of.values()) <= 17 * pings


async def test_many_calls_for_one_turn_let_the_others_run(
    house: Housekeeper, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    clock = itertools.count()  # of which each look takes a second
    set_clock(monkeypatch, lambda: next(clock))
    turns: list[str] = []

    async def neighbour() -> None:
        for _ in range(6):
            turns.append("neighbour")
            await trio.lowlevel.checkpoint()

    nursery.start_soon(neighbour)
    for _ in range(3):
        house.soon(partial(turns.append, "call"))
    await trio.sleep(1)
    assert "call call call" not in " ".join(turns)
    assert turns.count("call") == 3


async def test_many_that_are_due_at_once_let_the_others_run(
    house: Housekeeper, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    clock = itertools.count()  # of which each look takes a second
    set_clock(monkeypatch, lambda: next(clock))
    turns: list[str] = []

    async def neighbour() -> None:
        await trio.sleep_until(10)
        for _ in range(6):
            turns.append("neighbour")
            await trio.lowlevel.checkpoint()

    nursery.start_soon(neighbour)
    for _ in range(3):
        house.at(10, partial(turns.append, "call"))
    await trio.sleep(11)
    assert "call call call" not in " ".join(turns)
    assert turns.count("call") == 3
