"""One room in one process: what comes twice, late or not at all, and what its members see of that."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_pyjo_ws import Event, Position
from trio_pyjo_ws.rooms import audience as module
from trio_pyjo_ws.rooms.audience import MAX_BACKLOG, Audience, Queue
from trio_pyjo_ws.testing import open_memory_pair

from .reading import read_to_end

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from trio_pyjo_ws import Transaction

OLD, NEW = "0" * 16, "1" * 16


def event(number: int, epoch: str = OLD) -> Event:
    return Event(Position(epoch, number), str(number))


@asynccontextmanager
async def audience_of(members: int) -> AsyncIterator[tuple[Audience, list[Transaction]]]:
    """An audience that begins at 10, and the clients of its members."""
    async with trio.open_nursery() as nursery:
        audience = Audience("chat", "close", 1013, nursery)
        clients = []
        for _ in range(members):
            client, server = open_memory_pair(nursery)
            audience.members.add(server)
            clients.append(client)
        assert audience.settle(Position(OLD, 10), [])
        yield audience, clients
        nursery.cancel_scope.cancel()


async def received(client: Transaction) -> list[Any]:
    messages = []
    with trio.move_on_after(1):
        while True:
            messages.append(await client.receive())
    return messages


async def test_what_comes_in_order_is_delivered_and_what_comes_twice_is_not(autojump_clock: MockClock) -> None:
    async with audience_of(2) as (audience, clients):
        assert all(audience.take(event(number)) for number in (11, 12, 11, 12, 10, 3, 13))
        assert audience.accepted == audience.delivered == Position(OLD, 13)
        for client in clients:
            assert await received(client) == ["11", "12", "13"]
        assert audience.recipients == 6


async def test_behind_a_hole_all_is_held_until_what_is_missing_is_there(autojump_clock: MockClock) -> None:
    async with audience_of(1) as (audience, [client]):
        assert not audience.take(event(13))
        assert audience.take(event(14))
        assert await received(client) == []
        assert audience.settle(Position(OLD, 13), [event(11), event(12), event(13)])
        assert await received(client) == ["11", "12", "13", "14"]


async def test_there_may_be_another_hole_in_what_is_held(autojump_clock: MockClock) -> None:
    async with audience_of(1) as (audience, [client]):
        audience.hold()
        audience.hold()
        for number in (12, 13, 16, 17):
            assert audience.take(event(number))
        assert not audience.settle(Position(OLD, 11), [event(11)])
        assert await received(client) == ["11", "12", "13"]
        assert audience.take(event(18))
        assert audience.settle(Position(OLD, 15), [event(14), event(15)])
        assert await received(client) == ["14", "15", "16", "17", "18"]


@pytest.mark.parametrize("epoch", [OLD, NEW])
async def test_what_cannot_be_had_closes_the_members(epoch: str, autojump_clock: MockClock) -> None:
    async with audience_of(2) as (audience, clients):
        queue = Queue(5)
        audience.queues.add(queue)
        assert audience.take(event(11))
        assert not audience.take(event(3 if epoch == NEW else 14, epoch))
        assert audience.lose(Position(epoch, 3 if epoch == NEW else 14), "messages were lost")
        for client in clients:
            assert await read_to_end(client) == (["11"], "connection closed with 1013 (messages were lost)")
        assert (list(queue.events), queue.missed) == ([event(11)], "messages were lost")
        assert audience.lost == 2
        assert audience.accepted == audience.delivered == Position(epoch, 3 if epoch == NEW else 14)


async def test_without_members_nothing_is_lost(autojump_clock: MockClock) -> None:
    async with audience_of(0) as (audience, _):
        assert audience.lose(Position(NEW, 5), "messages were lost")
        assert audience.delivered == Position(NEW, 5)
        assert audience.lost == 0
        assert not audience.take(event(8, NEW))
        assert audience.lose(Position(NEW, 6), "messages were lost") is False
        assert audience.lose(Position(NEW, 8), "messages were lost")


async def test_an_epoch_may_end_without_a_loss(autojump_clock: MockClock) -> None:
    async with audience_of(1) as (audience, [client]):
        audience.hold()
        assert audience.settle(Position(NEW, 10), [])
        assert audience.take(event(11, NEW))
        audience.hold()
        assert audience.settle(Position(OLD, 12), [event(12)])
        assert await received(client) == ["11", "12"]
        assert audience.accepted == audience.delivered == Position(OLD, 12)


async def test_a_loss_comes_in_its_place_among_what_is_delivered_to_many(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 1)
    async with audience_of(3) as (audience, clients):
        for number in (11, 12, 13):
            assert audience.take(event(number))
        assert audience.accepted == Position(OLD, 13)
        assert audience.delivered == Position(OLD, 10)
        assert not audience.take(event(1, NEW))
        assert audience.lose(Position(NEW, 1), "messages were lost")
        assert audience.delivered == Position(OLD, 10)
        for client in clients:
            end = "connection closed with 1013 (messages were lost)"
            assert await read_to_end(client) == (["11", "12", "13"], end)
        assert audience.delivered == Position(NEW, 1)


async def test_a_process_that_cannot_keep_up_gives_its_members_up(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 1)
    async with audience_of(2) as (audience, clients):
        for number in range(MAX_BACKLOG + 5):
            assert audience.take(event(11 + number))
        for client in clients:
            end = f"connection closed with 1013 ({MAX_BACKLOG} messages waited to be delivered)"
            assert await read_to_end(client) == ([], end)


async def test_a_publisher_in_this_process_waits_for_room(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 1)
    monkeypatch.setattr(module, "MAX_BACKLOG", 3)
    async with audience_of(2) as (audience, clients):
        for number in range(11, 40):
            await audience.wait_for_room()
            assert audience.take(event(number))
        for client in clients:
            assert await received(client) == [str(number) for number in range(11, 40)]


async def test_a_queue_skips_what_its_reader_has(autojump_clock: MockClock) -> None:
    queue = Queue(2, skipped=12)
    for number in (11, 12, 13, 14, 15, 16):
        queue.put(event(number))
    assert list(queue.events) == [event(13), event(14)]
    assert queue.ended
    queue.end()
    assert queue.missed == "too slow: 2 messages waited"
