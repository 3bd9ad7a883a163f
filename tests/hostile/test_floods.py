"""Floods, silence, and networks that break: lines 56 to 65."""

from __future__ import annotations

import itertools
import socket
import ssl
import struct
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_pyjo_ws import (
    ConnectionClosed,
    Deflate,
    HandshakeError,
    Opcode,
    broadcast,
    connect,
    serve_listeners,
)
from trio_pyjo_ws._engine.sockets import RECEIVE_SIZE
from trio_pyjo_ws._engine.turn import TURN
from trio_pyjo_ws.handshake.negotiate import accept_value
from trio_pyjo_ws.wire.frames import build_frame

from ..peer import set_clock
from .attack import (
    BINARY,
    BUFFER,
    CLOSE,
    LONG,
    PING,
    PONG,
    REQUEST,
    RESPONSE,
    RSV1,
    TEXT,
    Listener,
    Tcp,
    descriptors,
    peak_memory,
)

if TYPE_CHECKING:
    from trio_pyjo_ws import Transaction

    from .attack import Peer

Attacked = Any


async def sleep(ws: Transaction) -> None:
    """An application that does not read, and then reads to the end."""
    await trio.sleep(LONG)
    async for _ in ws:
        pass


async def echo(ws: Transaction) -> None:
    async for message in ws:
        await ws.send(message)


class Flood:
    """Pours in the background, within reason, and counts what has been taken."""

    def __init__(self, peer: Peer, chunk: bytes, nursery: trio.Nursery) -> None:
        self.taken = 0
        self._peer = peer
        self._chunk = chunk
        nursery.start_soon(self._pour)

    async def _pour(self) -> None:
        while self.taken < 50 * BUFFER:
            await self._peer.pour(self._chunk)
            self.taken += len(self._chunk)


# Floods


@pytest.mark.parametrize(("payload", "application"), [(b"", None), (b"x" * 125, sleep)], ids=["receiving", "busy"])
async def test_56_pings_of_a_peer_that_reads_no_pongs(
    attacked: Attacked, payload: bytes, application: Any, autojump_clock: MockClock
) -> None:
    async with attacked(over="socket", application=application) as peer, trio.open_nursery() as nursery:
        pings = peer.frame(PING, payload) * 1000
        with peak_memory() as peak:
            flood = Flood(peer, pings, nursery)
            await trio.sleep(5)
            taken = flood.taken
            await trio.sleep(100)
            assert flood.taken == taken < 10 * BUFFER  # The rest stays in the network.
            # What was read last, its frames, the pongs to them, and all of that of the read before.
            assert peak() < 12 * RECEIVE_SIZE
        # Once the pongs are read, all goes on.
        while flood.taken < taken + BUFFER:
            assert {frame.payload for frame in peer.read()} <= {payload}
            await trio.sleep(0.01)
        await cut_off(peer)


async def cut_off(peer: Peer) -> None:
    """End the connection the hard way."""
    peer.end.hang_up()
    await trio.sleep(2 * LONG)
    assert peer.ws.is_finished


async def test_57_pongs_that_nobody_asked_for(attacked: Attacked, autojump_clock: MockClock) -> None:
    async with attacked(over="socket", application=sleep) as peer:
        pongs = b"".join(peer.frame(PONG, struct.pack("!Q", number)) for number in range(2000))
        await peer.pour(pongs)
        with peak_memory() as peak:
            await peer.pour(pongs, 4)
            await trio.sleep(1)
            assert peak() < 2 * RECEIVE_SIZE + 262_144
        assert peer.ws.statistics().pings_waiting == 0
        assert peer.ws.statistics().latency is None
        peer.send(peer.frame(TEXT, b"still here"), peer.frame(CLOSE, b"\x03\xe8"))
        await trio.sleep(1)
        assert peer.ws.statistics().messages_waiting == 1
        await cut_off(peer)


