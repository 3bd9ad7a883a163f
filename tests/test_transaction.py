"""The transaction: what it sends, what it receives, and what it tells about itself."""

from __future__ import annotations

import math
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_pyjo_ws import Close, ConnectionClosed, Frame, Opcode, RemoteProtocolError, Transaction, open_websocket, serve
from trio_pyjo_ws._engine.housekeeper import Housekeeper
from trio_pyjo_ws._engine.reading import GRACE
from trio_pyjo_ws._engine.tls import open_transport
from trio_pyjo_ws._engine.turn import TURN
from trio_pyjo_ws.handshake.http1 import ClientHandshake, ServerHandshake
from trio_pyjo_ws.options import Settings
from trio_pyjo_ws.testing import open_memory_pair
from trio_pyjo_ws.wire.deflate import Deflate
from trio_pyjo_ws.wire.frames import build_frame
from trio_pyjo_ws.wire.protocol import Protocol

from .peer import Turns, set_clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

Pair = tuple[Transaction, Transaction]
Wait = Any
LARGE = b"x" * 200_000  # more than the write limit


@pytest.fixture
def pair(nursery: trio.Nursery) -> Pair:
    return open_memory_pair(nursery)


@pytest.fixture
def told() -> list[Any]:
    return []


@pytest.fixture
def stalled(nursery: trio.Nursery) -> Pair:
    """A pair whose streams take nothing while the other side does not read."""
    return open_memory_pair(nursery, streams=trio.testing.lockstep_stream_pair(), ping_interval=None)


@pytest.fixture
async def sockets(nursery: trio.Nursery) -> Pair:
    streams = [trio.SocketStream(trio.socket.from_stdlib_socket(one)) for one in socket.socketpair()]
    return open_memory_pair(nursery, streams=(streams[0], streams[1]), ping_interval=None, max_websocket_size=10**6)


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> Frame:
    return Frame(fin, False, False, False, opcode, payload)


async def frames_until_close(ws: Transaction) -> list[Frame]:
    """All the frames that the peer of ``ws`` has sent, once it has closed."""
    async with ws.open_channel("frame", 1000) as channel:
        return [item async for item in channel]


class Sent:
    """What a callback given to send() was called with, and how much had been written by then."""

    def __init__(self, told: list[Any], name: object = None) -> None:
        self._told = told
        self._name = name

    def __call__(self, ws: Transaction) -> None:
        self._told.append((self._name, ws, ws.is_writing))


# Sending: all the forms


