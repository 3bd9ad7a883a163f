"""What is asked of rooms, checked before anything is done; and members that come from another process."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_pyjo_ws import Event, Missed, Position, RoomsUnavailable, open_rooms
from trio_pyjo_ws.rooms import joining
from trio_pyjo_ws.rooms.memory import MemoryBroker
from trio_pyjo_ws.testing import open_memory_pair

from .reading import read_to_end

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"url": 1}, TypeError, "url must be a str or None, not 1"),
        ({"history": -1}, ValueError, "history must be at least 0, not -1"),
        ({"history": True}, TypeError, "history must be an int, not True"),
        ({"keep": 0}, ValueError, "keep must be a positive number of seconds, not 0"),
        ({"keep": float("inf")}, ValueError, "keep must be a positive number of seconds, not inf"),
        ({"keep": "1"}, TypeError, "keep must be a number of seconds, not '1'"),
        ({"lease": float("nan")}, ValueError, "lease must be a positive number of seconds, not nan"),
        ({"lease": True}, TypeError, "lease must be a number of seconds, not True"),
        ({"slow": "wait"}, ValueError, "slow must be 'close' or 'drop-message', not 'wait'"),
        ({"code": 1000}, ValueError, "code must be 1008 or 1013, not 1000"),
        ({"max_message_size": 0}, ValueError, "max_message_size must be at least 1, not 0"),
    ],
)
async def test_options_are_checked(options: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        async with open_rooms(**options):
            raise AssertionError


@pytest.mark.parametrize(
    ("name", "message", "error", "text"),
    [
        (1, "x", TypeError, "the name of a room must be a str, not 1"),
        ("", "x", ValueError, "the name of a room must not be empty"),
        ("\ud800", "x", UnicodeEncodeError, "surrogates not allowed"),
        ("chat", 1, TypeError, "a message must be str or bytes, not int"),
        ("chat", "ä" * 6, ValueError, "a message must have at most 10 bytes, not 12"),
        ("chat", bytes(11), ValueError, "a message must have at most 10 bytes, not 11"),
        ("chat", "\ud800", UnicodeEncodeError, "surrogates not allowed"),
    ],
)
async def test_what_is_published_is_checked(
    name: Any, message: Any, error: type[Exception], text: str, autojump_clock: MockClock
) -> None:
    async with open_rooms(max_message_size=10) as rooms:
        with pytest.raises(error, match=text):
            await rooms.publish(name, message)
        assert rooms.statistics().messages_published == 0
        await rooms.publish("chat", "ä" * 5)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"after": "x"}, TypeError, "after must be a Position or None, not 'x'"),
        ({"who": 1}, TypeError, "who must be a str or None, not 1"),
        ({"who": "\ud800"}, UnicodeEncodeError, "surrogates not allowed"),  # for a broker it is bytes
    ],
)
async def test_what_joins_is_checked(
    options: Any, error: type[Exception], text: str, autojump_clock: MockClock
) -> None:
    async with open_rooms() as rooms:
        with pytest.raises(error, match=text):
            async with rooms.join("chat", **options):
                raise AssertionError
        with pytest.raises(ValueError, match="must not be empty"):
            await rooms.who("")
        assert rooms.statistics().rooms == 0


async def test_a_connection_is_a_member_once(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    async with open_rooms() as rooms:
        client, server = open_memory_pair(nursery)
        async with rooms.join("chat", server) as room, rooms.join("other", server):
            with pytest.raises(ValueError, match="is a member of 'chat' already"):
                async with rooms.join("chat", server):
                    raise AssertionError
            await room.publish("once")
            await rooms.publish("other", "too")
            assert [await client.receive(), await client.receive()] == ["once", "too"]
            with pytest.raises(ValueError, match="max_buffer_size must be at least 1, not 0"):
                room.open_channel(0)
            with pytest.raises(TypeError, match="max_buffer_size must be an int, not None"):
                room.open_channel(None)  # type: ignore[arg-type]
            assert re.fullmatch(r"<Room 'chat' at [0-9a-f]{16}\.1>", repr(room))
            assert repr(rooms).startswith("<Rooms: RoomsStatistics(rooms=2, members=2, messages_published=2,")
    nursery.cancel_scope.cancel()


def test_the_errors_can_be_copied() -> None:
    for error in (Missed("a"), RoomsUnavailable("a")):
        for same in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - ours
            assert (type(same), str(same)) == (type(error), str(error))
    assert issubclass(Missed, LookupError)
    assert issubclass(RoomsUnavailable, trio.BrokenResourceError)


def test_the_package_does_not_import_what_only_an_extra_brings() -> None:
    code = "import sys, trio_pyjo_ws; assert 'coredis' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - ours


async def test_a_url_is_for_the_broker_of_redis(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broker(MemoryBroker):
        def __init__(self, url: str, audiences: Any, history: int, keep: float, lease: float) -> None:
            super().__init__(audiences, history, keep)
            given.append((url, history, keep, lease))

    given: list[Any] = []
    module = SimpleNamespace(RedisBroker=Broker)
    monkeypatch.setitem(sys.modules, "trio_pyjo_ws.adapters.redis", module)  # type: ignore[misc]
    async with open_rooms("redis://localhost", history=5, lease=7) as rooms:
        await rooms.publish("chat", "Hello")
    assert given == [("redis://localhost", 5, 300, 7)]


async def test_without_the_extra_the_error_names_it(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("coredis", "coredis.exceptions", "coredis.pool"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "trio_pyjo_ws.adapters.redis", raising=False)
    with pytest.raises(ImportError, match=r"coredis is missing: pip install 'trio-pyjo-ws\[redis\]'"):
        async with open_rooms("redis://localhost"):
            raise AssertionError


# A member comes from a process that was further than this one is


async def test_a_member_that_is_ahead_of_this_process_gets_nothing_twice(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_rooms(history=10) as rooms:
        client, server = open_memory_pair(nursery)
        async with rooms.join("chat") as room:
            audience = room._audience
            late = [await room.publish(str(number)) for number in range(1, 6)]
            audience.delivered = late[1]

            async def catch_up() -> None:
                for position in late[2:]:
                    await trio.sleep(1)
                    audience._begin(audience_event(position))

            nursery.start_soon(catch_up)
            async with rooms.join("chat", server, after=late[3]):
                assert trio.current_time() > 1.5
                await room.publish("6")
                assert [await client.receive(), await client.receive()] == ["5", "6"]
    nursery.cancel_scope.cancel()


def audience_event(position: Position) -> Any:
    return Event(position, str(position.number))


async def test_a_member_that_is_ahead_waits_no_longer_than_for_the_broker(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with open_rooms(history=10) as rooms:
        _, server = open_memory_pair(nursery)
        async with rooms.join("chat") as room:
            last = await room.publish("x")
            room._audience.delivered = Position(last.epoch, 0)
            # What the broker has, this process has not.
            room._audience.queues.clear()
            began = trio.current_time()
            with pytest.raises(RoomsUnavailable, match=r"has not sent the message at .* within 5 seconds"):
                async with rooms.join("chat", server, after=last):
                    raise AssertionError
            assert trio.current_time() - began == 5
    nursery.cancel_scope.cancel()


async def test_a_member_that_is_slower_than_the_room_is_closed_while_it_catches_up(
    autojump_clock: MockClock, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "MAX_BACKLOG", 5)
    async with open_rooms(history=5) as rooms:
        client, server = open_memory_pair(nursery, max_queue=1, write_limit=1)
        first = await rooms.publish("chat", bytes(200_000))
        for _ in range(3):
            await rooms.publish("chat", bytes(200_000))
        caught: list[Missed] = []

        async def join() -> None:
            try:
                async with rooms.join("chat", server, after=first):
                    raise AssertionError
            except Missed as exc:
                caught.append(exc)

        nursery.start_soon(join)
        for number in range(20):
            await rooms.publish("chat", str(number))
        assert (await read_to_end(client))[1] == "connection closed with 1013 (too slow: 10 messages waited)"
        assert [str(exc) for exc in caught] == ["too slow: 10 messages waited"]
    nursery.cancel_scope.cancel()


async def test_a_reader_may_wait_and_the_channel_be_closed_meanwhile(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    async with open_rooms() as rooms, rooms.join("chat") as room:
        events = room.open_channel()

        async def read(expected: partial[Any]) -> None:
            with expected():
                await events.receive()

        nursery.start_soon(read, partial(pytest.raises, trio.ClosedResourceError))
        await trio.sleep(1)
        await events.aclose()
