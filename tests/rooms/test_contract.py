"""What rooms promise, whichever broker they have: every message, in one order, from the join on; or the end."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from trio_pyjo_ws import Close, ConnectionClosed, Event, Missed, Position, open_rooms
from trio_pyjo_ws.rooms import audience as audiences
from trio_pyjo_ws.testing import Faults, FaultyStream, open_memory_pair

from ..cancelling import CancelAt, at_each_pause
from .reading import FOREVER, read_to_end, receive

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from trio_pyjo_ws import Rooms, Transaction

pytestmark = pytest.mark.usefixtures("broker")

# Delivery


async def test_all_members_get_every_message_the_senders_own_too(
    clock: MockClock, url: str | None, nursery: trio.Nursery
) -> None:
    async with open_rooms(url) as rooms:
        (one, one_peer), (two, two_peer) = open_memory_pair(nursery), open_memory_pair(nursery)
        async with rooms.join("chat", one_peer) as room, rooms.join("chat", two_peer):
            position = await room.publish("text")
            await rooms.publish("chat", b"bytes")
            await rooms.publish("chat", bytearray(b"array"))
            await rooms.publish("other", "for another room")
            await rooms.publish("chat", memoryview("späße".encode()))
            expected = ["text", b"bytes", b"array", "späße".encode()]
            assert await receive(one, 4) == await receive(two, 4) == expected
            assert room.name == "chat"
            assert room.position.number == position.number + 3
            assert room.position.epoch == position.epoch
            assert rooms.statistics()[:5] == (1, 2, 5, 8, 0)
        await rooms.publish("chat", "nobody is there")
        assert rooms.statistics()[:5] == (0, 0, 6, 8, 0)
    nursery.cancel_scope.cancel()


async def test_a_handler_publishes_what_its_client_sends(
    clock: MockClock, url: str | None, nursery: trio.Nursery
) -> None:
    async with open_rooms(url) as rooms:

        async def chat(ws: Transaction) -> None:
            async with rooms.join("chat", ws) as room:
                ready.send_nowait(None)
                async for message in ws:
                    await room.publish(message)

        ready, joined = trio.open_memory_channel[None](10)
        pairs = [open_memory_pair(nursery) for _ in range(5)]
        for _, server in pairs:
            nursery.start_soon(chat, server)
        for _ in pairs:
            await joined.receive()
        for index, (client, _) in enumerate(pairs):
            for number in range(20):
                await client.send(f"{index} {number}")
        received = [await receive(client, 100) for client, _ in pairs]
        assert sorted(received[0]) == sorted(f"{index} {number}" for index in range(5) for number in range(20))
        assert all(one == received[0] for one in received)
        nursery.cancel_scope.cancel()


async def test_a_member_gets_what_is_published_from_its_join_to_its_leave(
    clock: MockClock, url: str | None, nursery: trio.Nursery
) -> None:
    async with open_rooms(url) as rooms:
        client, server = open_memory_pair(nursery)
        await rooms.publish("chat", "before")
        async with rooms.join("chat", server):
            await rooms.publish("chat", "meanwhile")
            assert await receive(client, 1) == ["meanwhile"]
        await rooms.publish("chat", "after")
        async with rooms.join("chat", server):
            await rooms.publish("chat", "again")
            assert await receive(client, 1) == ["again"]
    nursery.cancel_scope.cancel()


async def test_positions_count_and_are_one_order(clock: MockClock, url: str | None) -> None:
    async with open_rooms(url) as rooms:
        positions: list[Position] = []

        async def publish() -> None:
            positions.extend([await rooms.publish("chat", "x") for _ in range(10)])

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(publish)
        assert sorted(position.number for position in positions) == list(range(1, 101))
        assert len({position.epoch for position in positions}) == 1


async def test_two_publishers_rooms_are_apart(clock: MockClock, url: str | None, nursery: trio.Nursery) -> None:
    async with open_rooms(url) as rooms, AsyncExitStack() as stack:
        clients = []
        names = ["a", "b", "{a}", "a}:meta", "ä ö", "a:b"]
        for name in names:
            client, server = open_memory_pair(nursery)
            await stack.enter_async_context(rooms.join(name, server))
            clients.append(client)
        for name in names:
            await rooms.publish(name, name)
        for name, client in zip(names, clients, strict=True):
            assert await receive(client, 1) == [name]
            assert client.statistics().messages_waiting == 0
    nursery.cancel_scope.cancel()


# The slow, and the many


def open_slow_pair(nursery: trio.Nursery) -> tuple[Transaction, Transaction, FaultyStream]:
    """A client, its transaction at the server, and what the server's bytes stall in after some 20,000 of them."""
    ours, theirs = trio.testing.memory_stream_pair()
    stalled = FaultyStream(theirs, send=Faults(stall_at=20_000))
    client, server = open_memory_pair(nursery, streams=(ours, stalled), write_limit=1000)
    return client, server, stalled


