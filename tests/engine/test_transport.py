"""The bytes' way to the peer: a descriptor of our own, or any trio stream."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

from trio_pyjo_ws._engine.sockets import RECEIVE_SIZE, Socket
from trio_pyjo_ws._engine.tls import open_transport
from trio_pyjo_ws._engine.transport import MAX_PIECES, SocketTransport, StreamTransport, Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

BLOCK = bytes(range(256)) * 256


@pytest.fixture
async def pair() -> AsyncIterator[tuple[SocketTransport, socket.socket]]:
    """A transport, and the peer's end as a plain non-blocking socket."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    transport = open_transport(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
    assert isinstance(transport, SocketTransport)
    with theirs:
        yield transport, theirs
        transport.close()


@pytest.fixture
def memory() -> tuple[StreamTransport, trio.abc.Stream]:
    """A transport over a stream in memory, and the peer's end."""
    ours, theirs = trio.testing.memory_stream_pair()
    transport = open_transport(ours)
    assert isinstance(transport, StreamTransport)
    return transport, theirs


def fill(transport: Transport) -> int:
    """Send until the kernel takes no more; return how many bytes it took."""
    total = 0
    while sent := transport.try_send(BLOCK):
        total += sent
    return total


def read_all(sock: socket.socket) -> int:
    total = 0
    try:
        while data := sock.recv(1 << 20):
            total += len(data)
    except BlockingIOError:
        return total
    return total


# What a transport promises, whichever it is


def test_the_interface_itself_does_nothing() -> None:
    transport = Transport()
    for call in (
        lambda: transport.try_send(b""),
        transport.wait_receive,
        transport.interrupt,
        transport.try_receive,
        transport.send_eof,
        transport.close,
    ):
        with pytest.raises(NotImplementedError):
            call()
    assert transport.local == transport.remote == (None, None)


async def test_the_interface_itself_waits_for_nothing() -> None:
    with pytest.raises(NotImplementedError):
        await Transport().send_some(b"")
    with pytest.raises(NotImplementedError):
        await Transport().receive_before_tls(1)
    with pytest.raises(NotImplementedError):
        await Transport().aclose()


# A descriptor of our own


async def test_a_socket_stream_gives_its_descriptor_up() -> None:
    ours, theirs = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    descriptor = stream.socket.fileno()
    transport = open_transport(stream)
    assert stream.socket.fileno() == -1
    await stream.aclose()  # It is not the stream's any more.
    with theirs:
        assert transport.try_send(b"x") == 1
        assert theirs.recv(10) == b"x"
        assert os.fstat(descriptor)
        transport.close()
        assert theirs.recv(10) == b""


async def test_what_fits_is_written_at_once(pair: tuple[SocketTransport, socket.socket]) -> None:
    transport, peer = pair
    with trio.testing.assert_no_checkpoints():
        assert transport.try_send(b"whole") == 5
        await transport.send_all(b" message")
    assert peer.recv(100) == b"whole message"


async def test_pieces_are_written_at_once(pair: tuple[SocketTransport, socket.socket]) -> None:
    transport, peer = pair
    with trio.testing.assert_no_checkpoints():
        assert transport.try_send_pieces([b"head", b"", b"payload"]) == 11
    assert peer.recv(100) == b"headpayload"


async def test_of_more_pieces_than_one_call_takes_the_first_are_written(
    pair: tuple[SocketTransport, socket.socket],
) -> None:
    transport, peer = pair
    assert transport.try_send_pieces([b"x"] * (MAX_PIECES + 1)) == MAX_PIECES
    assert read_all(peer) == MAX_PIECES


async def test_of_pieces_that_do_not_fit_a_part_is_written_and_then_none(
    pair: tuple[SocketTransport, socket.socket],
) -> None:
    transport, peer = pair
    sent = transport.try_send_pieces([b"head", *[BLOCK] * 64])
    assert 4 < sent < len(BLOCK) * 64
    fill(transport)
    assert transport.try_send_pieces([b"head", b"payload"]) == 0
    assert peer.recv(4) == b"head"


async def test_what_does_not_fit_is_taken_in_part_and_then_not_at_all(
    pair: tuple[SocketTransport, socket.socket],
) -> None:
    transport, peer = pair
    sent = fill(transport)
    assert 0 < sent < 1 << 20
    assert transport.try_send(b"x") == 0
    assert read_all(peer) == sent
    assert transport.try_send(b"x") == 1