async def test_every_form_sends_its_frame(pair: Pair, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    client, server = pair
    nothing = lambda ws: None  # noqa: E731
    frames = server.open_channel("frame", 1000)
    sends: list[tuple[tuple[Any, ...], dict[str, Any], Frame]] = [
        (("Hello",), {}, frame(1, b"Hello")),
        (("",), {}, frame(1, b"")),
        ((b"Hello",), {}, frame(2, b"Hello")),
        ((bytearray(b"Hello"),), {}, frame(2, b"Hello")),
        ((memoryview(b"Hello"),), {}, frame(2, b"Hello")),
        ((), {"text": "Grüße"}, frame(1, "Grüße".encode())),
        ((), {"binary": bytearray(b"Hello")}, frame(2, b"Hello")),
        ((), {"json": {"test": [1, 2, 3]}}, frame(1, b'{"test":[1,2,3]}')),
        ((), {"json": None}, frame(1, b"null")),
        ((), {"frame": [1, 0, 0, 0, 9, b"Hello"]}, frame(9, b"Hello")),
        ((nothing, "Hello"), {}, frame(1, b"Hello")),
        ((nothing,), {"binary": b"Hello"}, frame(2, b"Hello")),
        (("Hello",), {"cb": nothing}, frame(1, b"Hello")),
        ((), {"text": "Hello", "cb": None}, frame(1, b"Hello")),
    ]
    for given, forms, expected in sends:
        await client.send(*given, **forms)
        client.send_nowait(*given, **forms)
        assert await frames.receive() == expected
        assert await frames.receive() == expected


@pytest.mark.parametrize(
    ("given", "forms", "error"),
    [
        ((), {}, TypeError),
        ((1,), {}, TypeError),
        ((None,), {}, TypeError),
        (("a", "b"), {}, TypeError),
        (("a",), {"text": "b"}, TypeError),
        ((), {"text": b"a"}, TypeError),
        ((), {"binary": "a"}, TypeError),
        ((), {"txt": "a"}, TypeError),
        (("a",), {"cb": 1}, TypeError),
        ((print,), {}, TypeError),
        ((), {"json": {1}}, TypeError),
        ((), {"json": math.nan}, ValueError),
        (("\ud800",), {}, ValueError),
        ((), {"text": "a\udfff"}, ValueError),
        ((), {"frame": [1, 0, 0, 0, 9]}, TypeError),
        ((), {"frame": [1, 0, 0, 0, 16, b""]}, ValueError),
        ((), {"frame": [1, 0, 0, 0, 1, "a"]}, TypeError),
    ],
)
@pytest.mark.parametrize("compression", [False, True])
async def test_what_cannot_be_sent_is_refused_and_nothing_is_written(
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    told: list[Any],
    given: Any,
    forms: Any,
    error: type[Exception],
    compression: bool,
) -> None:
    client, server = open_memory_pair(nursery, compression=compression)
    with pytest.raises(error):
        await client.send(*given, **forms)
    with pytest.raises(error):
        client.send_nowait(*given, **forms)
    assert not client.is_writing
    client.on("drain", told.append)
    nursery.start_soon(client.finish, 1000)
    assert await frames_until_close(server) == [frame(8, b"\x03\xe8")]
    assert told == [client]  # for the Close


async def test_fragments_and_control_frames_are_sent_as_they_are(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    await client.send(frame=[0, 0, 0, 0, Opcode.TEXT, b"Hel"])
    await client.send(frame=[1, 0, 0, 0, Opcode.PING, b"in between"])
    await client.send(frame=Frame(True, False, False, False, Opcode.CONTINUATION, b"lo"))
    assert await server.receive() == "Hello"


async def test_a_frame_that_no_rule_allows_is_sent_too(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    await client.send(frame=[1, 0, 1, 0, 3, b""])
    with pytest.raises(ConnectionClosed):
        await server.receive()
    with pytest.raises(ConnectionClosed) as caught:
        await client.receive()
    assert caught.value.close.code == 1002


async def test_a_close_frame_begins_the_closing_handshake(
    pair: Pair, autojump_clock: MockClock, told: list[Any]
) -> None:
    client, server = pair
    await server.send("unread")
    await client.send(frame=[1, 0, 0, 0, Opcode.CLOSE, b"\x0f\xa0bye"], cb=Sent(told))
    assert told == [(None, client, False)]
    for send in (client.send, client.send_nowait):
        with pytest.raises(trio.ClosedResourceError):
            await maybe(send("too late"))
    assert await client.finish() == Close(4000, "bye")
    assert server.closed == Close(4000, "bye")
    assert await client.receive() == "unread"
    with pytest.raises(trio.ClosedResourceError):
        await client.receive()


async def test_a_close_frame_tells_its_callback_though_it_is_written_at_once(sockets: Pair, told: list[Any]) -> None:
    client, server = sockets
    await client.send(Sent(told), frame=[1, 0, 0, 0, Opcode.CLOSE, b""])
    assert told == [(None, client, False)]
    with pytest.raises(trio.EndOfChannel):
        await server.receive()


async def test_what_comes_after_a_close_frame_was_sent_can_be_received(
    stalled: Pair, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client, server = stalled
    nursery.start_soon(server.send, "sent before its Close")
    client.send_nowait(frame=[1, 0, 0, 0, Opcode.CLOSE, b""])
    nursery.start_soon(server.finish)
    await trio.sleep(1)
    assert await client.receive() == "sent before its Close"
    with pytest.raises(trio.ClosedResourceError):
        await client.receive()


async def maybe(awaitable: Any) -> Any:
    return awaitable if awaitable is None else await awaitable


# Sending: callbacks, drain, back pressure


@pytest.mark.parametrize("side", [0, 1], ids=["client", "server"])
async def test_callbacks_come_after_the_write_in_order_and_leave_no_subscriber(
    stalled: Pair, nursery: trio.Nursery, autojump_clock: MockClock, told: list[Any], side: int
) -> None:
    ws, peer = stalled[side], stalled[1 - side]
    ws.send_nowait(Sent(told, 1), "a")
    ws.send_nowait(text="b", cb=Sent(told, 2))
    ws.send_nowait("c")
    nursery.start_soon(ws.send, Sent(told, 3), b"d")
    await wait_all_tasks_blocked()
    assert told == []
    assert ws.is_writing
    assert [await peer.receive() for _ in range(4)] == ["a", "b", "c", b"d"]
    await wait_all_tasks_blocked()
    assert [name for name, _, _ in told] == [1, 2, 3]
    assert all(one is ws for _, one, _ in told)
    assert not ws.is_writing
    assert not ws.has_subscribers("drain")


async def test_a_callback_does_not_wait_for_what_is_sent_after_it(
    stalled: Pair, nursery: trio.Nursery, autojump_clock: MockClock, told: list[Any]
) -> None:
    client, server = stalled
    client.send_nowait("a", cb=Sent(told, "a"))
    await wait_all_tasks_blocked()  # it is being written
    client.send_nowait("b", cb=Sent(told, "b"))
    assert await server.receive() == "a"
    await wait_all_tasks_blocked()
    assert told == [("a", client, True)]
    assert await server.receive() == "b"
    await wait_all_tasks_blocked()
    assert told == [("a", client, True), ("b", client, False)]


async def test_asynchronous_callbacks_run_one_after_the_other(
    pair: Pair, autojump_clock: MockClock, told: list[Any]
) -> None:
    client, _ = pair

    async def sent(number: int, ws: Transaction) -> None:
        told.append((number, ws))
        await trio.sleep(1)
        told.append(number)

    for number in range(3):
        await client.send(partial(sent, number), "a")
    await trio.sleep(0.5)
    assert told == [(0, client)]
    await trio.sleep(3)
    await client.send(lambda ws: sent(3, ws), "a")
    await trio.sleep(2)
    assert told == [(0, client), 0, (1, client), 1, (2, client), 2, (3, client), 3]


@pytest.mark.parametrize("asynchronous", [True, False], ids=["asynchronous", "synchronous"])
async def test_an_exception_of_a_callback_is_not_swallowed(
    autojump_clock: MockClock, told: list[Any], asynchronous: bool
) -> None:
    def fail(ws: Transaction) -> None:
        raise LookupError

    async def fail_later(ws: Transaction) -> None:
        await trio.sleep(1)
        raise LookupError

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            client, _ = open_memory_pair(nursery)
            await client.send(fail_later if asynchronous else fail, "a")
            await client.send(fail_later, "a")
            await trio.sleep(10)
            told.append("it was swallowed")

    with pytest.RaisesGroup(LookupError, flatten_subgroups=True):
        await run()
    assert told == []


async def test_callbacks_of_what_was_never_written_are_not_called(
    stalled: Pair, autojump_clock: MockClock, told: list[Any]
) -> None:
    client, server = stalled
    client.send_nowait("a", cb=Sent(told))
    server.__connection__.end()
    await trio.sleep(1)
    assert client.is_finished
    assert told == []


async def test_a_callback_may_send_the_next(pair: Pair, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    # Mojolicious' way to send much without queueing it all.
    client, server = pair
    numbers = iter(range(1000))

    def more(ws: Transaction) -> None:
        for number in numbers:
            ws.send_nowait(more, str(number))
            return

    more(client)
    assert [int(await server.receive()) for _ in range(1000)] == list(range(1000))


async def test_drain_waits_for_all_that_is_queued(
    stalled: Pair, nursery: trio.Nursery, autojump_clock: MockClock, told: list[Any]
) -> None:
    client, server = stalled

    async def drain() -> None:
        await client.drain()
        told.append("drained")

    client.on("drain", lambda ws: told.append("drain"))
    await drain()
    assert told == ["drained"]
    client.send_nowait("a")
    client.send_nowait("b")
    nursery.start_soon(drain)
    await wait_all_tasks_blocked()
    assert told == ["drained"]
    assert client.statistics().tasks_waiting_send == 1
    assert client.statistics().bytes_unsent == len(client.build_frame(1, 0, 0, 0, 1, b"a")) * 2
    assert await server.receive() == "a"
    assert await server.receive() == "b"
    await wait_all_tasks_blocked()
    assert told == ["drained", "drain", "drained"]
    assert client.statistics().bytes_unsent == 0


async def test_drain_says_when_there_will_be_none(
    stalled: Pair, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client, server = stalled
    client.send_nowait("a")
    nursery.start_soon(end_soon, server)
    with pytest.raises(ConnectionClosed) as caught:
        await client.drain()
    assert caught.value.close.code == 1006


async def end_soon(ws: Transaction) -> None:
    await trio.sleep(GRACE / 2)  # before it begins to read
    ws.__connection__.end()


async def test_send_nowait_would_block_past_the_write_limit(
    nursery: trio.Nursery, autojump_clock: MockClock, told: list[Any]
) -> None:
    client, server = open_memory_pair(nursery, streams=trio.testing.lockstep_stream_pair(), write_limit=100)
    client.send_nowait("a" * 60)
    client.send_nowait("b" * 60)  # may pass the limit, but does not begin behind it
    queued = client.statistics().bytes_unsent
    assert queued > 100
    for _ in range(2):
        with pytest.raises(trio.WouldBlock):
            client.send_nowait("c", cb=told.append)
        await wait_all_tasks_blocked()
        assert client.statistics().bytes_unsent == queued
    with pytest.raises(TypeError):
        client.send_nowait(1)
    assert [await server.receive() for _ in range(2)] == ["a" * 60, "b" * 60]
    await wait_all_tasks_blocked()
    client.send_nowait("c", cb=told.append)
    assert await server.receive() == "c"
    await wait_all_tasks_blocked()
    assert told == [client]


async def test_send_waits_past_the_write_limit(
    nursery: trio.Nursery, autojump_clock: MockClock, told: list[Any]
) -> None:
    client, server = open_memory_pair(nursery, streams=trio.testing.lockstep_stream_pair(), write_limit=100)

    async def send(message: str) -> None:
        await client.send(message)
        told.append(message)

    client.send_nowait("a" * 100)
    await wait_all_tasks_blocked()
    nursery.start_soon(send, "b")
    await wait_all_tasks_blocked()
    assert client.statistics().bytes_unsent < 110  # it is not even queued
    with trio.move_on_after(GRACE / 2) as scope:
        await client.send("never")
    assert scope.cancelled_caught
    assert told == []
    assert await server.receive() == "a" * 100
    assert await server.receive() == "b"
    await wait_all_tasks_blocked()
    assert told == ["b"]
    with pytest.raises(trio.WouldBlock):
        server.receive_nowait()


async def test_those_who_wait_to_send_wake_with_the_end(
    nursery: trio.Nursery, autojump_clock: MockClock, told: list[Any]
) -> None:
    client, server = open_memory_pair(nursery, streams=trio.testing.lockstep_stream_pair(), write_limit=10)

    async def send(message: str) -> None:
        with pytest.raises(ConnectionClosed):
            await client.send(message)
        told.append(message)

    client.send_nowait("a" * 100)
    await wait_all_tasks_blocked()
    for message in "bcd":
        nursery.start_soon(send, message)
    await wait_all_tasks_blocked()
    assert client.statistics().tasks_waiting_send == 3
    server.__connection__.end()
    await wait_all_tasks_blocked()
    assert sorted(told) == ["b", "c", "d"]


async def test_over_a_socket_send_writes_itself_and_waits_until_the_kernel_has_it_all(
    sockets: Pair, nursery: trio.Nursery, told: list[Any]
) -> None:
    client, server = sockets

    async def send() -> None:
        for _ in range(5):
            await client.send(LARGE * 4, cb=Sent(told))
        told.append("sent")

    nursery.start_soon(send)
    await wait_all_tasks_blocked()
    assert "sent" not in told
    assert client.is_writing
    assert client.statistics().tasks_waiting_send == 1
    with pytest.raises(trio.WouldBlock):
        client.send_nowait("a")
    for _ in range(5):
        assert await server.receive() == LARGE * 4
    await wait_all_tasks_blocked()
    assert told == [(None, client, False)] * 5 + ["sent"]
    client.send_nowait("a")
    assert client.is_writing  # until the next turn
    assert await server.receive() == "a"


async def test_send_over_a_socket_that_is_gone_says_so(nursery: trio.Nursery) -> None:
    near, far = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(near))
    client, _ = open_memory_pair(nursery, streams=(stream, trio.testing.memory_stream_pair()[0]))
    far.close()
    for send in (client.send, client.send, client.send_nowait):
        with pytest.raises(ConnectionClosed) as caught:
            await maybe(send("a"))
        assert caught.value.close.code == 1006


async def test_resume_hands_over_what_is_queued_at_once(sockets: Pair, told: list[Any]) -> None:
    client, server = sockets
    client.on("resume", told.append)
    client.send_nowait("a", cb=Sent(told))
    assert client.is_writing
    assert client.resume() is client
    assert not client.is_writing
    assert told == [(None, client, False), client]
    assert await server.receive() == "a"


async def test_replies_are_corked_while_messages_wait_and_none_is_late(
    sockets: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = sockets
    set_clock(monkeypatch, lambda: 0.0)  # All of it is one turn.
    for number in range(10):
        client.send_nowait(str(number))
    for number in range(10):
        assert await server.receive() == str(number)
        await server.send(f"reply {number}")
        assert server.is_writing == (number < 9)
    assert [await client.receive() for _ in range(10)] == [f"reply {number}" for number in range(10)]


@pytest.mark.parametrize("call", ["send", "receive"])
async def test_a_call_that_does_not_wait_yields_when_a_turn_is_over(
    pair: Pair, nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    client, server = pair
    for number in range(200):
        client.send_nowait(str(number))
    await server.receive()  # and so the others have been read, too
    turns = Turns()
    now = 0.0

    def later() -> float:
        nonlocal now
        now += TURN / 4
        return now

    set_clock(monkeypatch, later)
    server.__connection__.turn.begin()
    nursery.start_soon(turns.run)
    for number in range(100):
        if call == "send":
            await server.send("a")
        else:
            assert await server.receive() == str(number + 1)
    assert turns.count >= 15


# Receiving


async def test_messages_are_received_as_str_and_bytes(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    for message in ("text", b"bytes", "", b""):
        await client.send(message)
        received = await server.receive()
        assert received == message
        assert type(received) is type(message)


async def test_iteration_ends_when_the_peer_closes_normally(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    async with client:
        for number in range(3):
            await client.send(str(number))
    assert [message async for message in server] == ["0", "1", "2"]


async def test_there_is_one_receiver_at_a_time(pair: Pair, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    client, server = pair
    nursery.start_soon(server.receive)
    await wait_all_tasks_blocked()
    assert server.statistics().tasks_waiting_receive == 1
    for receive in (server.receive, server.receive_nowait):
        with pytest.raises(trio.BusyResourceError):
            await maybe(receive())
    await client.send("a")
    await wait_all_tasks_blocked()
    assert server.statistics().tasks_waiting_receive == 0
    await client.send("b")
    assert await server.receive() == "b"


async def test_there_is_one_receiver_though_it_only_yields(
    pair: Pair, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, told: list[Any]
) -> None:
    client, server = pair
    for number in range(2):
        client.send_nowait(str(number))
    assert await server.receive() == "0"
    set_clock(monkeypatch, lambda: math.inf)  # The turn is over: the next call yields.

    async def receive() -> None:
        try:
            told.append(await server.receive())
        except trio.BusyResourceError:
            told.append("busy")

    for _ in range(2):
        nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    assert sorted(told) == ["1", "busy"]


async def test_receive_nowait_returns_what_has_been_read(
    pair: Pair, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client, server = pair
    with pytest.raises(trio.WouldBlock):
        server.receive_nowait()
    await client.send("a")
    await client.send(b"b")
    await trio.sleep(1)  # more than the grace
    assert server.statistics().messages_waiting == 2
    assert server.receive_nowait() == "a"
    assert server.receive_nowait() == b"b"
    with pytest.raises(trio.WouldBlock):
        server.receive_nowait()
    await client.send("c")
    await trio.sleep(1)
    nursery.start_soon(client.aclose)
    await trio.sleep(1)
    assert server.receive_nowait() == "c"
    with pytest.raises(trio.EndOfChannel):
        server.receive_nowait()


async def test_receive_nowait_knows_of_what_is_behind_a_full_channel(
    pair: Pair, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client, server = pair
    channel = server.open_channel("text", 1)
    for message in ("1", "2", "3", b"binary"):
        await client.send(message)
    nursery.start_soon(client.finish)
    await trio.sleep(1)
    with pytest.raises(trio.WouldBlock):
        server.receive_nowait()
    assert [item async for item in channel] == [b"1", b"2", b"3"]
    assert server.receive_nowait() == b"binary"


async def test_a_cancelled_receive_loses_nothing(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    for number in range(5):
        with trio.move_on_after(1) as waiting:
            await server.receive()
        assert waiting.cancelled_caught
        await client.send(str(number))
        with trio.CancelScope() as scope:
            scope.cancel()
            await server.receive()
        assert scope.cancelled_caught
        assert await server.receive() == str(number)
    for number in range(5):
        await client.send(str(number))
    with trio.CancelScope() as scope:
        scope.cancel()
        await server.receive()
    assert scope.cancelled_caught
    assert [await server.receive() for _ in range(5)] == ["0", "1", "2", "3", "4"]


# The end of messages

NORMAL = [(None, 1005), (1000, 1000), (1001, 1001)]
OTHER = [(1002, 1002), (1011, 1011), (3000, 3000), (4999, 4999)]


@pytest.mark.parametrize(("code", "seen"), NORMAL + OTHER)
async def test_the_end_is_told_as_the_peer_closed(
    pair: Pair, nursery: trio.Nursery, autojump_clock: MockClock, code: int | None, seen: int
) -> None:
    client, server = pair
    await client.send("before")
    nursery.start_soon(client.finish, code, None if code is None else "Grüße")
    await trio.sleep(1)
    assert await server.receive() == "before"
    reason = "" if code is None else "Grüße"
    assert server.closed == Close(seen, reason)
    for _ in range(2):
        with pytest.raises(trio.EndOfChannel if (code, seen) in NORMAL else ConnectionClosed) as caught:
            await server.receive()
        assert str(seen) in str(caught.value)
    with pytest.raises(ConnectionClosed) as closed:
        await server.send("a")
    assert closed.value.close == server.closed
    with pytest.raises(ConnectionClosed):
        server.send_nowait("a")
    with pytest.raises(ConnectionClosed):
        await server.ping()
    await server.drain()  # nothing is queued
    assert await server.finish() == server.closed
    with pytest.raises(trio.ClosedResourceError):  # from now on it is this side that has closed
        await server.receive()


async def test_a_lost_connection_is_1006(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    await client.send("before")
    await trio.sleep(1)
    client.__connection__.end()
    assert await server.receive() == "before"
    with pytest.raises(ConnectionClosed) as caught:
        await server.receive()
    assert caught.value.close.code == 1006
    assert isinstance(caught.value, trio.BrokenResourceError)


async def test_what_was_queued_stays_readable_after_this_side_has_closed(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    await client.send("a")
    await client.send("b")
    await trio.sleep(1)
    await server.aclose()
    assert await server.receive() == "a"
    assert server.receive_nowait() == "b"
    for receive in (server.receive, server.receive_nowait):
        with pytest.raises(trio.ClosedResourceError):
            await maybe(receive())
    for send in (server.send, server.send_nowait):
        with pytest.raises(trio.ClosedResourceError):
            await maybe(send("c"))
    with pytest.raises(trio.ClosedResourceError):
        await server.ping()
    with pytest.raises(StopAsyncIteration):
        await client.__anext__()


async def test_a_receiver_wakes_when_this_side_closes(
    pair: Pair, nursery: trio.Nursery, autojump_clock: MockClock, told: list[Any]
) -> None:
    client, _ = pair

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await client.receive()
        told.append("woken")

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    await client.aclose()
    await wait_all_tasks_blocked()
    assert told == ["woken"]


# Closing


async def test_finish_returns_what_the_peer_answered(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    assert client.closed is None
    assert await client.finish(4000, "kaboom") == Close(4000, "kaboom")
    assert client.closed == server.closed == Close(4000, "kaboom")
    assert client.is_finished
    assert await client.finish(1000) == Close(4000, "kaboom")  # it is over already


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        *((code, None) for code in (999, 1004, 1005, 1006, 1015, 2999, 5000, -1, "1000", 1.5)),
        *((1000, reason) for reason in ("x" * 124, "ü" * 62, "\ud800", b"x", 5)),
        (None, "why"),
    ],
)
async def test_finish_refuses_what_must_not_be_sent(
    pair: Pair, autojump_clock: MockClock, code: Any, reason: Any
) -> None:
    client, server = pair
    with pytest.raises((TypeError, ValueError), match=r"close (code|reason)|surrogates"):
        await client.finish(code, reason)
    await client.send("still open")
    assert await server.receive() == "still open"


async def test_finish_gives_up_after_close_timeout(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    ours, _theirs = trio.testing.memory_stream_pair()
    other, _ = trio.testing.memory_stream_pair()
    client, _ = open_memory_pair(nursery, streams=(ours, other), close_timeout=7)
    assert (await client.finish(1000)).code == 1006
    assert trio.current_time() == 7
    assert client.error is not None


async def test_a_cancelled_finish_goes_on_in_the_background(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    with trio.CancelScope() as scope:
        client.on("frame", lambda ws, frame: None)
        server.on("frame", lambda ws, frame: scope.cancel())
        await client.finish(4000)
    await trio.sleep(1)
    assert client.closed == server.closed == Close(4000)


async def test_a_cancelled_aclose_closes_at_once(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.aclose()
    assert scope.cancelled_caught
    assert client.is_finished
    assert client.closed is not None
    assert client.closed.code == 1006
    with pytest.raises(ConnectionClosed):
        await server.receive()
    await client.aclose()  # once more is no mistake


async def test_leaving_the_block_closes_with_1000(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    async with client as ws:
        assert ws is client
    assert client.closed == server.closed == Close(1000)


# Pings


async def test_ping_returns_the_seconds_to_its_pong(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    near, far = trio.testing.memory_stream_pair()

    arrive = near.send_stream.send_all_hook
    assert arrive is not None

    async def slow() -> None:  # a network that takes 3 seconds
        await trio.sleep(3)
        await arrive()

    near.send_stream.send_all_hook = slow
    client, _ = open_memory_pair(nursery, streams=(near, far), ping_interval=None)
    assert client.statistics().latency is None
    assert await client.ping() == 3
    assert client.statistics().latency == 3
    assert trio.current_time() == 3


@pytest.mark.parametrize("receiving", [True, False], ids=["receiving", "nobody receives"])
@pytest.mark.parametrize("payload", [None, b"", b"x", b"x" * 125])
async def test_ping_carries_its_payload(
    pair: Pair, nursery: trio.Nursery, autojump_clock: MockClock, payload: bytes | None, receiving: bool
) -> None:
    client, server = pair
    if receiving:
        nursery.start_soon(client.receive)
        await wait_all_tasks_blocked()
    frames = server.open_channel("frame")
    assert await client.ping(payload) == 0
    assert await (client.ping() if payload is None else client.ping(payload)) == 0
    first, second = [await frames.receive() for _ in range(2)]
    assert first.opcode == Opcode.PING
    if payload is None:
        assert len(first.payload) == len(second.payload) == 4
        assert first.payload != second.payload
    else:
        assert first.payload == second.payload == payload


@pytest.mark.parametrize(
    ("payload", "error", "names"),
    [
        ("x", TypeError, "bytes, not str"),
        (bytearray(b"x"), TypeError, "bytes, not bytearray"),
        (5, TypeError, "not int"),
        (b"x" * 126, ValueError, "125 bytes, not 126"),
    ],
)
async def test_a_payload_that_no_ping_has_is_refused(
    pair: Pair, nursery: trio.Nursery, autojump_clock: MockClock, payload: Any, error: type[Exception], names: str
) -> None:
    client, server = pair
    with pytest.raises(error, match=names):
        await client.ping(payload)
    nursery.start_soon(client.finish)
    assert await frames_until_close(server) == [frame(8, b"")]


async def test_pings_may_wait_side_by_side(
    stalled: Pair, nursery: trio.Nursery, autojump_clock: MockClock, told: list[Any]
) -> None:
    client, server = stalled

    async def ping(payload: bytes) -> None:
        await client.ping(payload)
        told.append(payload)

    # The peer does not read: it is parked in the delivery to a full channel.
    full = server.open_channel("text", 1)
    for _ in range(2):
        await client.send("a")
    await wait_all_tasks_blocked()
    for payload in (b"1", b"2", b"3"):
        nursery.start_soon(ping, payload)
    await wait_all_tasks_blocked()
    assert client.statistics().pings_waiting == 3
    with pytest.raises(ValueError, match="b'2' is waiting"):
        await client.ping(b"2")
    assert told == []
    full.close()
    await wait_all_tasks_blocked()
    assert sorted(told) == [b"1", b"2", b"3"]
    assert client.statistics().pings_waiting == 0


async def test_a_pong_answers_the_pings_before_its_own(
    nursery: trio.Nursery, autojump_clock: MockClock, told: list[Any]
) -> None:
    near, far = trio.testing.memory_stream_pair()
    client, _ = open_memory_pair(nursery, streams=(near, trio.testing.memory_stream_pair()[0]), ping_interval=None)

    async def ping(payload: bytes) -> None:
        told.append((payload, await client.ping(payload)))

    for payload in (b"1", b"2", b"3"):
        nursery.start_soon(ping, payload)
        await trio.sleep(1)
    for payload in (b"unknown", b"2", b"2"):
        await far.send_all(build_frame(1, 0, 0, 0, 10, payload))
    await wait_all_tasks_blocked()
    assert sorted(told) == [(b"1", 3), (b"2", 2)]
    await far.send_all(build_frame(1, 0, 0, 0, 10, b"3"))
    await wait_all_tasks_blocked()
    assert sorted(told) == [(b"1", 3), (b"2", 2), (b"3", 1)]


@pytest.mark.parametrize("code", [1000, 4000, None])
@pytest.mark.parametrize("who", ["the peer", "this side", "nobody"])
async def test_a_pending_ping_wakes_when_the_connection_ends(
    nursery: trio.Nursery, autojump_clock: MockClock, who: str, code: int | None, told: list[Any]
) -> None:
    near, far = trio.testing.memory_stream_pair()
    client, _ = open_memory_pair(nursery, streams=(near, trio.testing.memory_stream_pair()[0]), ping_interval=None)

    async def ping() -> None:
        with pytest.raises(trio.ClosedResourceError if who == "this side" else ConnectionClosed):
            await client.ping()
        told.append(trio.current_time())

    for _ in range(2):
        nursery.start_soon(ping)
    await trio.sleep(1)
    assert told == []
    if who == "the peer":
        await far.send_all(build_frame(1, 0, 0, 0, 8, b"" if code is None else code.to_bytes(2, "big")))
        await far.aclose()
    elif who == "this side":
        with trio.move_on_after(1):
            await client.aclose()
    else:
        await far.aclose()
    with trio.fail_after(1):
        await wait_all_tasks_blocked()
    assert len(told) == 2
    assert client.statistics().pings_waiting == 0


async def test_a_cancelled_ping_is_forgotten_and_its_pong_ignored(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    near, far = trio.testing.memory_stream_pair()
    client, _ = open_memory_pair(nursery, streams=(near, trio.testing.memory_stream_pair()[0]), ping_interval=None)
    with trio.move_on_after(1):
        await client.ping(b"x")
    assert client.statistics().pings_waiting == 0
    await far.send_all(build_frame(1, 0, 0, 0, 10, b"x"))
    await trio.sleep(1)
    assert client.statistics().latency is None
    with trio.CancelScope() as scope:
        scope.cancel()
        await client.ping(b"x")
    assert client.statistics().pings_waiting == 0
    assert not client.is_writing


async def test_a_payload_may_be_used_again_before_the_first_ping_has_returned(
    pair: Pair, nursery: trio.Nursery, autojump_clock: MockClock, told: list[Any]
) -> None:
    client, _ = pair

    async def ping() -> None:
        told.append(await client.ping(b"x"))

    nursery.start_soon(ping)
    heartbeat = client.__connection__.heartbeat
    while not heartbeat.pings:
        await trio.lowlevel.checkpoint()
    heartbeat.answered(b"x")  # Its task has not run since.
    second = heartbeat.send(b"x")  # Another one's has.
    assert heartbeat.pings == 1
    while not told:
        await trio.lowlevel.checkpoint()
        assert heartbeat.pings == 1 or second.answered.is_set()
    await trio.sleep(1)
    assert second.latency is not None


# Events: that they are subscribed to here; what they carry is in test_events.py


async def test_events_come_to_callbacks_and_channels(pair: Pair, autojump_clock: MockClock, told: list[Any]) -> None:
    client, server = pair

    @server.on
    def text(ws: Transaction, payload: bytes) -> None:
        told.append(payload)

    @server.once
    def binary(ws: Transaction, payload: bytes) -> None:
        told.append(payload)

    assert server.on("text", told.append) == told.append
    assert server.subscribers("text") == [text, told.append]
    server.unsubscribe("text", told.append)
    channel = server.open_channel("message")
    for message in ("a", b"b", b"c"):
        await client.send(message)
    assert [await channel.receive() for _ in range(3)] == ["a", b"b", b"c"]
    assert told == [b"a", b"b"]
    assert server.has_subscribers("text")
    assert not server.has_subscribers("binary")
    server.unsubscribe("text")
    server.unsubscribe_all("message")
    assert not server.has_subscribers("text")
    assert [item async for item in channel] == []


async def test_emit_calls_the_callbacks_and_raises_an_error_that_nobody_handles(
    pair: Pair, autojump_clock: MockClock, told: list[Any]
) -> None:
    ws = pair[0]
    ws.on("text", lambda ws, *arguments: told.append(arguments))
    assert ws.emit("text", 1, 2) is ws
    assert ws.emit("json") is ws
    for error in (LookupError("a"), "a"):
        with pytest.raises((LookupError, RuntimeError), match="a"):
            ws.emit("error", error)
    with pytest.raises(RuntimeError, match="unknown error"):
        ws.emit("error")
    ws.catch(lambda ws, *arguments: told.append(arguments))
    ws.emit("error", "b")
    assert told == [(1, 2), ("b",)]


@pytest.mark.parametrize("given", [("text",), ("text", None), (5, print), (print, print), (partial(print),)])
async def test_what_is_no_callback_is_refused(pair: Pair, autojump_clock: MockClock, given: Any) -> None:
    for subscribe in (pair[0].on, pair[0].once):
        with pytest.raises(TypeError, match="a function, or an event and a callback; not"):
            subscribe(*given)


# Attributes


async def test_the_attributes_of_an_open_pair(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    client, server = open_memory_pair(nursery, url="ws://example.org/chat?a=b", subprotocols=["v1"])
    for ws in (client, server):
        assert ws.established
        assert ws.is_websocket
        assert not ws.kept_alive
        assert not ws.is_finished
        assert not ws.is_writing
        assert ws.protocol == "v1"
        assert ws.error is ws.closed is None
        assert ws.req.target == "/chat?a=b"
        assert ws.res.status == 101
        assert ws.success is ws.res
        assert ws.handshake is not None
        assert ws.handshake.request is ws.req
        assert not ws.compressed
        assert ws.max_websocket_size == 262_144
        assert ws.local_address is ws.local_port is ws.remote_address is ws.remote_port is None
    assert client.masked
    assert not server.masked
    assert client.connection != server.connection
    assert client.connection.startswith("client-")
    assert server.connection.startswith("server-")


async def test_without_a_handshake_there_is_no_request(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    ws = make(nursery, Protocol("client"))
    assert ws.established
    assert ws.handshake is ws.success is ws.protocol is None
    for name in ("req", "res"):
        with pytest.raises(RuntimeError, match=r"^the opening handshake has not come that far$"):
            getattr(ws, name)


def make(nursery: trio.Nursery, protocol: Protocol, stream: trio.abc.Stream | None = None) -> Transaction:
    transport = open_transport(stream or trio.testing.memory_stream_pair()[0])
    return Transaction(protocol, transport, Housekeeper(nursery), Settings.of({}))


async def test_the_addresses_over_tcp(nursery: trio.Nursery) -> None:
    seen: list[Transaction] = []

    async def handler(ws: Transaction) -> None:
        seen.append(ws)

    server = await nursery.start(partial(serve, handler, 0, host="127.0.0.1"))
    async with open_websocket(server.url) as client:
        with pytest.raises(trio.EndOfChannel):
            await client.receive()
        (accepted,) = seen
        assert accepted.local_address == client.remote_address == client.original_remote_address == "127.0.0.1"
        assert accepted.remote_address == client.local_address == "127.0.0.1"
        assert accepted.local_port == client.remote_port == server.port
        assert accepted.remote_port == client.local_port
        assert repr(client) == f"<Transaction {client.connection} {client.statistics().state} 127.0.0.1:{server.port}>"
    assert client.remote_port == server.port  # also afterwards


@pytest.mark.parametrize(
    ("headers", "trusted", "address"),
    [
        ({"X-Forwarded-For": "192.0.2.1"}, False, None),
        ({"X-Forwarded-For": "192.0.2.1"}, True, "192.0.2.1"),
        ({"X-Forwarded-For": "192.0.2.1, 192.0.2.2"}, True, "192.0.2.2"),
        ([("X-Forwarded-For", "192.0.2.1"), ("x-forwarded-for", " 192.0.2.3")], True, "192.0.2.3"),
        ({"X-Forwarded-For": ""}, True, None),
        ({}, True, None),
    ],
)
async def test_the_remote_address_behind_a_reverse_proxy(
    nursery: trio.Nursery, autojump_clock: MockClock, headers: Any, trusted: bool, address: str | None
) -> None:
    _, server = open_memory_pair(nursery, additional_headers=headers)
    assert not server.reverse_proxy
    server.reverse_proxy = trusted
    assert server.remote_address == address
    assert server.original_remote_address is None


@pytest.mark.parametrize("closer", [0, 1], ids=["this side", "the peer"])
@pytest.mark.parametrize("code", [1000, 1001, None, 4000, 1011])
async def test_error_and_success_tell_how_it_ended(
    pair: Pair, autojump_clock: MockClock, code: int | None, closer: int
) -> None:
    await pair[closer].finish(code)
    await trio.sleep(1)
    ws = pair[0]
    normal = code in {1000, 1001, None}
    for _ in range(2):
        if normal:
            assert ws.error is None
            assert ws.success is ws.res
        else:
            assert isinstance(ws.error, ConnectionClosed)
            assert ws.error.close.code == code
            assert ws.success is None
        await ws.aclose()  # changes nothing about it


async def test_a_lost_connection_stays_an_error_after_aclose(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    client.__connection__.end()
    await trio.sleep(1)
    assert isinstance(server.error, ConnectionClosed)
    await server.aclose()
    assert isinstance(server.error, ConnectionClosed)
    assert server.error.close.code == 1006


async def test_compressed_is_what_was_agreed_and_may_be_switched(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client, server = open_memory_pair(nursery, compression=True)
    frames = server.open_channel("frame")
    assert client.compressed
    for compressed in (True, False, True):
        client.compressed = compressed
        assert client.compressed is compressed
        await client.send("a" * 1000)
        sent = await frames.receive()
        assert sent.rsv1 is compressed
        assert (len(sent.payload) < 100) is compressed
        assert await server.receive() == "a" * 1000


async def test_short_messages_go_uncompressed_unless_they_say_otherwise(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client, server = open_memory_pair(nursery, compression=Deflate(threshold=20))
    frames = server.open_channel("frame")
    forms: list[tuple[dict[str, Any], bool]] = [
        ({"text": "a" * 19}, False),
        ({"text": "a" * 20}, True),
        ({"json": "a" * 17}, False),
        ({"json": "a" * 18}, True),
        ({"binary": b"a"}, False),
        ({"binary": b"a", "compress": True}, True),
        ({"binary": b"a" * 20, "compress": False}, False),
    ]
    for form, rsv1 in forms:
        await client.send(**form)
        assert (await frames.receive()).rsv1 is rsv1
        client.send_nowait(**form)
        assert (await frames.receive()).rsv1 is rsv1
        assert bool(client.build_message(**form)[0] & 0x40) is rsv1


async def test_compress_decides_for_one_message_whatever_its_form(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client, server = open_memory_pair(nursery, compression=True)
    frames = server.open_channel("frame")
    told: list[Transaction] = []
    await client.send("a", compress=True)
    await client.send("a" * 1000, cb=told.append, compress=False)
    await client.send(told.append, "a" * 1000, compress=False)
    client.compressed = False
    await client.send("a" * 1000, compress=True)
    client.send_nowait(told.append, "a" * 1000)
    assert [(await frames.receive()).rsv1 for _ in range(5)] == [True, False, False, True, False]
    assert told == [client] * 3
    assert not client.compressed


async def test_compress_needs_the_agreement(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    plain, _ = open_memory_pair(nursery)
    window, server = open_memory_pair(nursery, compression=Deflate(client_max_window_bits=8))
    for client, reason in ((plain, "has not agreed on permessage-deflate"), (window, "with a window of 8 bits")):
        assert not client.compressed
        with pytest.raises(ValueError, match=reason):
            await client.send("a" * 1000, compress=True)
        with pytest.raises(ValueError, match=reason):
            client.send_nowait(json="a", compress=True)
        with pytest.raises(ValueError, match=reason):
            client.build_message("a", compress=True)
        with pytest.raises(ValueError, match=reason):
            client.compressed = True
        assert not client.is_writing
        await client.send("a", compress=False)
    assert server.compressed
    assert await server.receive() == "a"


async def test_compress_is_yes_or_no_and_not_for_a_frame(pair: Pair, autojump_clock: MockClock) -> None:
    client, _ = pair
    for forms in ({"text": "a", "compress": 1}, {"frame": [1, 0, 0, 0, 9, b""], "compress": False}):
        for build in (client.send_nowait, client.build_message):
            with pytest.raises(TypeError, match="compress="):
                build(**forms)
        with pytest.raises(TypeError, match="compress="):
            await client.send(**forms)
    assert not client.is_writing


async def test_compressed_needs_the_agreement(pair: Pair, autojump_clock: MockClock) -> None:
    client, _ = pair
    client.compressed = False
    with pytest.raises(ValueError, match="permessage-deflate"):
        client.compressed = True
    assert not client.compressed


async def test_masked_may_be_switched_for_tests(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    client.masked = False
    await client.send("a")
    with pytest.raises(ConnectionClosed):
        await server.receive()
    with pytest.raises(ConnectionClosed) as caught:
        await client.receive()
    assert caught.value.close.code == 1002


async def test_max_websocket_size_may_be_changed(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    server.max_websocket_size = 5
    assert server.max_websocket_size == 5
    await client.send("12345")
    assert await server.receive() == "12345"
    await client.send("123456")
    with pytest.raises(ConnectionClosed):
        await server.receive()
    with pytest.raises(ConnectionClosed) as caught:
        await client.receive()
    assert caught.value.close.code == 1009


async def test_max_websocket_size_of_none_removes_the_bound(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    client, server = open_memory_pair(nursery, max_websocket_size=5)
    server.max_websocket_size = None
    await client.send(bytes(300_000))
    assert await server.receive() == bytes(300_000)
    _, by_option = open_memory_pair(nursery, max_websocket_size=None)
    assert server.max_websocket_size == by_option.max_websocket_size
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("size", [-1, 1.5, "5", True])
async def test_a_size_that_is_no_number_is_refused(pair: Pair, autojump_clock: MockClock, size: Any) -> None:
    with pytest.raises(ValueError, match="a number of bytes or None, not") as caught:
        pair[0].max_websocket_size = size
    assert repr(size) in str(caught.value)
    assert pair[0].max_websocket_size == 262_144


async def test_statistics_and_repr_tell_the_state_and_no_secrets(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client, server = open_memory_pair(
        nursery, url="ws://memory.test/?token=secret", additional_headers={"Authorization": "Bearer secret"}
    )
    assert client.statistics()._asdict() == {
        "state": "open",
        "messages_waiting": 0,
        "bytes_unsent": 0,
        "tasks_waiting_receive": 0,
        "tasks_waiting_send": 0,
        "pings_waiting": 0,
        "latency": None,
        "latencies": (),
        "messages_received": 0,
        "messages_sent": 0,
        "bytes_received": 0,
        "bytes_sent": 0,
        "compression_received": (0, 0),
        "compression_sent": (0, 0),
    }
    assert repr(client) == f"<Transaction {client.connection} open>"
    for ws in (client, server):
        assert "secret" not in repr(ws) + repr(ws.statistics())
    await client.aclose()
    assert repr(client) == f"<Transaction {client.connection} ended>"
    assert client.statistics().state == "ended"


async def test_repr_names_a_peer_without_a_port(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    ws, _ = open_memory_pair(nursery)
    ws.__connection__.transport.remote = ("/run/echo.sock", None)
    assert repr(ws) == f"<Transaction {ws.connection} open /run/echo.sock>"


# Frames


async def test_frames_are_built_as_this_side_sends_them(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    assert server.build_frame(1, 0, 0, 0, 1, b"Hello") == b"\x81\x05Hello"
    masked = client.build_frame(True, False, False, False, Opcode.TEXT, bytearray(b"Hello"))
    assert masked[:2] == b"\x81\x85"
    assert b"Hello" not in masked
    assert masked != client.build_frame(1, 0, 0, 0, 1, b"Hello")  # a fresh key for each
    for ws in (client, server):
        buffer = bytearray(ws.build_frame(0, 1, 1, 1, 11, memoryview(b"Hello")) + b"\x81")
        assert ws.parse_frame(buffer) == Frame(False, True, True, True, 11, b"Hello")
        assert ws.parse_frame(buffer) is None
        assert buffer == b"\x81"
    with pytest.raises(TypeError, match="bytes, not str"):
        client.build_frame(1, 0, 0, 0, 1, "Hello")  # type: ignore[arg-type]


async def test_parse_frame_keeps_to_the_maximum_size(pair: Pair, autojump_clock: MockClock) -> None:
    ws = pair[1]
    ws.max_websocket_size = 5
    assert ws.parse_frame(bytearray(build_frame(1, 0, 0, 0, 2, b"12345"))) is not None
    with pytest.raises(RemoteProtocolError) as caught:
        ws.parse_frame(bytearray(build_frame(1, 0, 0, 0, 2, b"123456")))
    assert caught.value.code == 1009
    with pytest.raises(TypeError, match="bytearray"):
        ws.parse_frame(b"\x81\x00")  # type: ignore[arg-type]


async def test_messages_are_built_in_every_form(pair: Pair, autojump_clock: MockClock) -> None:
    client, server = pair
    assert server.build_message("a") == server.build_message(text="a") == b"\x81\x01a"
    assert server.build_message(b"a") == server.build_message(binary=b"a") == b"\x82\x01a"
    assert server.build_message(json=[1, 2]) == b"\x81\x05[1,2]"
    assert server.build_message(frame=[1, 0, 0, 0, 9, b"a"]) == b"\x89\x01a"
    assert client.parse_frame(bytearray(client.build_message(json="ü"))) == frame(1, '"ü"'.encode())
    assert not client.is_writing
    refused: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        (("a",), {"cb": print}),
        ((print, "a"), {}),
        ((), {}),
        (("a", "b"), {}),
    ]
    for given, forms in refused:
        with pytest.raises(TypeError):
            client.build_message(*given, **forms)


async def test_a_message_is_built_compressed_where_that_was_agreed(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client, server = open_memory_pair(nursery, compression=True)
    built = client.build_message("a" * 1000)
    assert len(built) < 100
    assert built[0] == 0xC1
    await client.__connection__.transport.send_all(built)
    assert await server.receive() == "a" * 1000


# The opening handshake, in a server's on_request


def request(nursery: trio.Nursery, **options: Any) -> Transaction:
    """A transaction whose server has read the request and not answered it."""
    protocol = Protocol("server", handshake=ServerHandshake())
    ws = make(nursery, protocol)
    handshake = ClientHandshake("ws://example.org/", **options)
    with pytest.raises(RuntimeError, match="has not come that far"):
        _ = ws.req
    protocol.server_read(handshake.write())
    return ws


async def test_a_server_may_look_at_the_request_before_it_answers(
    nursery: trio.Nursery, autojump_clock: MockClock, told: list[Any]
) -> None:
    ws = request(nursery, headers={"X-Test": "yes"})
    assert ws.req.headers["X-Test"] == "yes"
    assert not ws.established
    assert ws.success is ws.protocol is ws.error is None
    with pytest.raises(RuntimeError, match="has not come that far"):
        _ = ws.res
    assert not ws.compressed
    with pytest.raises(ValueError, match="permessage-deflate"):
        ws.compressed = True
    ws.on("connection", told.append)
    assert told == []
    ws.__connection__.protocol.accept()
    ws.__connection__.start()
    assert told == [ws]


async def test_with_protocols_chooses_the_first_that_is_offered(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ws = request(nursery, subprotocols=["v1", "v2"])
    assert ws.with_protocols("v3") is ws.protocol is None
    assert ws.with_protocols("v3", "v2", "v1") == ws.protocol == "v2"
    ws.__connection__.protocol.accept(subprotocol=ws.protocol)
    assert ws.protocol == "v2"


async def test_with_compression_takes_the_parameters_or_the_usual(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ws = request(nursery)
    assert ws._terms.deflate is None
    ws.with_compression()
    assert ws._terms.deflate == Deflate()
    ws.with_compression(deflate := Deflate())
    assert ws._terms.deflate is deflate
    with pytest.raises(TypeError, match="a Deflate, not bool"):
        ws.with_compression(True)  # type: ignore[arg-type]


@pytest.mark.parametrize("call", [lambda ws: ws.with_protocols("v1"), lambda ws: ws.with_compression()])
async def test_both_come_too_late_once_it_is_open_and_too_early_before(
    pair: Pair, nursery: trio.Nursery, autojump_clock: MockClock, call: Callable[[Transaction], object]
) -> None:
    early = make(nursery, Protocol("server", handshake=ServerHandshake()))
    for ws in (*pair, early):
        with pytest.raises(RuntimeError, match="on_request"):
            call(ws)


# Threads


@pytest.mark.parametrize(
    "call",
    [
        lambda ws: ws.send_nowait("a"),
        lambda ws: ws.send_nowait(lambda _: None, "a"),
        lambda ws: ws.receive_nowait(),
        lambda ws: ws.open_channel("message"),
        lambda ws: ws.on("message", print),
        lambda ws: ws.once("message", print),
        lambda ws: ws.catch(print),
        lambda ws: ws.unsubscribe("message"),
        lambda ws: ws.unsubscribe_all("message"),
        lambda ws: ws.emit("message", "a"),
        lambda ws: ws.resume(),
        lambda ws: ws.build_message("a"),
    ],
)
async def test_from_another_thread_a_call_raises_before_it_does_anything(
    pair: Pair, call: Callable[[Transaction], object], told: list[Any]
) -> None:
    client, server = pair
    client.on("resume", told.append)
    await server.send("waits")
    before = client.statistics()
    with pytest.raises(RuntimeError, match=r"belongs to another thread.*from_thread"):
        await trio.to_thread.run_sync(call, client)
    assert client.statistics() == before
    assert (client.subscribers("message"), told) == ([], [])
    assert await client.receive() == "waits"


async def test_from_another_thread_it_is_called_through_trio(pair: Pair) -> None:
    client, server = pair

    def work() -> None:
        trio.from_thread.run_sync(client.send_nowait, "one")
        trio.from_thread.run(client.send, "two")

    await trio.to_thread.run_sync(work)
    assert [await server.receive(), await server.receive()] == ["one", "two"]