async def test_a_slow_member_is_closed_and_holds_nobody_up(
    clock: MockClock, url: str | None, nursery: trio.Nursery
) -> None:
    async with open_rooms(url, code=1008) as rooms:
        slow, slow_peer, stalled = open_slow_pair(nursery)
        quick, quick_peer = open_memory_pair(nursery)
        async with rooms.join("chat", slow_peer), rooms.join("chat", quick_peer):
            for number in range(100):
                message = f"{number} {'x' * 10_000}"
                await rooms.publish("chat", message)
                assert await receive(quick, 1) == [message]
            stalled.sending.release()
            received, end = await read_to_end(slow)
            assert [int(message.split()[0]) for message in received] == list(range(len(received)))
            assert 0 < len(received) < 5
            assert end == "connection closed with 1008 (too slow)"
    nursery.cancel_scope.cancel()


async def test_a_slow_member_may_miss_messages_if_that_was_asked_for(
    clock: MockClock, url: str | None, nursery: trio.Nursery
) -> None:
    async with open_rooms(url, slow="drop-message") as rooms:
        slow, slow_peer, stalled = open_slow_pair(nursery)
        quick, quick_peer = open_memory_pair(nursery)
        async with rooms.join("chat", slow_peer), rooms.join("chat", quick_peer):
            for _ in range(20):
                await rooms.publish("chat", "x" * 10_000)
                await receive(quick, 1)
            stalled.sending.release()
            delivered = rooms.statistics().messages_delivered - 20
            assert 0 < delivered < 5
            await receive(slow, delivered)
            await rooms.publish("chat", "quick again")
            assert await receive(slow, 1) == ["quick again"]
    nursery.cancel_scope.cancel()


async def test_many_members_get_the_same_order_while_some_come_and_go(
    clock: MockClock, url: str | None, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audiences, "AT_ONCE", 5)
    async with open_rooms(url) as rooms, AsyncExitStack() as stack:
        pairs = [open_memory_pair(nursery) for _ in range(40)]
        for _, server in pairs[:20]:
            await stack.enter_async_context(rooms.join("chat", server))

        async def publish(name: str) -> None:
            for number in range(25):
                await rooms.publish("chat", f"{name} {number}")

        async with trio.open_nursery() as publishers:
            for name in "abcd":
                publishers.start_soon(publish, name)
            for _, server in pairs[20:]:
                await stack.enter_async_context(rooms.join("chat", server))
        await rooms.publish("chat", "the end")
        whole = await receive(pairs[0][0], 101)
        assert whole[-1] == "the end"
        assert len(set(whole)) == 101
        for client, _ in pairs[1:20]:
            assert await receive(client, 101) == whole
        for client, _ in pairs[20:]:
            received = await receive(client, 1)
            while received[-1] != "the end":
                received += await receive(client, 1)
            assert received == whole[-len(received) :]
    nursery.cancel_scope.cancel()


# Joining again


async def test_a_member_that_comes_back_gets_what_it_has_missed(
    clock: MockClock, url: str | None, nursery: trio.Nursery
) -> None:
    async with open_rooms(url, history=100) as rooms:
        client, server = open_memory_pair(nursery)
        positions = [await rooms.publish("chat", str(number)) for number in range(80)]
        after = Position.parse(str(positions[4]))
        async with rooms.join("chat", server, after=after) as room:
            assert room.position == positions[-1]
            await room.publish("live")
            assert await receive(client, 76) == [*map(str, range(5, 80)), "live"]
        async with rooms.join("chat", server, after=room.position):
            await rooms.publish("chat", "nothing was missed")
            assert await receive(client, 1) == ["nothing was missed"]
    nursery.cancel_scope.cancel()


