"""Streams that fault on purpose, and only as they are told to."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from trio_pyjo_ws import ConnectionClosed, HandshakeError, connect
from trio_pyjo_ws.testing import Faults, FaultyStream, open_memory_pair, serve_memory

if TYPE_CHECKING:
    from trio.testing import MockClock

    from trio_pyjo_ws import Transaction


def pair(send: Faults | None = None, receive: Faults | None = None) -> tuple[FaultyStream, Any]:
    """A faulty stream, and the other end of what is beneath it."""
    ours, theirs = trio.testing.memory_stream_pair()
    return FaultyStream(ours, send=send, receive=receive), theirs


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(data) async for data in stream])


async def test_without_faults_it_is_a_stream_like_any_other(autojump_clock: MockClock) -> None:
    async def make() -> tuple[FaultyStream, FaultyStream]:
        ours, theirs = trio.testing.memory_stream_pair()
        return FaultyStream(ours), FaultyStream(theirs)

    await trio.testing.check_half_closeable_stream(make, None)


async def test_in_small_pieces_it_is_a_stream_like_any_other(autojump_clock: MockClock) -> None:
    async def make() -> tuple[FaultyStream, FaultyStream]:
        ours, theirs = trio.testing.memory_stream_pair()
        slow = FaultyStream(ours, send=Faults(chunk_size=4096), receive=Faults(chunk_size=4096))
        return slow, FaultyStream(theirs)

    await trio.testing.check_two_way_stream(make, None)


async def test_what_is_sent_passes_in_pieces() -> None:
    sent: list[bytes] = []
    stream, _ = pair(send=Faults(chunk_size=2))

    async def note(data: memoryview) -> None:
        sent.append(bytes(data))

    stream.stream.send_all = note  # type: ignore[assignment]
    await stream.send_all(memoryview(b"abcde"))
    assert sent == [b"ab", b"cd", b"e"]
    assert stream.sending.passed == 5


async def test_what_is_received_passes_in_pieces() -> None:
    stream, other = pair(receive=Faults(chunk_size=2))
    await other.send_all(b"abcde")
    await other.send_eof()
    assert [await stream.receive_some() for _ in range(5)] == [b"ab", b"cd", b"e", b"", b""]


async def test_the_smaller_of_both_bounds_counts() -> None:
    stream, other = pair(receive=Faults(chunk_size=2))
    await other.send_all(b"abcde")
    assert await stream.receive_some(1) == b"a"
    assert await stream.receive_some(3) == b"bc"


async def test_sending_stalls_at_a_byte_until_released(nursery: trio.Nursery) -> None:
    stream, other = pair(send=Faults(stall_at=3))
    nursery.start_soon(stream.send_all, b"abcde")
    await wait_all_tasks_blocked()
    assert stream.sending.stalled
    assert repr(stream.sending) == "<Faults: 3 bytes have passed, stalled>"
    assert await other.receive_some() == b"abc"
    stream.sending.release()
    assert await other.receive_some() == b"de"
    assert not stream.sending.stalled
    assert repr(stream.sending) == "<Faults: 5 bytes have passed>"


async def test_receiving_stalls_at_a_byte_until_released(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    stream, other = pair(receive=Faults(stall_at=3))
    await other.send_all(b"abcde")
    assert await stream.receive_some() == b"abc"
    with trio.move_on_after(0.01) as scope:
        await stream.receive_some()
    assert scope.cancelled_caught
    stream.receiving.release()
    assert await stream.receive_some() == b"de"


async def test_a_stall_that_begins_while_somebody_receives_loses_nothing(nursery: trio.Nursery) -> None:
    stream, other = pair()
    received: list[bytes] = []
    scope = trio.CancelScope()

    async def receive() -> None:
        with scope:
            received.append(await stream.receive_some())

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    stream.receiving.stall()
    await other.send_all(b"abc")
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()
    assert received == []
    stream.receiving.release()
    assert await stream.receive_some() == b"abc"


async def test_whether_a_send_might_pass_is_known_after_the_stall(nursery: trio.Nursery) -> None:
    stream, _ = pair(send=Faults(stall_at=0))
    nursery.start_soon(stream.wait_send_all_might_not_block)
    await wait_all_tasks_blocked()
    assert nursery.child_tasks
    stream.sending.release()
    await wait_all_tasks_blocked()
    assert not nursery.child_tasks


async def test_a_cancelled_send_has_passed_on_what_came_before_the_stall(autojump_clock: MockClock) -> None:
    stream, other = pair(send=Faults(stall_at=2))
    with trio.move_on_after(0):
        await stream.send_all(b"abc")
    with trio.move_on_after(0.01):
        await stream.send_all(b"abc")
    await stream.aclose()
    assert await read_to_end(other) == b"ab"


async def test_receiving_ends_at_a_byte() -> None:
    stream, other = pair(receive=Faults(eof_at=3))
    await other.send_all(b"abcde")
    assert await read_to_end(stream) == b"abc"
    await stream.send_all(b"the other direction goes on")
    assert await other.receive_some() == b"the other direction goes on"


async def test_sending_ends_at_a_byte() -> None:
    stream, other = pair(send=Faults(eof_at=3))
    with pytest.raises(trio.BrokenResourceError, match="the stream was ended after 3 bytes"):
        await stream.send_all(b"abcde")
    assert await read_to_end(other) == b"abc"
    await other.send_all(b"the other direction goes on")
    assert await stream.receive_some() == b"the other direction goes on"


async def test_the_peer_meets_the_end_with_the_last_byte() -> None:
    stream, other = pair(send=Faults(eof_at=3))
    await stream.send_all(b"abc")
    assert await read_to_end(other) == b"abc"


async def test_sending_resets_at_a_byte_both_directions() -> None:
    stream, other = pair(send=Faults(reset_at=3))
    with pytest.raises(trio.BrokenResourceError, match="the connection is reset"):
        await stream.send_all(b"abcde")
    with pytest.raises(trio.BrokenResourceError, match="the connection is reset"):
        await stream.receive_some()
    assert await read_to_end(other) == b"abc"


async def test_receiving_resets_at_a_byte_both_directions() -> None:
    stream, other = pair(receive=Faults(reset_at=3))
    await other.send_all(b"abcde")
    assert await stream.receive_some() == b"abc"
    for use in (stream.receive_some, partial(stream.send_all, b"a"), stream.send_eof):
        with pytest.raises(trio.BrokenResourceError, match="the connection is reset"):
            await use()  # type: ignore[operator]


@pytest.mark.parametrize("stalled", [False, True])
async def test_a_reset_wakes_who_waits_in_the_other_direction(nursery: trio.Nursery, stalled: bool) -> None:
    stream, _ = pair(send=Faults(reset_at=1), receive=Faults(stall_at=0 if stalled else None))

    async def receive() -> None:
        with pytest.raises(trio.BrokenResourceError, match="the connection is reset"):
            await stream.receive_some()

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    await stream.send_all(b"a")
    await wait_all_tasks_blocked()
    assert not nursery.child_tasks


async def test_the_stall_comes_before_the_reset(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    stream, other = pair(receive=Faults(stall_at=2, reset_at=2))
    await other.send_all(b"abc")
    assert await stream.receive_some() == b"ab"
    with trio.move_on_after(0.01) as scope:
        await stream.receive_some()
    assert scope.cancelled_caught
    stream.receiving.release()
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()


async def test_closing_wakes_who_is_stalled(nursery: trio.Nursery) -> None:
    stream, other = pair(send=Faults(stall_at=0), receive=Faults(stall_at=0))

    async def closed(use: Any) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await use()

    nursery.start_soon(closed, partial(stream.send_all, b"a"))
    nursery.start_soon(closed, stream.receive_some)
    await wait_all_tasks_blocked()
    await stream.aclose()
    await wait_all_tasks_blocked()
    assert not nursery.child_tasks
    assert await read_to_end(other) == b""


async def test_one_task_at_a_time_in_each_direction(nursery: trio.Nursery) -> None:
    stream, _ = pair(send=Faults(stall_at=0))
    nursery.start_soon(stream.send_all, b"a")
    nursery.start_soon(stream.receive_some)
    await wait_all_tasks_blocked()
    for use in (partial(stream.send_all, b"a"), stream.receive_some):
        with pytest.raises(trio.BusyResourceError):
            await use()  # type: ignore[operator]
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"chunk_size": 0}, "chunk_size must be at least 1, not 0"),
        ({"stall_at": -1}, "stall_at must be a number of bytes, at least 0, not -1"),
        ({"eof_at": -1}, "eof_at must be"),
        ({"reset_at": -1}, "reset_at must be"),
    ],
)
def test_faults_that_cannot_be(faults: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Faults(**faults)


async def test_a_bound_that_cannot_be() -> None:
    stream, _ = pair()
    with pytest.raises(ValueError, match="max_bytes must be at least 1, not 0"):
        await stream.receive_some(0)


async def test_a_connection_survives_any_chunking(nursery: trio.Nursery) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    faulty = FaultyStream(ours, send=Faults(chunk_size=1), receive=Faults(chunk_size=1))
    client, server = open_memory_pair(nursery, streams=(faulty, theirs), compression=True)
    await client.send("from the client " * 50)
    assert await server.receive() == "from the client " * 50
    await server.send(b"from the server")
    assert await client.receive() == b"from the server"
    nursery.start_soon(client.aclose)
    with pytest.raises(trio.EndOfChannel):
        await server.receive()


@pytest.mark.parametrize("fault", ["reset_at", "eof_at"])
@pytest.mark.parametrize("direction", ["send", "receive"])
async def test_a_session_that_is_cut_at_each_byte_ends(direction: str, fault: str, autojump_clock: MockClock) -> None:
    async def echo(ws: Transaction) -> None:
        async for message in ws:
            await ws.send(message)

    async def session(faults: Faults) -> int:
        """The bytes that have passed when a session is over, one way or another."""
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_memory, echo)
            stream = FaultyStream(server.open_stream(), **{direction: faults})  # type: ignore[arg-type]
            with suppress(HandshakeError, ConnectionClosed):
                ws = await connect(nursery, "ws://test/", stream=stream)
                await ws.send("message")
                assert await ws.receive() == "message"
                await ws.finish()
            await wait_all_tasks_blocked()
            assert not server.server.connections
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()
            nursery.cancel_scope.cancel()
        return faults.passed

    whole = await session(Faults())
    for place in range(whole):
        with trio.fail_after(60):
            assert await session(Faults(**{fault: place})) == place