async def test_send_some_waits_for_room(
    pair: tuple[SocketTransport, socket.socket], autojump_clock: trio.testing.MockClock
) -> None:
    transport, peer = pair
    sent = fill(transport)
    with trio.move_on_after(60) as scope:
        await transport.send_some(b"x")
    assert scope.cancelled_caught
    assert read_all(peer) == sent  # Cancelled, it has sent nothing.
    assert await transport.send_some(b"x") == 1


class Answering(Socket):
    """A socket that answers by a list."""

    def __init__(self, sock: socket.socket, answers: list[Any]) -> None:
        super().__init__(sock)
        self.answers = answers

    def send(self, data: bytes | memoryview) -> int:
        sent: int = self.answers.pop(0)
        return sent

    def receive(self) -> bytes | None:
        received: bytes | None = self.answers.pop(0)
        return received


async def test_send_some_waits_again_where_the_room_is_gone(pair: tuple[SocketTransport, socket.socket]) -> None:
    transport, _ = pair
    answers = [0, 0, 3]
    transport._socket = Answering(transport._sock, answers)
    assert await transport.send_some(b"xyz") == 3
    assert answers == []


async def test_send_all_goes_on_where_the_kernel_stopped(
    pair: tuple[SocketTransport, socket.socket], nursery: trio.Nursery
) -> None:
    transport, peer = pair
    data = BLOCK * 64
    received = bytearray()
    nursery.start_soon(transport.send_all, data)
    reader = trio.socket.from_stdlib_socket(peer)
    while len(received) < len(data):
        received += await reader.recv(65_536)
    assert received == data


async def test_receive_waits_for_what_comes(pair: tuple[SocketTransport, socket.socket], nursery: trio.Nursery) -> None:
    transport, peer = pair

    async def send_later() -> None:
        await trio.testing.wait_all_tasks_blocked()
        peer.send(b"later")

    nursery.start_soon(send_later)
    assert await transport.receive() == b"later"


async def test_receive_waits_again_where_there_is_nothing_after_all(
    pair: tuple[SocketTransport, socket.socket],
) -> None:
    transport, peer = pair
    peer.send(b"x")
    answers: list[bytes | None] = [None, b"x"]
    transport._socket = Answering(transport._sock, answers)
    assert await transport.receive() == b"x"
    assert answers == []


async def test_a_cancelled_receive_loses_nothing(
    pair: tuple[SocketTransport, socket.socket], autojump_clock: trio.testing.MockClock
) -> None:
    transport, peer = pair
    with trio.move_on_after(60) as scope:
        await transport.receive()
    assert scope.cancelled_caught
    peer.send(b"x")
    assert await transport.receive() == b"x"


async def test_receive_is_a_checkpoint_even_where_there_is_something(
    pair: tuple[SocketTransport, socket.socket],
) -> None:
    transport, peer = pair
    peer.send(b"x")
    with trio.testing.assert_checkpoints():
        assert await transport.receive() == b"x"


async def test_it_is_ready_until_a_read_has_emptied_it(pair: tuple[SocketTransport, socket.socket]) -> None:
    transport, peer = pair
    assert transport.ready
    peer.send(b"short")
    assert transport.try_receive() == b"short"
    assert not transport.ready  # Asking again would cost a system call for nothing.


async def test_it_is_not_ready_once_there_was_nothing(pair: tuple[SocketTransport, socket.socket]) -> None:
    transport, _ = pair
    assert transport.try_receive() is None
    assert not transport.ready


async def test_a_read_that_comes_back_full_is_worth_another_at_once(
    pair: tuple[SocketTransport, socket.socket],
) -> None:
    transport, peer = pair
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    peer.setblocking(True)
    peer.sendall(b"x" * (RECEIVE_SIZE + 1))
    assert transport.try_receive() == b"x" * RECEIVE_SIZE
    assert transport.ready
    assert transport.try_receive() == b"x"
    assert not transport.ready


async def test_the_end_of_the_stream_is_empty_bytes(pair: tuple[SocketTransport, socket.socket]) -> None:
    transport, peer = pair
    peer.shutdown(socket.SHUT_WR)
    assert await transport.receive() == b""
    assert transport.try_receive() == b""
    assert transport.try_send(b"still open this way") > 0


async def test_send_eof_ends_this_direction_only(pair: tuple[SocketTransport, socket.socket]) -> None:
    transport, peer = pair
    transport.send_eof()
    assert peer.recv(10) == b""
    peer.send(b"x")
    assert await transport.receive() == b"x"