async def test_what_is_published_while_a_member_catches_up_comes_behind_it(
    clock: MockClock, url: str | None, nursery: trio.Nursery
) -> None:
    async with open_rooms(url, history=100) as rooms:
        client, server = open_memory_pair(nursery, write_limit=5000, max_queue=1)
        after = await rooms.publish("chat", "0")
        for number in range(1, 50):
            await rooms.publish("chat", f"{number} {'x' * 1000}")

        async def member() -> None:
            async with rooms.join("chat", server, after=after):
                joined.set()
                await trio.sleep_forever()

        async def publish() -> None:
            for number in range(50, 100):
                await rooms.publish("chat", str(number))

        joined = trio.Event()
        nursery.start_soon(member)
        nursery.start_soon(publish)
        received = await receive(client, 99)
        assert [int(message.split()[0]) for message in received] == list(range(1, 100))
        await joined.wait()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("history", [0, 5])
async def test_what_is_not_kept_is_missed_and_nothing_is_joined(
    history: int, clock: MockClock, url: str | None, nursery: trio.Nursery
) -> None:
    async with open_rooms(url, history=history) as rooms:
        client, server = open_memory_pair(nursery)
        positions = [await rooms.publish("chat", str(number)) for number in range(20)]
        last = positions[-1]
        wrong = [positions[18 - history], Position("0" * 16, last.number), Position(last.epoch, last.number + 1)]
        for after in wrong:
            with pytest.raises(Missed, match=f"not all messages after {after} are kept"):
                async with rooms.join("chat", server, after=after, who="anna"):
                    raise AssertionError
            assert rooms.statistics()[:2] == (0, 0)
            assert await rooms.who("chat") == set()
        async with rooms.join("chat", server, after=positions[19 - history]):
            await rooms.publish("chat", "live")
            assert (await receive(client, history + 1))[-1] == "live"
    nursery.cancel_scope.cancel()


# Channels


async def test_a_channel_has_the_events_with_their_positions(
    clock: MockClock, url: str | None, nursery: trio.Nursery
) -> None:
    async with open_rooms(url, history=10) as rooms:
        first = await rooms.publish("chat", "missed")
        async with rooms.join("chat", after=Position(first.epoch, 0)) as room:
            second = await room.publish("since the join")
            async with room.open_channel(2) as events:
                with trio.fail_after(FOREVER):
                    assert await events.receive() == Event(first, "missed")
                    assert await events.receive() == (second, "since the join")
                    third = await room.publish(b"live")
                    assert await events.receive() == Event(third, b"live")
                    async with room.open_channel() as more:
                        fourth = await room.publish("to both")
                        assert await events.receive() == await more.receive() == Event(fourth, "to both")
        with pytest.raises(trio.ClosedResourceError):
            await events.receive()
    nursery.cancel_scope.cancel()


async def test_a_channel_ends_when_the_room_is_left(clock: MockClock, url: str | None) -> None:
    async with open_rooms(url) as rooms:
        async with rooms.join("chat") as room:
            events, witness = room.open_channel(), room.open_channel()
            position = await room.publish("last")
            assert await witness.receive() == (position, "last")
        assert [event async for event in events] == [Event(position, "last")]


async def test_a_channel_whose_reader_is_slow_says_so(clock: MockClock, url: str | None) -> None:
    async with open_rooms(url) as rooms, rooms.join("chat") as room:
        events, witness = room.open_channel(3), room.open_channel(5)
        for number in range(5):
            await room.publish(str(number))
        assert [(await witness.receive()).message for _ in range(5)] == ["0", "1", "2", "3", "4"]
        assert [(await events.receive()).message for _ in range(3)] == ["0", "1", "2"]
        for _ in range(2):
            with pytest.raises(Missed, match="too slow: 3 messages waited"):
                await events.receive()


# Presence


async def test_who_is_present(clock: MockClock, url: str | None, nursery: trio.Nursery) -> None:
    async with open_rooms(url) as rooms, open_rooms(url) as more:
        assert await rooms.who("chat") == set()
        async with AsyncExitStack() as stack:
            for who in ("anna", "bert", "anna", "ä\n"):
                _, server = open_memory_pair(nursery)
                await stack.enter_async_context(rooms.join("chat", server, who=who))
            _, server = open_memory_pair(nursery)
            await stack.enter_async_context(rooms.join("other", server, who="carl"))
            async with rooms.join("chat", who="anna"):
                assert await rooms.who("chat") == {"anna", "bert", "ä\n"}
                if url is not None:  # The rooms of one process are its own.
                    assert await more.who("chat") == {"anna", "bert", "ä\n"}
            assert await rooms.who("chat") == {"anna", "bert", "ä\n"}
            assert await rooms.who("other") == {"carl"}
        assert await rooms.who("chat") == set()
    nursery.cancel_scope.cancel()


# Ends and cancellation


