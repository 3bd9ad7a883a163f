"""What is sent arrives whole and in order, or the connection is over."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_pyjo_ws import ConnectionClosed
from trio_pyjo_ws.wire.frames import Opcode
from trio_pyjo_ws.wire.protocol import Protocol

from ..peer import (
    Peer,
    connected,
    control,
    limit_writes,
    stream_connection,
    task_names,
    writes,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from trio_pyjo_ws import Transaction

# Writing


async def test_a_message_of_any_size_arrives_by_short_writes(autojump_clock: MockClock) -> None:
    async with connected("client") as (ws, peer, _):
        limit_writes(ws, 7)
        await ws.send(b"x" * 300)
        assert not ws.is_writing
        await ws.send("short")
        await ws.drain()
        assert peer.read_messages() == [b"x" * 300, b"short"]
        assert max(writes(ws)) == 7


@pytest.mark.parametrize("limit", [1, 2, 4, 6, 9_999, 50_006, 50_009, None])
async def test_a_large_payload_goes_behind_its_head_without_being_copied(
    autojump_clock: MockClock, limit: int | None
) -> None:
    async with connected("server") as (ws, peer, nursery):
        got: list[bytes] = []
        nursery.start_soon(collect, peer, got)
        limit_writes(ws, limit)
        payload = b"x" * 50_000
        ws.send_nowait(b"")
        ws.send_nowait(payload)
        ws.send_nowait(b"behind")
        assert ws.__connection__.protocol.outgoing[2] is payload
        await ws.drain()
        await wait_all_tasks_blocked()
        assert got == [b"", payload, b"behind"]


async def test_the_first_message_of_a_turn_is_written_at_once_and_the_rest_together(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        for number in range(10):
            await ws.send(bytes([number]))
        assert writes(ws) == [3]
        await wait_all_tasks_blocked()
        assert writes(ws) == [3, 27]
        await ws.send(b"in a later turn")
        assert len(writes(ws)) == 3
        assert len(peer.read_messages()) == 11


async def answer(peer: Peer) -> None:
    await wait_all_tasks_blocked()
    peer.send("answer")


async def test_a_request_is_written_at_once_each_time_that_its_answer_was_waited_for(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        for number in range(1, 4):
            await ws.send("request")
            assert len(writes(ws)) == number
            nursery.start_soon(answer, peer)
            assert await ws.receive() == "answer"


async def test_senders_take_turns_and_keep_their_order(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        limit_writes(ws, 1000)
        rounds = 10

        async def send(name: int) -> None:
            for number in range(rounds):
                await ws.send(bytes([name, number]) * 700)

        messages: list[bytes] = []
        nursery.start_soon(collect, peer, messages)
        async with trio.open_nursery() as senders:
            for name in range(5):
                senders.start_soon(send, name)
        await wait_all_tasks_blocked()
        assert len(messages) == 5 * rounds
        assert all(message == message[:2] * 700 for message in messages)
        for name in range(5):
            assert [message[1] for message in messages if message[0] == name] == list(range(rounds))
        assert "writer" not in task_names(nursery)


async def collect(peer: Peer, into: list[bytes]) -> None:
    while not peer.gone:
        await trio.lowlevel.wait_readable(peer.sock)
        into += peer.read_messages()


async def test_a_sender_cancelled_in_the_middle_of_50_mb_leaves_no_torn_frame(autojump_clock: MockClock) -> None:
    big = bytes(50_000_000)
    async with connected() as (ws, peer, nursery):
        with trio.move_on_after(1) as scope:
            await ws.send(big)
        assert scope.cancelled_caught
        assert 0 < ws.__connection__.outbox.sent < len(big)
        with pytest.raises(trio.WouldBlock):
            ws.send_nowait("too early")
        got: list[bytes] = []
        nursery.start_soon(collect, peer, got)
        await ws.send("next")
        await wait_all_tasks_blocked()
        assert got == [big, b"next"]
        assert "writer" not in task_names(nursery)


async def test_the_first_byte_gone_the_rest_follows_though_the_sender_was_one_of_several(
    autojump_clock: MockClock,
) -> None:
    async with connected() as (ws, peer, nursery):
        async with trio.open_nursery() as senders:
            for number in range(4):
                senders.start_soon(ws.send, bytes([number]) * 1_000_000)
            await wait_all_tasks_blocked()
            senders.cancel_scope.cancel()
        got: list[bytes] = []
        nursery.start_soon(collect, peer, got)
        await ws.send("next")
        await ws.drain()
        await wait_all_tasks_blocked()
        # The other three had queued nothing: the limit was reached.
        assert got == [got[0][:1] * 1_000_000, b"next"]


async def test_send_nowait_goes_on_beyond_the_write_limit_while_the_kernel_takes_it(autojump_clock: MockClock) -> None:
    async with connected(write_limit=100) as (ws, peer, _):
        for number in range(10):
            ws.send_nowait(bytes([number]) * 58)
        assert writes(ws) == [120] * 5
        await wait_all_tasks_blocked()
        assert peer.read_messages() == [bytes([number]) * 58 for number in range(10)]


async def test_a_callback_may_answer_with_more_than_the_write_limit(autojump_clock: MockClock) -> None:
    async with connected(write_limit=100) as (ws, peer, _):

        @ws.on
        def message(ws: Transaction, message: str | bytes) -> None:
            ws.send_nowait(message)

        peer.send(*["x" * 60] * 10)
        await trio.sleep(1)
        assert peer.read_messages() == [b"x" * 60] * 10


async def test_send_waits_above_the_write_limit_and_queues_whole_frames(autojump_clock: MockClock) -> None:
    async with connected(write_limit=100) as (ws, peer, nursery):
        limit_writes(ws, 0)
        ws.send_nowait(bytes(60))
        ws.send_nowait(bytes(60))
        with pytest.raises(trio.WouldBlock):
            ws.send_nowait(b"")
        await wait_all_tasks_blocked()
        nursery.start_soon(ws.send, b"waits")
        nursery.start_soon(ws.send, b"waits too")
        await wait_all_tasks_blocked()
        assert ws.statistics().bytes_unsent == 124
        limit_writes(ws, 24)
        await ws.drain()
        await wait_all_tasks_blocked()
        assert sorted(len(message) for message in peer.read_messages()) == [5, 9, 60, 60]


async def test_drain_waits_for_all_that_was_queued_and_for_no_more(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, nursery):
        await ws.drain()
        limit_writes(ws, 0)
        ws.send_nowait(b"first")
        drained = trio.Event()

        async def drain() -> None:
            await ws.drain()
            drained.set()

        nursery.start_soon(drain)
        await wait_all_tasks_blocked()
        ws.send_nowait(b"second")
        limit_writes(ws, 7)
        await drained.wait()
        assert peer.read_messages()[0] == b"first"


async def test_callbacks_fire_when_what_was_queued_has_been_handed_over(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        told: list[tuple[str, int]] = []

        def note(name: str) -> Callable[[object], None]:
            return lambda _: told.append((name, sum(writes(ws))))

        await ws.send("one", cb=note("one"))
        assert told == [("one", 5)]
        limit_writes(ws, 4)
        ws.send_nowait("two", cb=note("two"))
        ws.send_nowait("three", cb=note("three"))
        ws.on("drain", note("drain"))
        assert len(told) == 1
        await ws.drain()
        assert told == [("one", 5), ("two", 13), ("three", 17), ("drain", 17)]
        limit_writes(ws, None)
        await ws.send("four")
        await ws.drain()
        assert told[-1] == ("drain", 23)
        ws.unsubscribe("drain")
        await ws.send("five")
        await ws.send("six")
        await ws.drain()
        assert len(told) == 5
        assert peer.read_messages() == [b"one", b"two", b"three", b"four", b"five", b"six"]


async def test_what_is_sent_to_a_peer_that_is_gone_raises_at_once(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.sock.close()
        with pytest.raises(ConnectionClosed, match="1006"):
            await ws.send("Hello")
        with pytest.raises(ConnectionClosed, match="1006"):
            await ws.send("Hello")


async def test_drain_raises_where_what_was_queued_is_lost(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        ws.send_nowait("Hello")
        peer.sock.close()
        ws.__connection__.housekeeper._corked.clear()
        with pytest.raises(ConnectionClosed, match="1006"):
            await ws.drain()


@pytest.mark.parametrize("size", [10, 10_000_000])
async def test_a_write_that_fails_still_finds_the_close_that_tells_why(size: int, autojump_clock: MockClock) -> None:
    async with connected("client") as (ws, peer, nursery):
        peer.send("before", control(Opcode.CLOSE, struct.pack("!H", 1009) + b"too big"))
        limit_writes(ws, 4)
        with pytest.raises(ConnectionClosed) as caught:  # noqa: PT012
            nursery.start_soon(close, peer)
            for _number in range(size):
                await ws.send(bytes(size))
        assert caught.value.close == (1009, "too big")
        assert await ws.receive() == "before"
        with pytest.raises(ConnectionClosed, match="1009"):
            await ws.receive()


async def test_what_came_before_a_failed_write_is_readable_beyond_the_queue_bound(autojump_clock: MockClock) -> None:
    async with connected(max_queue=10, max_queue_bytes=100) as (ws, peer, _):
        peer.send("first")
        await ws.receive()
        peer.send(*[f"{number}" for number in range(95)])
        peer.sock.close()
        with pytest.raises(ConnectionClosed):
            await ws.send("Hello")
        await trio.sleep(3600)
        assert ws.statistics().messages_waiting == 10
        assert [message async for message in _until_broken(ws)] == [f"{number}" for number in range(95)]


async def test_what_a_lost_peer_has_sent_is_readable_to_its_end(autojump_clock: MockClock) -> None:
    async with connected() as (ws, peer, _):
        peer.send("one", "two")
        peer.sock.shutdown(socket.SHUT_WR)
        peer.sock.close()
        with pytest.raises(ConnectionClosed):
            await ws.send("Hello")
        assert [message async for message in _until_broken(ws)] == ["one", "two"]


async def close(peer: Peer) -> None:
    peer.sock.close()


async def _until_broken(ws: Transaction) -> Any:
    try:
        async for message in ws:
            yield message
    except ConnectionClosed:
        pass


async def test_over_a_stream_a_sender_is_cancelled_without_harm(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    release = trio.Event()
    pump = ours.send_stream.send_all_hook

    async def wait_and_pump() -> None:
        await release.wait()
        await pump()

    ours.send_stream.send_all_hook = wait_and_pump
    async with trio.open_nursery() as nursery:
        ws = stream_connection(nursery, ours)
        with trio.move_on_after(1) as scope:
            await ws.send("Hello")
        assert scope.cancelled_caught
        release.set()
        await ws.send("World")
        data = bytes(await theirs.receive_some())
        assert Protocol("client").client_read(data) == ["Hello", "World"]
        nursery.cancel_scope.cancel()


async def test_a_stream_that_breaks_ends_the_connection(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        ours, theirs = memory_stream_pair()
        ws = stream_connection(nursery, ours)
        await theirs.aclose()
        with pytest.raises(ConnectionClosed, match="1006"):
            await ws.send("Hello")
        await wait_all_tasks_blocked()
        assert ws.is_finished


async def test_a_stream_that_fails_in_its_own_way_ends_the_connection_and_is_heard(autojump_clock: MockClock) -> None:
    ours, _theirs = memory_stream_pair()

    async def fail() -> None:
        raise RuntimeError("no stream does this")

    ours.send_stream.send_all_hook = fail
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="no stream does this"), flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            ws = stream_connection(nursery, ours)
            with suppress(ConnectionClosed):  # or Cancelled, whichever comes first
                await ws.send("Hello")
    assert ws.is_finished


async def test_a_stream_whose_send_all_is_cancelled_is_closed(autojump_clock: MockClock) -> None:
    ours, _theirs = memory_stream_pair()
    ours.send_stream.send_all_hook = trio.sleep_forever
    async with trio.open_nursery() as nursery:
        ws = stream_connection(nursery, ours)
        ws.send_nowait("Hello")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert ws.is_finished
    with pytest.raises(trio.ClosedResourceError):
        await ours.send_all(b"")


async def test_an_error_of_the_transport_leaves_no_writer_flag_behind(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with connected() as (ws, peer, _):
        limit_writes(ws, 2)

        async def fail(_: object) -> int:
            raise RuntimeError("once")

        with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="once"):  # noqa: PT012
            patched.setattr(ws.__connection__.transport, "send_some", fail)
            ws._writer_runs = True  # so that nobody else goes on with it
            await ws.send("Hello")
        ws._writer_runs = False
        await ws.drain()
        assert peer.read_messages() == [b"Hello"]