async def test_send_eof_of_what_is_closed_is_nothing(pair: tuple[SocketTransport, socket.socket]) -> None:
    transport, _ = pair
    transport.close()
    transport.send_eof()
    with pytest.raises(trio.ClosedResourceError):
        transport.try_receive()


async def test_a_peer_that_is_gone_breaks_the_sending(pair: tuple[SocketTransport, socket.socket]) -> None:
    transport, peer = pair
    peer.close()
    with pytest.raises(trio.BrokenResourceError, match="Broken pipe") as raised:
        transport.try_send(b"x")
    assert isinstance(raised.value.__cause__, BrokenPipeError)
    with pytest.raises(trio.BrokenResourceError):
        await transport.send_some(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await transport.send_all(b"x")


async def test_no_more_is_received_before_tls_than_is_asked_for(
    pair: tuple[SocketTransport, socket.socket], memory: tuple[StreamTransport, Any]
) -> None:
    transport, peer = pair

    async def send() -> None:
        await trio.testing.wait_all_tasks_blocked()
        peer.sendall(b"abc")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        assert await transport.receive_before_tls(2) == b"ab"
    assert await transport.receive() == b"c"
    peer.close()
    assert await transport.receive_before_tls(2) == b""
    transport.close()
    with pytest.raises(trio.ClosedResourceError):
        await transport.receive_before_tls(2)
    stream_transport, stream = memory
    await stream.send_all(b"abc")
    assert await stream_transport.receive_before_tls(2) == b"ab"
    assert await stream_transport.receive() == b"c"


async def test_a_peer_that_resets_breaks_the_receiving_before_tls() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    peer = await trio.testing.open_stream_to_socket_listener(listener)
    transport = open_transport(await listener.accept())
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await peer.aclose()
    with pytest.raises(trio.BrokenResourceError, match="reset"):
        await transport.receive_before_tls(1)
    transport.close()
    await listener.aclose()


async def test_a_peer_that_resets_breaks_the_receiving() -> None:
    transport, peer = await open_tcp("127.0.0.1")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    with pytest.raises(trio.BrokenResourceError) as raised:
        await transport.receive()
    assert isinstance(raised.value.__cause__, ConnectionResetError)
    transport.close()


async def test_closing_wakes_who_receives(pair: tuple[SocketTransport, socket.socket], nursery: trio.Nursery) -> None:
    transport, _ = pair

    async def close_soon() -> None:
        await trio.testing.wait_all_tasks_blocked()
        transport.close()

    nursery.start_soon(close_soon)
    with pytest.raises(trio.ClosedResourceError):
        await transport.receive()


async def test_closing_wakes_who_sends(pair: tuple[SocketTransport, socket.socket], nursery: trio.Nursery) -> None:
    transport, _ = pair
    fill(transport)

    async def close_soon() -> None:
        await trio.testing.wait_all_tasks_blocked()
        transport.close()

    nursery.start_soon(close_soon)
    with pytest.raises(trio.ClosedResourceError):
        await transport.send_some(b"x")


async def test_once_closed_nothing_can_be_done(pair: tuple[SocketTransport, socket.socket]) -> None:
    transport, _ = pair
    transport.close()
    with pytest.raises(trio.ClosedResourceError):
        transport.try_send(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await transport.send_some(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await transport.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await transport.wait_receive()
    with pytest.raises(trio.ClosedResourceError):
        await transport.receive()


async def test_once_closed_the_next_owner_of_the_number_is_left_alone(
    pair: tuple[SocketTransport, socket.socket],
) -> None:
    transport, _ = pair
    number = transport._sock.fileno()
    transport.close()
    others = socket.socketpair()
    with others[0], others[1]:
        assert number in {other.fileno() for other in others}
        with trio.fail_after(5), pytest.raises(trio.ClosedResourceError):
            await transport.receive()
        with pytest.raises(trio.ClosedResourceError):
            await transport.send_some(b"meant for the peer")
        for other in others:
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                other.recv(100)
        transport.close()  # Closing twice closes nothing of theirs.
        assert others[0].send(b"x") == 1


async def test_aclose_closes_without_waiting(pair: tuple[SocketTransport, socket.socket]) -> None:
    transport, peer = pair
    with trio.testing.assert_no_checkpoints():
        await transport.aclose()
    assert peer.recv(10) == b""


async def test_a_cancelled_send_leaves_it_known_what_was_sent() -> None:
    assert SocketTransport.resumable
    assert not StreamTransport.resumable


# Any other stream


async def test_a_stream_takes_and_has_nothing_at_once(
    memory: tuple[StreamTransport, trio.abc.Stream],
) -> None:
    transport, peer = memory
    await peer.send_all(b"x")
    with trio.testing.assert_no_checkpoints():
        assert not transport.ready
        assert transport.try_send(b"x") == 0
        assert transport.try_receive() is None
    assert await transport.receive() == b"x"
    assert transport.try_receive() is None


async def test_a_stream_without_tls_has_no_hands_to_shake(memory: tuple[StreamTransport, trio.abc.Stream]) -> None:
    transport, _ = memory
    with trio.testing.assert_no_checkpoints():
        await transport.do_handshake()


async def test_a_stream_is_sent_to_as_a_whole(memory: tuple[StreamTransport, trio.abc.Stream]) -> None:
    transport, peer = memory
    assert transport.try_send_pieces([b"wh", b"ole"]) == 0
    assert await transport.send_some(memoryview(b"whole")) == 5
    await transport.send_all(b" message")
    assert await peer.receive_some() == b"whole message"


async def test_bytes_of_a_stream_are_bytes(memory: tuple[StreamTransport, trio.abc.Stream]) -> None:
    transport, peer = memory
    await peer.send_all(b"x")
    assert type(await transport.receive()) is bytes  # A memory stream gives a bytearray.


async def test_a_cancelled_receive_from_a_stream_loses_nothing(
    memory: tuple[StreamTransport, trio.abc.Stream], autojump_clock: trio.testing.MockClock
) -> None:
    transport, peer = memory
    with trio.move_on_after(60) as scope:
        await transport.receive()
    assert scope.cancelled_caught
    await peer.send_all(b"x")
    assert await transport.receive() == b"x"


async def test_what_a_stream_has_brought_is_there_until_it_is_taken(
    memory: tuple[StreamTransport, trio.abc.Stream],
) -> None:
    transport, peer = memory
    await peer.send_all(b"first")
    await transport.wait_receive()
    assert transport.ready  # so that nobody waits again, and puts something else in its place
    await peer.send_all(b"second")
    assert await transport.receive() == b"first"
    assert not transport.ready
    assert await transport.receive() == b"second"


async def test_the_end_of_a_stream_is_empty_bytes(memory: tuple[StreamTransport, trio.abc.Stream]) -> None:
    transport, peer = memory
    await peer.aclose()
    assert await transport.receive() == b""
    with pytest.raises(trio.BrokenResourceError):
        await transport.send_all(b"x")


async def test_a_stream_is_closed_by_aclose_and_once(
    memory: tuple[StreamTransport, trio.abc.Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    transport, peer = memory
    transport.send_eof()
    transport.close()
    await peer.send_all(b"x")
    assert await transport.receive() == b"x"  # Neither of the two has done anything, for both would have to wait.
    await transport.aclose()
    assert await peer.receive_some() == b""
    monkeypatch.setattr(transport, "_stream", None)
    await transport.aclose()


async def test_closing_a_stream_wakes_who_receives(
    memory: tuple[StreamTransport, trio.abc.Stream], nursery: trio.Nursery
) -> None:
    transport, _ = memory

    async def close_soon() -> None:
        await trio.testing.wait_all_tasks_blocked()
        await transport.aclose()

    nursery.start_soon(close_soon)
    with pytest.raises(trio.ClosedResourceError):
        await transport.receive()


async def test_closing_streams_under_cancellation_closes_them_all() -> None:
    pairs = [trio.testing.memory_stream_pair() for _ in range(3)]
    with trio.CancelScope() as scope:
        scope.cancel()
        for ours, _ in pairs:
            await open_transport(ours).aclose()
    for _, theirs in pairs:
        assert await theirs.receive_some() == b""


# Addresses


async def open_tcp(host: str) -> tuple[Transport, socket.socket]:
    """A transport over TCP, and the peer's end."""
    listeners = await trio.open_tcp_listeners(0, host=host)
    async with listeners[0] as listener:
        port = listener.socket.getsockname()[1]
        stream = await trio.open_tcp_stream(host, port)
        peer = (await listener.accept()).socket
    return open_transport(stream), socket.socket(peer.family, peer.type, peer.proto, fileno=peer.detach())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_addresses_of_tcp(host: str) -> None:
    transport, peer = await open_tcp(host)
    with peer:
        assert transport.local == (host, peer.getpeername()[1])
        assert transport.remote == (host, peer.getsockname()[1])
        transport.close()
        assert transport.remote == (host, peer.getsockname()[1])  # Known from the beginning, told to the end.


async def test_addresses_of_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        transport = open_transport(await trio.open_unix_socket(path))
        peer, _ = listener.accept()
    with peer:
        assert transport.remote == (path, None)
        assert transport.local == (None, None)
        accepted = open_transport(trio.SocketStream(trio.socket.from_stdlib_socket(peer)))
    assert accepted.local == (path, None)
    assert accepted.remote == (None, None)
    accepted.close()
    transport.close()


async def test_addresses_of_an_abstract_unix_socket_are_none() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(b"\0trio-pyjo-ws-%d" % os.getpid())
        listener.listen()
        stream = trio.socket.socket(trio.socket.AF_UNIX)
        await stream.connect(listener.getsockname())
        transport = open_transport(trio.SocketStream(stream))
        assert transport.remote == (None, None)
        transport.close()


async def test_a_peer_that_is_gone_has_no_address() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listeners[0] as listener:
        stream = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        accepted = await listener.accept()
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()
    with pytest.raises(OSError, match="reset"):
        await accepted.socket.recv(1)
    transport = open_transport(accepted)
    assert transport.local[0] == "127.0.0.1"
    assert transport.remote == (None, None)
    transport.close()


async def test_a_stream_in_memory_has_no_address(memory: tuple[StreamTransport, trio.abc.Stream]) -> None:
    transport, _ = memory
    assert transport.local == transport.remote == (None, None)


@asynccontextmanager
async def open_tls() -> AsyncIterator[tuple[trio.SSLStream[Any], trio.SSLStream[Any]]]:
    """Both ends of TLS over TCP."""
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    listeners = await trio.open_ssl_over_tcp_listeners(0, server_context, host="127.0.0.1", https_compatible=True)
    async with listeners[0] as listener:
        port = listener.transport_listener.socket.getsockname()[1]
        client = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", port, ssl_context=client_context, https_compatible=True
        )
        server = await listener.accept()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    async with client, server:
        yield client, server


async def test_tls_is_read_and_written_and_has_the_addresses_of_what_is_beneath() -> None:
    async with open_tls() as (client, server):
        port = server.transport_stream.socket.getsockname()[1]
        transport, peer = open_transport(client), open_transport(server)
        assert transport.remote == peer.local == ("127.0.0.1", port)
        assert transport.local == peer.remote
        await transport.send_all(b"to the server")
        assert await peer.receive() == b"to the server"
        await peer.send_all(b"to the client")
        assert await transport.receive() == b"to the client"
        await peer.aclose()
        assert await transport.receive() == b""  # As of trio.SSLStream(https_compatible=True).
        await transport.aclose()


async def test_tls_over_a_socket_that_is_closed_has_no_address() -> None:
    async with open_tls() as (client, _):
        await client.transport_stream.aclose()
        transport = open_transport(client)
        assert transport.local == transport.remote == (None, None)


# What the kernel may answer


@pytest.mark.parametrize(
    "call",
    [
        lambda transport: transport.try_send(b"x"),
        lambda transport: transport.try_send_pieces([b"x", b"y"]),
        lambda transport: transport.try_receive(),
    ],
    ids=["send", "send pieces", "receive"],
)
@pytest.mark.parametrize(
    ("number", "raised"),
    [
        (errno.EBADF, trio.ClosedResourceError),
        (errno.ECONNRESET, trio.BrokenResourceError),
        (errno.EPIPE, trio.BrokenResourceError),
        (errno.ETIMEDOUT, trio.BrokenResourceError),
        (errno.EHOSTUNREACH, trio.BrokenResourceError),
    ],
)
def test_errors_of_the_kernel_are_trios(
    call: Callable[[Transport], object], number: int, raised: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    class FailingSocket(Socket):
        send = receive = fail  # type: ignore[assignment]

    class Failing(socket.socket):
        sendmsg = fail  # type: ignore[assignment]

    with Failing() as sock:
        transport = SocketTransport(sock)
        transport._socket = FailingSocket(sock)
        with pytest.raises(raised) as caught:
            call(transport)
    assert isinstance(caught.value.__cause__, OSError)