async def test_at_the_end_the_members_are_closed_and_nothing_more_is_possible(
    clock: MockClock, url: str | None, nursery: trio.Nursery
) -> None:
    client, server = open_memory_pair(nursery)
    async with AsyncExitStack() as stack:
        async with open_rooms(url) as rooms:
            room = await stack.enter_async_context(rooms.join("chat", server, who="anna"))
            events = room.open_channel()
        with pytest.raises(Missed, match="the rooms are closed"):
            await events.receive()
        with pytest.raises(trio.EndOfChannel):
            await client.receive()
        assert client.closed == Close(1001, "the rooms are closed")
        for call in (rooms.publish("chat", "x"), rooms.who("chat"), room.publish("x")):
            with pytest.raises(trio.ClosedResourceError, match="these rooms are closed"):
                await call
        with pytest.raises(trio.ClosedResourceError):
            await stack.enter_async_context(rooms.join("chat", server))
    nursery.cancel_scope.cancel()


async def test_an_exception_of_the_block_comes_out_as_it_is(clock: MockClock, url: str | None) -> None:
    raised = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with open_rooms(url) as rooms, rooms.join("chat", who="anna"):
            raise raised
    assert caught.value is raised


async def test_a_member_whose_connection_has_ended_is_no_trouble(
    clock: MockClock, url: str | None, nursery: trio.Nursery
) -> None:
    async with open_rooms(url, history=5) as rooms:
        (one, one_peer), (two, two_peer) = open_memory_pair(nursery), open_memory_pair(nursery)
        async with rooms.join("chat", one_peer), rooms.join("chat", two_peer):
            await one.aclose()
            after = await rooms.publish("chat", "x")
            assert await receive(two, 1) == ["x"]
            await rooms.publish("chat", "y")
        with pytest.raises((ConnectionClosed, trio.ClosedResourceError)):
            async with rooms.join("chat", one_peer, after=after):
                raise AssertionError
        assert rooms.statistics()[:2] == (0, 0)
    nursery.cancel_scope.cancel()


async def run_cancelled(step: int, run: Callable[[], Awaitable[Any]]) -> bool:
    """As that of tests.cancelling, over a broker that takes real time."""
    instrument = CancelAt(step)
    trio.lowlevel.add_instrument(instrument)
    try:
        with instrument.scope:
            await run()
    finally:
        trio.lowlevel.remove_instrument(instrument)
    return instrument.cancelled_at is None


async def test_a_join_that_is_cancelled_leaves_nothing_and_the_others_miss_nothing(
    clock: MockClock, url: str | None, nursery: trio.Nursery
) -> None:
    async with open_rooms(url, history=1000) as rooms:
        quick, quick_peer = open_memory_pair(nursery)
        after = await rooms.publish("chat", "first")
        await rooms.publish("chat", "second")
        async with rooms.join("chat", quick_peer):

            async def attempt(step: int) -> bool:
                async def join() -> None:
                    async with rooms.join("chat", server, after=after, who="anna"):
                        pass
                    async with rooms.join("another", server, who="anna"):
                        pass

                _, server = open_memory_pair(nursery)
                done = await run_cancelled(step, join)
                assert rooms.statistics()[:2] == (1, 1)
                await rooms.publish("chat", f"step {step}")
                assert await receive(quick, 1) == [f"step {step}"]
                assert await rooms.who("chat") == await rooms.who("another") == set()
                return done

            assert await at_each_pause(attempt) > 2
    nursery.cancel_scope.cancel()


async def test_a_publish_that_is_cancelled_is_published_whole_or_not_at_all(
    clock: MockClock, url: str | None, nursery: trio.Nursery
) -> None:
    async with open_rooms(url) as rooms:
        client, server = open_memory_pair(nursery)
        async with rooms.join("chat", server):

            async def attempt(step: int) -> bool:
                done = await run_cancelled(step, lambda: rooms.publish("chat", "x" * 1000))
                await rooms.publish("chat", f"end {step}")
                received = await receive(client, 1)
                if received == ["x" * 1000]:
                    received = await receive(client, 1)
                else:
                    assert not done
                assert received == [f"end {step}"]
                return done

            assert await at_each_pause(attempt) > 1
            await wait_all_tasks_blocked()
    nursery.cancel_scope.cancel()


async def test_the_rooms_of_a_cancelled_block_end_at_once(clock: MockClock, url: str | None) -> None:
    rooms: Rooms | None = None
    with trio.CancelScope() as scope:
        async with open_rooms(url) as rooms, rooms.join("chat", who="anna"):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert rooms is not None
    async with open_rooms(url) as others:
        assert await others.who("chat") == set()