@pytest.mark.parametrize("compression", [False, True])
async def test_58_empty_messages_that_nobody_takes_are_bounded_by_their_number(
    attacked: Attacked, compression: bool, autojump_clock: MockClock
) -> None:
    async with (
        attacked(over="socket", application=sleep, compression=compression, max_queue=100) as peer,
        trio.open_nursery() as nursery,
    ):
        messages = peer.frame(TEXT) * 1000
        with peak_memory() as peak:
            flood = Flood(peer, messages, nursery)
            await trio.sleep(5)
            taken = flood.taken
            await trio.sleep(100)
            assert peer.ws.statistics().messages_waiting == 100
            assert flood.taken == taken < 10 * BUFFER
            assert peak() < 2 * RECEIVE_SIZE + 65_536
        await cut_off(peer)


TEXTS = {
    "ASCII": lambda size: b"x" * size,
    "one character that makes Python take four bytes for each": lambda size: "\N{FIRE}".encode() + b"x" * (size - 4),
}


@pytest.mark.parametrize("size", [1000, 262_144])
@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
@pytest.mark.parametrize("compression", [False, True])
async def test_58_messages_that_nobody_takes_are_bounded_by_their_bytes(
    attacked: Attacked, size: int, text: Any, compression: bool, autojump_clock: MockClock
) -> None:
    message = text(size)
    if compression:
        deflate = Deflate(server_no_context_takeover=True, client_no_context_takeover=True).codec(client=False)
    async with (
        attacked(over="socket", application=sleep, compression=compression) as peer,
        trio.open_nursery() as nursery,
    ):
        frame = peer.frame(RSV1 | TEXT, deflate.compress(message)) if compression else peer.frame(TEXT, message)
        flood = frame * max(1, BUFFER // len(frame))
        in_memory = max(size, sys.getsizeof(message.decode()))
        with peak_memory() as peak:
            Flood(peer, flood, nursery)
            await trio.sleep(5)
            assert peer.ws.statistics().messages_waiting > 0
            # Two of the messages, the queue, and what the last read brought.
            assert peak() < 2 * in_memory + 1_048_576 + 6 * RECEIVE_SIZE
        await cut_off(peer)


@pytest.mark.parametrize("messages", [b"", b"x"])
async def test_58_a_flood_leaves_the_neighbours_their_turn(
    attacked: Attacked, messages: bytes, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    # A clock that goes on by a tenth of a turn with each look at it.
    ticks = itertools.count()
    set_clock(monkeypatch, lambda: next(ticks) * TURN / 10)
    async with attacked(over="socket") as peer:
        peer.send(peer.frame(BINARY, messages) * 10_000)
        handled = [0]
        while len(peer.messages) < 10_000:
            await trio.lowlevel.checkpoint()  # A neighbour has its turn.
            handled.append(len(peer.messages))
        steps = [after - before for before, after in itertools.pairwise(handled)]
        assert max(steps) < 50
        await peer.is_closed_with(1006)


# Peers that do not read, and peers that are not there


async def test_59_a_peer_that_never_reads(attacked: Attacked, autojump_clock: MockClock) -> None:
    async def send(ws: Transaction) -> None:
        while True:
            await ws.send(bytes(10_000))

    async with attacked(over="socket", application=send, ping_interval=20, ping_timeout=15) as peer:
        await trio.sleep(34.9)
        assert not peer.ws.is_finished
        await trio.sleep(0.2)
        assert peer.ws.is_finished
        assert isinstance(peer.error, ConnectionClosed)
        assert peer.error.close.code == 1006


async def test_59_a_peer_that_sends_and_never_reads(attacked: Attacked, autojump_clock: MockClock) -> None:
    # Reading from it stops, as its messages are not handled. That is no excuse for not reading our ping.
    async with (
        attacked(over="socket", application=echo, ping_interval=20, ping_timeout=15, max_queue=10) as peer,
        trio.open_nursery() as nursery,
    ):
        Flood(peer, peer.frame(BINARY, bytes(10_000)), nursery)
        await trio.sleep(34)
        assert not peer.ws.is_finished
        assert peer.ws.statistics().messages_waiting >= 10
        await trio.sleep(2)
        assert peer.ws.is_finished
        assert isinstance(peer.error, ConnectionClosed)
        assert peer.error.close.code == 1006


async def test_59_a_peer_that_pings_and_never_reads(attacked: Attacked, autojump_clock: MockClock) -> None:
    async with (
        attacked(over="socket", ping_interval=20, ping_timeout=15) as peer,
        trio.open_nursery() as nursery,
    ):
        Flood(peer, peer.frame(PING, bytes(100)), nursery)
        await trio.sleep(36)
        assert peer.ws.is_finished
        assert isinstance(peer.error, ConnectionClosed)


@pytest.mark.parametrize("application", [None, sleep], ids=["receiving", "busy"])
async def test_60_half_open_tcp(attacked: Attacked, over: str, application: Any, autojump_clock: MockClock) -> None:
    async with attacked(over=over, application=application, ping_interval=20, ping_timeout=15) as peer:
        peer.send(peer.frame(TEXT, b"and then the cable is pulled"))
        await trio.sleep(34.9)
        assert [frame.opcode for frame in peer.read()] == [Opcode.PING]
        assert not peer.ws.is_finished
        await trio.sleep(0.2)
        assert peer.ws.is_finished
        assert peer.ws.closed is not None
        assert peer.ws.closed.code == 1006
        await peer.handler_is_done.wait()
        assert isinstance(peer.error, ConnectionClosed)
        assert peer.error.close.code == 1006


@pytest.mark.parametrize("options", [{"max_queue": 10}, {"max_queue_bytes": 100}])
async def test_61_a_full_queue_does_not_hide_the_pongs(
    attacked: Attacked, options: dict[str, int], autojump_clock: MockClock
) -> None:
    seen: list[Any] = []

    async def slow(ws: Transaction) -> None:
        async for message in ws:
            seen.append(message)
            await trio.sleep(7)

    async with attacked(over="socket", application=slow, ping_interval=20, ping_timeout=15, **options) as peer:
        for number in range(100):
            peer.send(peer.frame(TEXT, b"message %02d" % number))
        for _ in range(800):  # The peer is as it should be: it answers each ping, behind what it has sent before.
            for frame in peer.read():
                assert frame.opcode == Opcode.PING
                peer.send(peer.frame(PONG, frame.payload))
            await trio.sleep(1)
        assert seen == [f"message {number:02d}" for number in range(100)]
        peer.send(peer.frame(CLOSE, b"\x03\xe8"))
        await wait_all_tasks_blocked()
        await peer.ends_normally()


# Connections that break


class Steps(trio.abc.Instrument):
    """Counts what the scheduler runs."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: object) -> None:
        self.count += 1


def session(peer: Peer) -> bytes:
    return b"".join(
        (
            peer.frame(TEXT, "Grüße".encode()),
            peer.frame(0x01, b"frag"),
            peer.frame(PING, b"?"),
            peer.frame(0x80, b"ments"),
            peer.frame(BINARY, bytes(130)),
        )
    )


async def settle() -> int:
    """Let everything come to rest; return how many steps of tasks that took."""
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    await wait_all_tasks_blocked()
    trio.lowlevel.remove_instrument(steps)
    return steps.count


@pytest.mark.parametrize("reset", [False, True])
async def test_62_the_stream_ends_at_every_byte(attacked: Attacked, reset: bool, autojump_clock: MockClock) -> None:
    expected: list[str | bytes] = ["Grüße", "fragments", bytes(130)]
    count = length = 0
    while count <= length:
        async with attacked(over="tcp") as peer:
            data = session(peer)
            length = len(data)
            peer.send(data[:count])
            await wait_all_tasks_blocked()
            seen = list(peer.messages)
            if reset:
                peer.end.reset()
            else:
                peer.end.hang_up()
            assert await settle() < 30
            assert peer.messages == seen == expected[: len(seen)]
            await peer.is_closed_with(1006)
        count += 1
    assert seen == expected


@pytest.mark.parametrize("reset", [False, True])
async def test_62_the_stream_ends_at_every_byte_of_the_request(
    reset: bool, quiet: None, autojump_clock: MockClock
) -> None:
    request = REQUEST % b""
    listener = Listener()
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_listeners, echo, [listener])
        await wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        for count in range(len(request)):
            end = Tcp()
            listener.connect.send_nowait(end.stream)
            end.send(request[:count])
            await wait_all_tasks_blocked()
            if reset:
                end.reset()
            else:
                end.hang_up()
            assert await settle() < 30
            assert trio.lowlevel.current_statistics().tasks_living == tasks
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("reset", [False, True])
async def test_62_the_stream_ends_at_every_byte_of_the_response(reset: bool, autojump_clock: MockClock) -> None:
    async def fails(stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            with pytest.raises(HandshakeError):
                await connect(nursery, "ws://test/", stream=stream)

    response = RESPONSE % (bytes(28), b"")
    before = descriptors()
    for count in range(len(response)):
        end = Tcp()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails, end.stream)
            end.send(response[:count])
            await wait_all_tasks_blocked()
            if reset:
                end.reset()
            else:
                end.hang_up()
            assert await settle() < 30
    assert descriptors() == before


# TLS


@pytest.fixture(scope="module")
def contexts() -> dict[str, ssl.SSLContext]:
    """What each side's TLS needs."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("test").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return {"server": server, "client": client}


def streams(over: str) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    if over == "memory":
        return trio.testing.memory_stream_pair()
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in socket.socketpair())
    return ours, theirs


class Tls:
    """A connection over TLS, of our server or our client, and the stream beneath its peer's TLS."""

    def __init__(self, role: str, over: str, contexts: dict[str, ssl.SSLContext]) -> None:
        self.role = role
        self.ours, self.theirs = streams(over)
        self.contexts = contexts
        self.seen: list[Any] = []

    async def run(self) -> None:
        """Have our side open the connection, and receive to its end."""
        context = self.contexts[self.role]
        async with trio.open_nursery() as nursery:
            if self.role == "client":
                ws = await connect(nursery, "wss://test/", stream=self.ours, ssl_context=context)
                await self.receive(ws)
            else:
                listener = Listener()
                listener.connect.send_nowait(self.ours)
                secure = trio.SSLListener(listener, context, https_compatible=True)
                await nursery.start(serve_listeners, self.receive, [secure])

    async def receive(self, ws: Transaction) -> None:
        try:
            async for message in ws:
                self.seen.append(message)
        except ConnectionClosed as exc:
            self.seen.append(exc.close.code)

    def secure(self) -> trio.SSLStream[trio.abc.Stream]:
        """The peer's TLS."""
        if self.role == "server":
            return trio.SSLStream(self.theirs, self.contexts["client"], server_hostname="test")
        return trio.SSLStream(self.theirs, self.contexts["server"], server_side=True)


@pytest.mark.parametrize("close", [False, True])
async def test_63_tls_that_is_cut_short(
    role: str, over: str, close: bool, contexts: dict[str, ssl.SSLContext], autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        tls = Tls(role, over, contexts)
        nursery.start_soon(tls.run)
        peer = tls.secure()
        if role == "server":
            await peer.send_all(REQUEST % b"")
            await peer.receive_some()
        else:
            key = (await peer.receive_some()).partition(b"Sec-WebSocket-Key: ")[2][:24].decode()
            await peer.send_all(RESPONSE % (accept_value(key).encode(), b""))
        await peer.send_all(build_frame(1, 0, 0, 0, Opcode.TEXT, b"Hello", masked=role == "server"))
        if close:
            await peer.send_all(build_frame(1, 0, 0, 0, Opcode.CLOSE, b"\x03\xe8", masked=role == "server"))
            await peer.receive_some()
        await peer.transport_stream.aclose()  # without a close_notify
        await wait_all_tasks_blocked()
        assert tls.seen == (["Hello"] if close else ["Hello", 1006])
        assert trio.current_time() == 0
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("hello", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["silence", "half a record"])
async def test_64_tls_that_stalls_on_the_server(
    over: str, hello: bytes, contexts: dict[str, ssl.SSLContext], quiet: None, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        tls = Tls("server", over, contexts)
        nursery.start_soon(tls.run)
        await wait_all_tasks_blocked()
        await tls.theirs.send_all(hello)
        tasks = trio.lowlevel.current_statistics().tasks_living
        assert await tls.theirs.receive_some() == b""
        # Whether TLS has begun can be seen of a socket only.
        assert trio.current_time() == (5 if over == "socket" and not hello else 10)
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == tasks - 1
        await tls.theirs.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("hello", [b"", b"\x16\x03\x03\x02\x00\x02"], ids=["silence", "half a record"])
async def test_64_tls_that_stalls_on_the_client(
    over: str, hello: bytes, contexts: dict[str, ssl.SSLContext], autojump_clock: MockClock
) -> None:
    tls = Tls("client", over, contexts)
    await tls.theirs.send_all(hello)
    async with trio.open_nursery() as nursery:
        with pytest.raises(trio.TooSlowError):
            await connect(nursery, "wss://test/", stream=tls.ours, ssl_context=contexts["client"])
    assert trio.current_time() == 10
    assert (await tls.theirs.receive_some()).startswith(b"\x16\x03")  # its own hello
    assert await tls.theirs.receive_some() == b""
    await tls.theirs.aclose()


# Broadcasts


@pytest.mark.parametrize("slow", ["drop-message", "close"])
async def test_65_a_slow_peer_in_a_broadcast(attacked: Attacked, slow: Any, autojump_clock: MockClock) -> None:
    async with attacked(over="socket") as peer:
        message = bytes(10_000)
        for number in range(1, 101):
            await broadcast([peer.ws, peer.neighbour.ws], message, slow=slow)
            await wait_all_tasks_blocked()
            assert len(peer.neighbour.answers) == number  # It is not delayed,
            assert peer.ws.statistics().bytes_unsent < 65_536 + 10_100  # and the slow one is bounded.
        assert trio.current_time() == 0
        if slow == "drop-message":
            frames = peer.read()
            while peer.ws.is_writing:
                await trio.sleep(0.01)
                frames += peer.read()
            assert {frame.payload for frame in frames} == {message}
            assert await broadcast([peer.ws], "welcome back") == 1
            await wait_all_tasks_blocked()
            assert [frame.payload for frame in peer.read()] == [b"welcome back"]
            await peer.is_closed_with(1006)
        else:
            await trio.sleep(10.1)
            assert peer.ws.is_finished
            assert isinstance(peer.error, trio.ClosedResourceError)


async def test_65_a_slow_peer_that_is_waited_for_is_waited_for_last(
    attacked: Attacked, autojump_clock: MockClock
) -> None:
    async with attacked(over="socket", ping_interval=20, ping_timeout=15) as peer, trio.open_nursery() as nursery:
        peer.ws.send_nowait(bytes(10 * BUFFER))
        nursery.start_soon(partial(broadcast, [peer.ws, peer.neighbour.ws], "news", slow="wait"))
        await wait_all_tasks_blocked()
        assert [frame.payload for frame in peer.neighbour.answers] == [b"news"]
        await trio.sleep(36)  # The keepalive ends the waiting.
        assert peer.ws.is_finished
