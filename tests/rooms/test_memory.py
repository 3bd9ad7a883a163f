"""The rooms of one process: for how long they are remembered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from trio_pyjo_ws import Missed, open_rooms
from trio_pyjo_ws.rooms.memory import MemoryBroker
from trio_pyjo_ws.testing import open_memory_pair

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_a_room_is_forgotten_after_a_while_without_a_use(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with open_rooms(history=5, keep=60) as rooms:
        client, server = open_memory_pair(nursery)
        old = await rooms.publish("old", "x")
        async with rooms.join("joined", server):
            joined = await rooms.publish("joined", "x")
            await trio.sleep(59)
            await rooms.publish("new", "x")
            async with rooms.join("old", after=old):
                pass
            await trio.sleep(61)
            await rooms.publish("new", "y")
            assert await rooms.publish("joined", "y") == type(joined)(joined.epoch, 2)
            assert [await client.receive() for _ in range(2)] == ["x", "y"]
        with pytest.raises(Missed):
            async with rooms.join("old", after=old):
                raise AssertionError
    nursery.cancel_scope.cancel()


async def test_rooms_that_come_and_go_take_no_memory(autojump_clock: MockClock) -> None:
    broker = MemoryBroker({}, 0, 10)
    for number in range(1000):
        await broker.publish(str(number), "x")
        await trio.sleep(1)
    assert len(broker._kept) == 10
