"""TLS on a socket of our own. The peers are the ssl module, played by hand, trio.SSLStream, and our own transport.

`websockets` is a peer in test_interoperability.py, over TLS in both roles.
"""

from __future__ import annotations

import datetime as dt
import gc
import hashlib
import hmac
import os
import socket
import ssl
import struct
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from trio_pyjo_ws import Close, ConnectionClosed, HandshakeError, Transaction, connect, serve
from trio_pyjo_ws._engine import tls
from trio_pyjo_ws._engine.sockets import Socket
from trio_pyjo_ws._engine.tls import TLS_OWED, TLS_PIECE, TLS_RECORDS, TLS_TURN, TlsTransport, open_transport
from trio_pyjo_ws._engine.transport import StreamTransport
from trio_pyjo_ws.testing import open_memory_pair
from trio_pyjo_ws.wire.protocol import Protocol

from ..peer import start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

BLOCK = bytes(range(256)) * 256
ROLES = pytest.mark.parametrize("role", ["client", "server"])
VERSIONS = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"]
)


class Contexts:
    """What an authority has certified."""

    def __init__(self) -> None:
        self.authority = trustme.CA()

    def server(self, *names: str, **issue: Any) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(*names or ("test",), **issue).configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


@pytest.fixture(scope="module")
def contexts() -> Contexts:
    return Contexts()


class Peer:
    """The ssl module on the other end. It does what it is told, when it is told."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, server_side: bool, name: str = "test") -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server_side, server_hostname=None if server_side else name
        )
        self.ended = False

    def take_in(self) -> bool:
        """Read what has come; return whether there was something."""
        try:
            data = self.sock.recv(1 << 20)
        except BlockingIOError:
            return False
        if data:
            self.incoming.write(data)
        elif not self.ended:
            self.ended = True
            self.incoming.write_eof()
        return bool(data)

    def flush(self) -> None:
        self.sock.sendall(self.outgoing.read())

    async def shake_hands(self) -> None:
        while not self.step():
            await trio.lowlevel.wait_readable(self.sock)
            self.take_in()

    def step(self) -> bool:
        """Go on with the handshake; return whether it is over."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self.flush()
        return True

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.flush()

    def read(self) -> bytes:
        """What has come by now. Raises SSLEOFError at an end without close_notify."""
        received = bytearray()
        with suppress(ssl.SSLWantReadError):
            while self.take_in() or self.ended or self.incoming.pending:
                while data := self.tls.read(1 << 16):
                    received += data
                return bytes(received)
        return bytes(received)

    async def receive(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            await trio.lowlevel.wait_readable(self.sock)
            received += self.read()
        return bytes(received)

    def notify_close(self) -> None:
        with suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


def small_pair() -> tuple[socket.socket, socket.socket]:
    """Whose first end takes no more than a few records."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return ours, theirs


def over(sock: socket.socket, context: ssl.SSLContext, role: str, name: str = "test") -> TlsTransport:
    """Our transport over a socket, as connect() and serve() open it."""
    sock.setblocking(False)
    stream = trio.SSLStream(
        trio.SocketStream(trio.socket.from_stdlib_socket(sock)),
        context,
        server_hostname=None if role == "server" else name,
        server_side=role == "server",
        https_compatible=True,
    )
    transport = open_transport(stream)
    assert isinstance(transport, TlsTransport)
    return transport


@asynccontextmanager
async def opened(
    role: str,
    contexts: Contexts,
    pair: Any = socket.socketpair,
    ours: ssl.SSLContext | None = None,
    theirs: ssl.SSLContext | None = None,
    name: str = "test",
) -> AsyncIterator[tuple[TlsTransport, Peer]]:
    """A transport and its peer that have not shaken hands."""
    our_end, their_end = pair()
    their_end.setblocking(False)
    made = {"client": contexts.client, "server": contexts.server}
    other = "client" if role == "server" else "server"
    transport = over(our_end, ours or made[role](), role, name)
    try:
        with their_end, trio.fail_after(10):
            yield transport, Peer(their_end, theirs or made[other](), other == "server", name)
    finally:
        transport.close()


@asynccontextmanager
async def connected(
    role: str, contexts: Contexts, pair: Any = socket.socketpair, **both: Any
) -> AsyncIterator[tuple[TlsTransport, Peer]]:
    async with opened(role, contexts, pair, **both) as (transport, peer):
        await shake_hands(transport, peer)
        yield transport, peer


async def shake_hands(transport: TlsTransport, peer: Peer) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.do_handshake)
        nursery.start_soon(peer.shake_hands)


def subject(tls: ssl.SSLObject) -> object:
    certificate = tls.getpeercert()
    return certificate and certificate["subjectAltName"]


async def shake_hands_in_vain(transport: TlsTransport, peer: Peer) -> tuple[Exception | None, Exception | None]:
    """What each side says of a handshake."""
    said: list[Exception | None] = [None, None]

    async def note(index: int, call: Any) -> None:
        try:
            await call()
        except (trio.BrokenResourceError, ssl.SSLError) as exc:
            said[index] = exc

    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, 0, transport.do_handshake)
        nursery.start_soon(note, 1, peer.shake_hands)
    return said[0], said[1]


def fill(transport: TlsTransport) -> int:
    """Send the blocks until the kernel takes no more; return how many bytes count as sent."""
    sent = 0
    while taken := transport.try_send((BLOCK + BLOCK)[sent % len(BLOCK) :][: len(BLOCK)]):
        sent += taken
    return sent


# Both roles


@VERSIONS
@ROLES
async def test_bytes_go_both_ways(role: str, version: ssl.TLSVersion, contexts: Contexts) -> None:
    theirs = contexts.client() if role == "server" else contexts.server()
    theirs.minimum_version = theirs.maximum_version = version
    async with connected(role, contexts, theirs=theirs) as (transport, peer):
        assert transport._tls.version() == peer.tls.version() == version.name.replace("_", ".")
        with trio.testing.assert_no_checkpoints():
            assert transport.try_send(b"over") == 4
            await transport.send_all(b" there")
        assert peer.read() == b"over there"
        peer.send(b"and back")
        assert await transport.receive() == b"and back"
        assert transport.try_receive() is None
        assert not transport.ready


@pytest.mark.parametrize("https_compatible", [True, False])
@ROLES
async def test_trios_own_stream_is_a_peer(role: str, https_compatible: bool, contexts: Contexts) -> None:
    our_end, their_end = tcp_pair()
    context = contexts.client() if role == "client" else contexts.server()
    transport = over(our_end, context, role)
    peer = trio.SSLStream(
        trio.SocketStream(trio.socket.from_stdlib_socket(their_end)),
        contexts.server() if role == "client" else contexts.client(),
        server_side=role == "client",
        server_hostname="test" if role == "server" else None,
        https_compatible=https_compatible,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.do_handshake)
        nursery.start_soon(peer.do_handshake)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.send_all, BLOCK * 16)
        received = bytearray()
        while len(received) < len(BLOCK) * 16:
            received += await peer.receive_some()
        assert received == BLOCK * 16
    await peer.send_all(b"back")
    assert await transport.receive() == b"back"
    transport.close()
    assert await peer.receive_some() == b""  # Also without https_compatible, for close_notify was sent.
    await peer.aclose()


@VERSIONS
async def test_two_of_ours_with_16_mib_each_way_at_once(version: ssl.TLSVersion, contexts: Contexts) -> None:
    ends = [small_pair, socket.socketpair][version is ssl.TLSVersion.TLSv1_2]()
    server_context = contexts.server()
    server_context.maximum_version = version
    client, server = over(ends[0], contexts.client(), "client"), over(ends[1], server_context, "server")
    data = os.urandom(1 << 20) * 16

    async def receive(transport: TlsTransport) -> None:
        received = bytearray()
        while len(received) < len(data):
            received += await transport.receive()
        assert received == data

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for transport in (client, server):
                nursery.start_soon(transport.do_handshake)
        async with trio.open_nursery() as nursery:
            for transport in (client, server):
                nursery.start_soon(transport.send_all, data)
                nursery.start_soon(receive, transport)
    client.close()
    assert await server.receive() == b""
    server.close()


# What is verified, and agreed


def expired() -> dict[str, Any]:
    return {"not_after": dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=1)}


@VERSIONS
@pytest.mark.parametrize(
    ("certify", "why", "alert"),
    [
        (lambda contexts: contexts.server("other"), "Hostname mismatch", "ALERT_BAD_CERTIFICATE"),
        (lambda _: Contexts().server(), "unable to get local issuer", "UNKNOWN_CA"),
        (lambda contexts: contexts.server("test", **expired()), "certificate has expired", "CERTIFICATE_EXPIRED"),
    ],
    ids=["wrong host", "untrusted", "expired"],
)
async def test_a_certificate_that_does_not_hold_is_refused_and_the_peer_told(
    certify: Any, why: str, alert: str, version: ssl.TLSVersion, contexts: Contexts
) -> None:
    theirs = certify(contexts)
    theirs.maximum_version = version
    async with opened("client", contexts, theirs=theirs) as (transport, peer):
        ours, said = await shake_hands_in_vain(transport, peer)
        assert isinstance(ours, trio.BrokenResourceError)
        assert why in str(ours)
        assert isinstance(ours.__cause__, ssl.SSLCertVerificationError)
        assert alert in str(said)
        with pytest.raises(trio.BrokenResourceError):
            transport.try_send(b"secret")


async def test_an_address_is_verified_as_well(contexts: Contexts) -> None:
    async with connected("client", contexts, theirs=contexts.server("::1"), name="::1") as (transport, _):
        assert subject(transport._tls) == (("IP Address", "0:0:0:0:0:0:0:1"),)
    async with opened("client", contexts, theirs=contexts.server("::1"), name="127.0.0.1") as (transport, peer):
        ours, _ = await shake_hands_in_vain(transport, peer)
        assert "IP address mismatch" in str(ours)


async def test_the_reason_is_told_although_the_peer_is_gone(nursery: trio.Nursery, contexts: Contexts) -> None:
    async with opened("client", contexts, theirs=contexts.server("other")) as (transport, peer):

        async def answer_and_go() -> None:
            await trio.testing.wait_all_tasks_blocked()
            peer.take_in()
            with pytest.raises(ssl.SSLWantReadError):
                peer.tls.do_handshake()
            peer.flush()
            peer.sock.close()

        nursery.start_soon(answer_and_go)
        with pytest.raises(trio.BrokenResourceError, match="Hostname mismatch"):
            await transport.do_handshake()


@VERSIONS
async def test_a_server_can_ask_for_a_certificate(version: ssl.TLSVersion, contexts: Contexts) -> None:
    asking = contexts.server()
    asking.verify_mode = ssl.CERT_REQUIRED
    asking.maximum_version = version
    contexts.authority.configure_trust(asking)
    theirs = contexts.client()
    contexts.authority.issue_cert("someone@test").configure_cert(theirs)
    async with connected("server", contexts, ours=asking, theirs=theirs) as (transport, _):
        assert subject(transport._tls) == (("email", "someone@test"),)
    async with connected("client", contexts, ours=theirs, theirs=asking) as (_, peer):
        assert subject(peer.tls) == (("email", "someone@test"),)
    async with opened("server", contexts, ours=asking) as (transport, peer):
        ours, _ = await shake_hands_in_vain(transport, peer)
        assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in str(ours)
    async with opened("client", contexts, theirs=asking) as (transport, peer):
        # Under TLS 1.3 the client's part of the handshake is over before it is refused.
        ours, _ = await shake_hands_in_vain(transport, peer)
        if version is ssl.TLSVersion.TLSv1_3:
            assert ours is None
            with pytest.raises(trio.BrokenResourceError, match="CERTIFICATE_REQUIRED"):
                await transport.receive()
        else:
            assert "HANDSHAKE_FAILURE" in str(ours)


async def test_the_server_learns_the_name_that_is_asked_for_and_may_choose_by_it(contexts: Contexts) -> None:
    asked: list[str | None] = []
    other = contexts.server("xn--bcher-kva.test")

    def choose(tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        asked.append(name)
        tls.context = other

    context = contexts.server("nobody")
    context.sni_callback = choose
    async with connected("client", contexts, theirs=context, name="xn--bcher-kva.test"):
        assert asked == ["xn--bcher-kva.test"]
    async with connected("server", contexts, ours=context, name="xn--bcher-kva.test"):
        assert asked == ["xn--bcher-kva.test"] * 2


@ROLES
async def test_alpn_is_agreed(role: str, contexts: Contexts) -> None:
    ours, theirs = (contexts.client(), contexts.server())[:: 1 if role == "client" else -1]
    ours.set_alpn_protocols(["http/1.1"])
    theirs.set_alpn_protocols(["h2", "http/1.1"])
    async with connected(role, contexts, ours=ours, theirs=theirs) as (transport, _):
        assert transport._tls.selected_alpn_protocol() == "http/1.1"


async def test_versions_that_do_not_meet_are_refused(contexts: Contexts) -> None:
    theirs = contexts.server()
    theirs.maximum_version = ssl.TLSVersion.TLSv1_2
    ours = contexts.client()
    ours.minimum_version = ssl.TLSVersion.TLSv1_3
    async with opened("client", contexts, ours=ours, theirs=theirs) as (transport, peer):
        said = await shake_hands_in_vain(transport, peer)
        assert "PROTOCOL_VERSION" in str(said[0])
        assert "UNSUPPORTED_PROTOCOL" in str(said[1])


async def test_a_session_that_was_set_is_resumed(contexts: Contexts) -> None:
    ours, theirs = contexts.client(), contexts.server()
    async with connected("client", contexts, ours=ours, theirs=theirs) as (transport, peer):
        peer.send(b"x")
        assert await transport.receive() == b"x"
        session = transport._tls.session
    our_end, their_end = socket.socketpair()
    their_end.setblocking(False)
    stream = trio.SSLStream(
        trio.SocketStream(trio.socket.from_stdlib_socket(our_end)), ours, server_hostname="test", https_compatible=True
    )
    stream.session = session
    with their_end:
        resuming = open_transport(stream)
        assert isinstance(resuming, TlsTransport)
        await shake_hands(resuming, Peer(their_end, theirs, server_side=True))
        assert resuming._tls.session_reused
        resuming.close()


# The handshake


@ROLES
async def test_a_cancelled_handshake_can_be_gone_on_with(role: str, contexts: Contexts) -> None:
    async with opened(role, contexts) as (transport, peer):
        cancelled = 0
        while transport._tls.cipher() is None:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(transport.do_handshake)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            cancelled += scope.cancelled_caught
            with suppress(ssl.SSLWantReadError):
                peer.take_in()
                peer.tls.do_handshake()
            peer.flush()
        assert cancelled
        await shake_hands(transport, peer)
        await transport.do_handshake()  # Nothing is left to do.
        await transport.send_all(b"well")
        assert peer.read() == b"well"


@ROLES
async def test_a_handshake_of_many_records_in_one_piece_is_taken_in_several_turns(
    role: str, contexts: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "TLS_RECORDS", 1)
    async with connected(role, contexts) as (transport, peer):
        assert transport.try_send(b"well") == 4
        assert peer.read() == b"well"


async def test_a_handshake_waits_for_the_kernel(contexts: Contexts) -> None:
    # So many names make a certificate that is longer than what the kernel takes.
    long = contexts.server("test", *(f"{number:060}.test" for number in range(300)))
    async with opened("server", contexts, small_pair, ours=long) as (transport, peer):
        await shake_hands(transport, peer)
        assert transport.try_send(b"well") == 4
        assert peer.read() == b"well"


@pytest.mark.parametrize("when", ["before", "in it"])
@ROLES
async def test_the_end_in_the_handshake_breaks_it(role: str, when: str, contexts: Contexts) -> None:
    async with opened(role, contexts) as (transport, peer):
        if when == "in it":
            with suppress(ssl.SSLWantReadError):
                peer.tls.do_handshake()
            peer.sock.sendall(peer.outgoing.read()[:20])
        peer.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(trio.BrokenResourceError, match="EOF"):
            await transport.do_handshake()


async def test_a_reset_in_the_handshake_breaks_it(nursery: trio.Nursery, contexts: Contexts) -> None:
    async with opened("client", contexts, tcp_pair) as (transport, peer):

        async def reset_soon() -> None:
            await trio.testing.wait_all_tasks_blocked()
            peer.reset()

        nursery.start_soon(reset_soon)
        with pytest.raises(trio.BrokenResourceError) as raised:
            await transport.do_handshake()
        assert isinstance(raised.value.__cause__, OSError)


@ROLES
async def test_closing_ends_the_handshake(role: str, nursery: trio.Nursery, contexts: Contexts) -> None:
    async with opened(role, contexts) as (transport, _):

        async def close_soon() -> None:
            await trio.testing.wait_all_tasks_blocked()
            transport.close()

        nursery.start_soon(close_soon)
        for _ in range(2):
            with pytest.raises(trio.ClosedResourceError):
                await transport.do_handshake()


@pytest.mark.parametrize(
    ("role", "sent", "why"),
    [
        ("server", b"GET / HTTP/1.1\r\nHost: test\r\n\r\n", "HTTP_REQUEST"),
        ("client", b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "WRONG_VERSION_NUMBER|UNEXPECTED_MESSAGE"),
        ("server", hashlib.sha384(b"noise").digest() * 500, None),
        ("client", bytes(1 << 15), None),
    ],
    ids=["HTTP request", "HTTP response", "noise", "zeros"],
)
async def test_what_is_not_tls_breaks_the_handshake(
    role: str, sent: bytes, why: str | None, contexts: Contexts
) -> None:
    async with opened(role, contexts) as (transport, peer):
        peer.sock.sendall(sent)
        with pytest.raises(trio.BrokenResourceError, match=why) as raised:
            await transport.do_handshake()
        assert isinstance(raised.value.__cause__, ssl.SSLError)


async def test_a_server_says_nothing_more_than_the_handshake_until_it_answers(contexts: Contexts) -> None:
    """Session tickets for a client that just sends, and closes, would reset the connection."""
    async with connected("server", contexts, tcp_pair) as (transport, peer):
        peer.send(b"all I have to say")
        peer.sock.close()
        await trio.lowlevel.wait_readable(transport.fd)
        assert transport.try_receive() == b"all I have to say"
        assert await transport.receive() == b""
    async with connected("server", contexts) as (transport, peer):
        assert not peer.take_in()
        assert transport.try_send(b"answer") == 6
        assert len(peer.sock.recv(1 << 16, socket.MSG_PEEK)) > 100  # The tickets have come along,
        assert peer.read() == b"answer"
        assert peer.tls.session is not None
        assert peer.tls.session.has_ticket
        transport.try_send(b"again")
        assert len(peer.sock.recv(1 << 16)) < 50  # once.


async def test_without_a_handshake_it_comes_by_itself_and_verifies_as_well(contexts: Contexts) -> None:
    async with opened("client", contexts, theirs=contexts.server("other")) as (transport, peer):
        assert transport.try_send(b"secret") == 0
        peer.take_in()
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        peer.flush()
        with pytest.raises(trio.BrokenResourceError, match="Hostname mismatch"):
            await transport.receive()


async def test_transactions_need_no_handshake_either(nursery: trio.Nursery, contexts: Contexts) -> None:
    """Whoever sends waits for who reads, and goes on."""
    ends = tcp_pair()
    client, server = (
        trio.SSLStream(
            trio.SocketStream(trio.socket.from_stdlib_socket(end)),
            context,
            server_side=server_side,
            server_hostname=None if server_side else "test",
        )
        for end, context, server_side in zip(ends, (contexts.client(), contexts.server()), (False, True), strict=True)
    )
    with trio.fail_after(10):
        ws, peer = open_memory_pair(nursery, streams=(client, server), max_websocket_size=len(BLOCK) * 64)
        nursery.start_soon(ws.send, BLOCK * 64)
        nursery.start_soon(peer.send, "hello")
        assert await peer.receive() == BLOCK * 64
        assert await ws.receive() == "hello"
        await ws.aclose()


async def test_who_waits_for_the_reader_wakes_when_it_is_closed(nursery: trio.Nursery, contexts: Contexts) -> None:
    async with opened("client", contexts) as (transport, _):

        async def close_soon() -> None:
            await trio.testing.wait_all_tasks_blocked()
            transport.close()

        nursery.start_soon(close_soon)
        with pytest.raises(trio.ClosedResourceError):
            await transport.send_all(b"x")


# What is received


@ROLES
async def test_many_records_in_one_piece_are_all_read_before_the_socket_is_waited_for(
    role: str, contexts: Contexts
) -> None:
    async with connected(role, contexts) as (transport, peer):
        for number in range(50):
            peer.send(b"%d" % number)
        await transport.wait_receive()
        received = [transport.try_receive()]
        while transport.ready:
            received.append(transport.try_receive())
        assert received == [b"%d" % number for number in range(50)]


async def test_the_largest_record_is_read_at_once(contexts: Contexts) -> None:
    async with connected("client", contexts) as (transport, peer):
        peer.send(BLOCK[:16_384] + b"next")
        assert await transport.receive() == BLOCK[:16_384]
        assert transport.ready
        assert await transport.receive() == b"next"
        assert not transport.ready


async def test_a_record_byte_by_byte_is_nothing_until_it_is_whole(contexts: Contexts) -> None:
    async with connected("client", contexts) as (transport, peer):
        transport.try_receive()  # the session tickets
        peer.tls.write(b"whole")
        record = peer.outgoing.read()
        for position in range(len(record) - 1):
            peer.sock.send(record[position : position + 1])
            assert transport.try_receive() is None
            assert not transport.ready
        peer.sock.send(record[-1:])
        assert await transport.receive() == b"whole"


async def test_a_cancelled_receive_loses_nothing(contexts: Contexts, autojump_clock: trio.testing.MockClock) -> None:
    async with connected("server", contexts) as (transport, peer):
        peer.tls.write(b"whole")
        record = peer.outgoing.read()
        peer.sock.send(record[:7])
        with trio.move_on_after(1) as scope:
            await transport.receive()
        assert scope.cancelled_caught
        peer.sock.send(record[7:])
        assert await transport.receive() == b"whole"


class CountingSocket(Socket):
    reads = 0

    def receive(self) -> bytes | None:
        self.reads += 1
        return super().receive()


async def test_a_flood_is_read_a_piece_at_a_time(contexts: Contexts) -> None:
    async with connected("server", contexts) as (transport, peer):
        counting = transport._socket = CountingSocket(transport._sock)
        peer.send(b"x" * 1000)
        assert await transport.receive() == b"x" * 1000
        assert counting.reads == 1
        assert transport.try_receive() is None
        assert counting.reads == 2


@pytest.mark.parametrize("ignoring", [False, True], ids=["as it is", "OP_IGNORE_UNEXPECTED_EOF"])
@pytest.mark.parametrize("how", ["close_notify", "the end", "the end within a record"])
@ROLES
async def test_the_end_of_the_stream_is_empty_bytes(role: str, how: str, ignoring: bool, contexts: Contexts) -> None:
    ours = contexts.client() if role == "client" else contexts.server()
    if ignoring:
        ours.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    async with connected(role, contexts, ours=ours) as (transport, peer):
        peer.send(b"last")
        if how == "close_notify":
            peer.notify_close()
        elif how == "the end":
            peer.sock.shutdown(socket.SHUT_WR)
        else:
            peer.tls.write(b"cut off")
            peer.sock.send(peer.outgoing.read()[:-1])
            peer.sock.shutdown(socket.SHUT_WR)
        assert await transport.receive() == b"last"
        for _ in range(3):
            assert await transport.receive() == b""
        if how == "close_notify":
            assert transport.try_send(b"still open this way") > 0
            assert peer.sock.recv(100)


async def test_python_3_10_has_another_name_for_the_end(contexts: Contexts) -> None:
    class Failing:
        def read(self, _: int) -> bytes:
            error = ssl.SSLError(1, "[SSL: UNEXPECTED_EOF_WHILE_READING] unexpected eof while reading")
            error.reason = "UNEXPECTED_EOF_WHILE_READING"
            raise error

        def unwrap(self) -> None:
            raise ssl.SSLEOFError

    async with connected("client", contexts) as (transport, peer):
        transport._tls = Failing()  # type: ignore[assignment]
        peer.send(b"x")
        assert await transport.receive() == b""


async def test_a_reset_breaks_the_receiving_and_the_sending(contexts: Contexts) -> None:
    async with connected("server", contexts, tcp_pair) as (transport, peer):
        peer.send(b"lost")
        assert await transport.receive() == b"lost"
        peer.reset()
        with pytest.raises(trio.BrokenResourceError) as raised:
            await transport.receive()
        assert isinstance(raised.value.__cause__, ConnectionResetError)
        with pytest.raises(trio.BrokenResourceError):
            await transport.send_all(b"x")


async def test_a_record_that_was_tampered_with_breaks_it_and_the_peer_is_told(contexts: Contexts) -> None:
    async with connected("server", contexts) as (transport, peer):
        peer.tls.write(b"genuine")
        record = bytearray(peer.outgoing.read())
        record[-1] ^= 1
        peer.sock.send(record)
        with pytest.raises(trio.BrokenResourceError, match=r"(?i)bad.record.mac") as raised:
            await transport.receive()
        assert isinstance(raised.value.__cause__, ssl.SSLError)
        with pytest.raises(trio.BrokenResourceError):
            transport.try_send(b"x")
        transport.close()
        with pytest.raises(ssl.SSLError, match=r"(?i)alert.bad.record.mac"):
            peer.read()


# What is sent


@VERSIONS
@ROLES
async def test_what_counts_as_sent_has_all_gone_to_the_kernel(
    role: str, version: ssl.TLSVersion, contexts: Contexts
) -> None:
    theirs = contexts.client() if role == "server" else contexts.server()
    theirs.maximum_version = version
    async with connected(role, contexts, small_pair, theirs=theirs) as (transport, peer):
        counted = fill(transport)
        assert transport._encrypted
        arrived = peer.read()
        assert counted <= len(arrived) < counted + TLS_PIECE
        assert transport.try_send(BLOCK[counted % len(BLOCK) :]) + counted >= len(arrived)


@pytest.mark.parametrize("portion", [1, 1000, TLS_PIECE - 1, TLS_PIECE, TLS_PIECE + 1, 1 << 22])
async def test_what_does_not_count_yet_may_come_again_in_other_portions(portion: int, contexts: Contexts) -> None:
    """As the rest of a piece comes alone, and the next pieces after it."""
    data = os.urandom(1 << 18)
    async with connected("client", contexts, small_pair) as (transport, peer):
        sent = transport.try_send(data)
        while transport._ahead == 0:
            sent += transport.try_send(data[sent:])
        received = bytearray()
        while sent < len(data):
            received += peer.read()
            for _ in range(200):
                sent += transport.try_send(data[sent : sent + portion])
                if transport._encrypted or sent == len(data):
                    break
        assert transport._ahead == 0
        received += peer.read()
        assert received == data


async def test_pieces_are_joined_and_encrypted(contexts: Contexts) -> None:
    async with connected("client", contexts) as (transport, peer):
        assert transport.try_send_pieces([b"head", b"", b"payload"]) == 11
        wire = peer.sock.recv(1 << 16, socket.MSG_PEEK)
        assert b"payload" not in wire
        assert peer.read() == b"headpayload"


async def test_pieces_of_which_the_kernel_takes_a_part(contexts: Contexts) -> None:
    """What is left of one piece comes next, and alone."""
    pieces = [b"head of it", os.urandom(300_000), b"head", os.urandom(TLS_TURN)]
    async with connected("client", contexts, small_pair) as (transport, peer):
        sent = transport.try_send_pieces(pieces)
        received = bytearray()
        assert sent == 0
        assert transport._ahead == TLS_PIECE
        for piece in pieces:
            offset = 0
            while offset < len(piece):
                received += peer.read()
                offset += transport.try_send(memoryview(piece)[offset:])
        received += peer.read()
        assert received == b"".join(pieces)


async def test_a_peer_that_takes_everything_does_not_keep_the_others_waiting(contexts: Contexts) -> None:
    class Taking(Socket):
        taken = 0

        def send(self, data: bytes | memoryview) -> int:
            self.taken += len(data)
            return len(data)

    async with connected("client", contexts) as (transport, _):
        taking = transport._socket = Taking(transport._sock)
        assert transport.try_send(bytes(TLS_TURN * 3)) == TLS_TURN
        assert transport.try_send_pieces([bytes(TLS_TURN - 1), bytes(TLS_TURN), bytes(TLS_TURN)]) == TLS_TURN
        assert TLS_TURN * 2 < taking.taken < TLS_TURN * 2 + 65_536


async def test_a_cancelled_send_is_gone_on_with(contexts: Contexts, autojump_clock: trio.testing.MockClock) -> None:
    data = os.urandom(1 << 20)
    async with connected("server", contexts, small_pair) as (transport, peer):
        sent = transport.try_send(data)
        received = bytearray()
        while sent < len(data):
            with trio.move_on_after(0.001):
                sent += await transport.send_some(memoryview(data)[sent:])
            with trio.CancelScope() as cancelled:
                cancelled.cancel()
                if sent < len(data):
                    sent += await transport.send_some(memoryview(data)[sent:])
            received += peer.read()
        received += peer.read()
        assert received == data


async def test_nothing_to_send_is_nothing(contexts: Contexts) -> None:
    async with connected("client", contexts) as (transport, peer):
        assert transport.try_send(b"") == 0
        await transport.send_all(b"")
        assert not peer.take_in()


async def test_a_peer_that_is_gone_breaks_the_sending(contexts: Contexts) -> None:
    async with connected("server", contexts) as (transport, peer):
        peer.sock.close()
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError, match="Broken pipe"):
                transport.try_send(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await transport.send_some(b"x")


# What TLS says in the middle of a connection


@pytest.fixture
def asking(contexts: Contexts) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context that may ask for a certificate at any time (RFC 8446, 4.6.2), and the client's for that."""
    server, client = contexts.server(), contexts.client()
    server.verify_mode = ssl.CERT_REQUIRED
    contexts.authority.configure_trust(server)
    contexts.authority.issue_cert("someone@test").configure_cert(client)
    server.post_handshake_auth = client.post_handshake_auth = True
    return server, client


@pytest.mark.parametrize("behind", [b"", b"data"], ids=["alone", "with data behind"])
async def test_a_request_for_a_certificate_is_answered_while_reading(
    behind: bytes, asking: tuple[ssl.SSLContext, ssl.SSLContext], contexts: Contexts
) -> None:
    server, client = asking
    async with connected("client", contexts, ours=client, theirs=server) as (transport, peer):
        assert peer.tls.getpeercert() is None
        peer.tls.verify_client_post_handshake()
        peer.tls.do_handshake()
        if behind:
            peer.tls.write(behind)
        peer.flush()
        await transport.wait_receive()
        received = transport.try_receive()
        assert (received or b"") == behind
        assert peer.read() == b""
        assert subject(peer.tls) == (("email", "someone@test"),)
        peer.send(b"on")
        assert await transport.receive() == b"on"


async def test_an_answer_that_nobody_takes_does_not_lose_what_was_read(
    asking: tuple[ssl.SSLContext, ssl.SSLContext], contexts: Contexts
) -> None:
    server, client = asking
    async with connected("client", contexts, ours=client, theirs=server) as (transport, peer):
        peer.tls.verify_client_post_handshake()
        peer.tls.do_handshake()
        peer.send(b"last words")
        peer.sock.close()
        assert await transport.receive() == b"last words"
        assert await transport.receive() == b""
        with pytest.raises(trio.BrokenResourceError):
            transport.try_send(b"x")


async def test_a_peer_that_wants_answers_and_does_not_read_them_is_dropped(contexts: Contexts) -> None:
    async with connected("client", contexts, small_pair) as (transport, peer):
        peer.send(b"x")
        assert await transport.receive() == b"x"
        fill(transport)
        transport._outgoing.write(bytes(TLS_OWED))  # as after many refused renegotiations
        peer.send(b"x")
        with pytest.raises(trio.BrokenResourceError, match="wants answers"):
            await transport.receive()


class Keys:
    """The keys of one direction of TLS 1.3 with AES-256-GCM and SHA-384, from a key log (RFC 8446, 5.2 and 7)."""

    def __init__(self, log: str, label: str) -> None:
        lines = [line.split() for line in log.splitlines()]
        self.use(bytes.fromhex(next(line[2] for line in lines if line[0] == label)))

    def use(self, secret: bytes) -> None:
        self.secret, self.sequence = secret, 0
        self.aead, self.iv = AESGCM(self.expand("key", 32)), self.expand("iv", 12)

    def update(self) -> None:
        self.use(self.expand("traffic upd", 48))

    def expand(self, label: str, size: int) -> bytes:
        name = b"tls13 " + label.encode()
        info = struct.pack("!HB", size, len(name)) + name + b"\0"
        return hmac.digest(self.secret, info + b"\x01", hashlib.sha384)[:size]

    def _nonce(self) -> bytes:
        number = int.from_bytes(self.iv, "big") ^ self.sequence
        self.sequence += 1
        return number.to_bytes(12, "big")

    def record(self, kind: int, content: bytes) -> bytes:
        header = struct.pack("!BHH", 23, 0x303, len(content) + 17)
        return header + self.aead.encrypt(self._nonce(), content + bytes([kind]), header)

    def read(self, wire: bytes) -> tuple[int, bytes, bytes]:
        """The kind and the content of the first record, and what is behind it."""
        end = 5 + int.from_bytes(wire[3:5], "big")
        content = self.aead.decrypt(self._nonce(), wire[5:end], wire[:5])
        return content[-1], content[:-1], wire[end:]


HANDSHAKE, APPLICATION_DATA = 22, 23
KEY_UPDATE, REQUESTED = b"\x18\0\0\x01\0", b"\x18\0\0\x01\x01"


@pytest.mark.parametrize("times", [1, 3])
@ROLES
async def test_the_peer_may_change_its_keys_and_ask_for_ours_to_change(
    role: str, times: int, contexts: Contexts, tmp_path: Path
) -> None:
    """The ssl module cannot ask for it: here its keys are used by hand (RFC 8446, 4.6.3)."""
    client, server = contexts.client(), contexts.server()
    server.num_tickets = 0  # They would be records, and count.
    ours, theirs = (client, server) if role == "client" else (server, client)
    theirs.keylog_filename = str(tmp_path / "keys")
    async with connected(role, contexts, ours=ours, theirs=theirs) as (transport, peer):
        cipher = peer.tls.cipher()
        assert cipher is not None
        assert cipher[0] == "TLS_AES_256_GCM_SHA384"
        log = (tmp_path / "keys").read_text()
        to_us = Keys(log, f"{'SERVER' if role == 'client' else 'CLIENT'}_TRAFFIC_SECRET_0")
        from_us = Keys(log, f"{'CLIENT' if role == 'client' else 'SERVER'}_TRAFFIC_SECRET_0")
        for _ in range(times):
            peer.sock.sendall(to_us.record(HANDSHAKE, REQUESTED))
            to_us.update()
            peer.sock.sendall(to_us.record(APPLICATION_DATA, b"under new keys"))
            assert await transport.receive() == b"under new keys"
            assert transport.try_send(b"answer") == 6
            kind, content, rest = from_us.read(peer.sock.recv(1 << 16))
            assert (kind, content) == (HANDSHAKE, KEY_UPDATE)
            from_us.update()
            assert from_us.read(rest) == (APPLICATION_DATA, b"answer", b"")


@pytest.mark.parametrize("piece", [10, 1000, 1 << 20])
async def test_a_burst_of_new_keys_does_not_take_one_long_turn(piece: int, contexts: Contexts, tmp_path: Path) -> None:
    client = contexts.client()
    client.keylog_filename = str(tmp_path / "keys")
    async with connected("server", contexts, theirs=client) as (transport, peer):
        keys = Keys((tmp_path / "keys").read_text(), "CLIENT_TRAFFIC_SECRET_0")
        burst = b""
        for _ in range(1000):
            burst += keys.record(HANDSHAKE, KEY_UPDATE)
            keys.update()
        burst += keys.record(APPLICATION_DATA, b"under new keys")
        assert transport.try_receive() is None
        turns = 0
        for start in range(0, len(burst), piece):
            assert not transport.ready
            peer.sock.sendall(burst[start : start + piece])
            await transport.wait_receive()
            data = transport.try_receive()
            turns += 1
            while transport.ready:
                assert data is None
                data = transport.try_receive()
                turns += 1
        assert data == b"under new keys"
        assert turns > 1000 / TLS_RECORDS


# Closing


@VERSIONS
@ROLES
async def test_closing_sends_close_notify_and_waits_for_nothing(
    role: str, version: ssl.TLSVersion, contexts: Contexts
) -> None:
    theirs = contexts.client() if role == "server" else contexts.server()
    theirs.maximum_version = version
    async with connected(role, contexts, theirs=theirs) as (transport, peer):
        transport.try_receive()  # A socket that is closed with something unread resets the connection.
        transport.try_send(b"last")
        with trio.testing.assert_no_checkpoints():
            await transport.aclose()
            await transport.aclose()
        assert peer.read() == b"last"  # The end without close_notify would raise SSLEOFError.
        assert peer.sock.recv(1) == b""


async def test_closing_goes_well_whatever_the_peer_has_done(contexts: Contexts) -> None:
    async with connected("client", contexts, small_pair) as (transport, _):
        fill(transport)
        transport.close()  # The kernel takes no close_notify any more.
    async with connected("client", contexts) as (transport, peer):
        peer.sock.close()
        transport.close()
    async with connected("client", contexts, tcp_pair) as (transport, peer):
        peer.reset()
        transport.close()
    async with connected("client", contexts) as (transport, peer):
        peer.notify_close()
        assert await transport.receive() == b""
        transport.close()


async def test_after_the_end_of_this_direction_the_other_goes_on(contexts: Contexts) -> None:
    """Also what had come, and was not decrypted yet, is read after close_notify."""
    async with connected("server", contexts) as (transport, peer):
        peer.send(b"first")
        peer.send(b"second")
        assert await transport.receive() == b"first"
        transport.send_eof()
        assert peer.read() == b""
        assert await transport.receive() == b"second"
        peer.send(b"third")
        assert await transport.receive() == b"third"
        peer.notify_close()
        assert await transport.receive() == b""
        with pytest.raises(trio.BrokenResourceError):
            transport.try_send(b"x")


async def test_once_closed_nothing_can_be_done(contexts: Contexts) -> None:
    async with connected("client", contexts) as (transport, peer):
        peer.send(b"first")
        peer.send(b"second")
        assert await transport.receive() == b"first"
        transport.close()
        for call in (lambda: transport.try_send(b"x"), transport.try_receive):
            with pytest.raises(trio.ClosedResourceError):
                call()
        with pytest.raises(trio.ClosedResourceError):
            await transport.send_some(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await transport.wait_receive()
        transport.send_eof()


def count_descriptors() -> int:
    gc.collect()
    return len(list(Path("/dev/fd").iterdir()))


@contextmanager
def no_descriptor_stays_open() -> Iterator[None]:
    before = count_descriptors()
    yield
    assert count_descriptors() <= before


async def test_no_descriptor_is_left(contexts: Contexts) -> None:
    with no_descriptor_stays_open():
        for role in ("client", "server"):
            async with connected(role, contexts):
                pass
            async with opened(role, contexts) as (transport, peer):
                peer.sock.sendall(b"nonsense that is no TLS")
                with pytest.raises(trio.BrokenResourceError):
                    await transport.do_handshake()


# From streams


async def test_a_stream_that_cannot_be_taken_over_is_left_as_it_is(contexts: Contexts) -> None:
    our_end, their_end = socket.socketpair()
    stream = trio.SSLStream(
        trio.SocketStream(trio.socket.from_stdlib_socket(our_end)), contexts.client(), server_hostname="test"
    )
    stream.context = contexts.server()
    with their_end:
        with pytest.raises(ssl.SSLError, match="Cannot create a client socket"):
            open_transport(stream)
        assert stream.transport_stream.socket.fileno() >= 0
        await trio.aclose_forcefully(stream)


async def test_over_any_other_stream_tls_is_trios(contexts: Contexts) -> None:
    ends = trio.testing.memory_stream_pair()
    client = open_transport(trio.SSLStream(ends[0], contexts.client(), server_hostname="test", https_compatible=True))
    server = open_transport(trio.SSLStream(ends[1], contexts.server(), server_side=True, https_compatible=True))
    for transport in (client, server):
        assert isinstance(transport, StreamTransport)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.do_handshake)
        nursery.start_soon(server.do_handshake)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, b"through")
        assert await server.receive() == b"through"
    await client.aclose()
    assert await server.receive() == b""
    await server.aclose()


# Transactions


@asynccontextmanager
async def transacting(
    role: str, contexts: Contexts, pair: Any = socket.socketpair, **options: Any
) -> AsyncIterator[tuple[Transaction, TlsTransport, Peer, trio.Nursery]]:
    """A transaction over TLS, open, and its peer."""
    options.setdefault("ping_interval", None)
    async with connected(role, contexts, pair) as (transport, peer), trio.open_nursery() as nursery:
        yield start(nursery, transport, role, **options), transport, peer, nursery
        nursery.cancel_scope.cancel()


CLOSE = {"client": b"\x88\x02\x03\xe8", "server": b"\x88\x82\0\0\0\0\x03\xe8"}
MESSAGE = {"client": b"\x81\x02hi", "server": b"\x81\x82\0\0\0\0hi"}


@pytest.mark.parametrize("how", ["close_notify", "the end", "the end within a record", "reset"])
@ROLES
async def test_a_connection_that_is_cut_short_is_1006(role: str, how: str, contexts: Contexts) -> None:
    async with transacting(role, contexts, tcp_pair) as (ws, _, peer, _):
        peer.send(MESSAGE[role])
        assert await ws.receive() == "hi"
        if how == "close_notify":
            peer.notify_close()
        elif how == "the end":
            peer.sock.shutdown(socket.SHUT_WR)
        elif how == "reset":
            peer.reset()
        else:
            peer.tls.write(CLOSE[role])
            peer.sock.send(peer.outgoing.read()[:-1])
            peer.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionClosed):
            await ws.receive()
        assert ws.closed is not None
        assert ws.closed.code == 1006


@pytest.mark.parametrize("how", ["close_notify", "the end", "reset"])
@ROLES
async def test_after_close_was_exchanged_it_does_not_matter_how_the_stream_ends(
    role: str, how: str, contexts: Contexts
) -> None:
    async with transacting(role, contexts, tcp_pair) as (ws, _, peer, _):
        peer.send(CLOSE[role])
        with pytest.raises(trio.EndOfChannel):
            await ws.receive()
        assert (await peer.receive(4))[:2] in (b"\x88\x02", b"\x88\x82")
        if how == "close_notify":
            peer.notify_close()
        elif how == "the end":
            peer.sock.shutdown(socket.SHUT_WR)
        else:
            peer.reset()
        await ws.aclose()
        assert ws.is_finished
        assert ws.closed == Close(1000, "")


@ROLES
async def test_drain_waits_for_the_kernel_to_have_all(role: str, contexts: Contexts) -> None:
    async with transacting(role, contexts, small_pair) as (ws, transport, peer, nursery):
        drained: list[object] = []
        nursery.start_soon(partial(ws.send, drained.append, binary=BLOCK * 4))
        await trio.testing.wait_all_tasks_blocked()
        received = bytearray()
        while not drained:
            assert ws.__connection__.outbox.queued
            received += peer.read()
            await trio.testing.wait_all_tasks_blocked()
        assert not transport._encrypted
        assert transport._ahead == 0
        received += peer.read()
        assert len(received) == len(BLOCK) * 4 + (14 if role == "client" else 10)
        assert drained == [ws]


@ROLES
async def test_several_senders_with_a_peer_that_reads_little_keep_their_frames_whole(
    role: str, contexts: Contexts
) -> None:
    count, size = 20, 100_000
    async with transacting(role, contexts, small_pair) as (ws, _, peer, nursery):

        async def send(number: int) -> None:
            for _ in range(5):
                await ws.send(bytes([number]) * (size + number))
                await ws.send(f"{number}")

        for number in range(count):
            nursery.start_soon(send, number)
        reader = open_reader(role)
        messages: list[str | bytes] = []
        while len(messages) < count * 10:
            messages += reader(await peer.receive(1))
        for number in range(count):
            assert messages.count(bytes([number]) * (size + number)) == 5
            assert messages.count(f"{number}") == 5


def open_reader(role: str) -> Any:
    """What parses the frames that come from this role."""
    return Protocol("server" if role == "client" else "client", max_websocket_size=1 << 30).client_read


@ROLES
async def test_a_cancelled_large_send_is_completed(role: str, contexts: Contexts) -> None:
    async with transacting(role, contexts, small_pair) as (ws, _, peer, nursery):
        large = os.urandom(1 << 16) * 64

        async def send(scope: trio.CancelScope) -> None:
            with scope:
                await ws.send(large)

        for _ in range(3):
            scope = trio.CancelScope()
            nursery.start_soon(send, scope)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
        nursery.start_soon(ws.send, "behind it")
        reader = open_reader(role)
        messages: list[str | bytes] = []
        while "behind it" not in messages:
            messages += reader(await peer.receive(1))
        assert messages[-1] == "behind it"
        assert messages[0] == large
        assert set(messages[:-1]) == {large}


@ROLES
async def test_16_mib_each_way_at_once(role: str, contexts: Contexts) -> None:
    size = 16 * 2**20
    async with transacting(role, contexts, small_pair, max_websocket_size=size) as (ws, _, peer, nursery):
        data = os.urandom(1 << 20) * 16
        other = start_over(nursery, ws, peer, role, size)
        nursery.start_soon(ws.send, data)
        nursery.start_soon(other.send, data)
        assert await other.receive() == data
        assert await ws.receive() == data
        await ws.aclose()
        assert other.closed == Close(1000, "")


def start_over(nursery: trio.Nursery, ws: Transaction, peer: Peer, role: str, size: int) -> Transaction:
    """A transaction of ours in the place of the peer."""
    sock = socket.socket(fileno=peer.sock.detach())
    transport = TlsTransport(sock, peer.tls, peer.incoming, peer.outgoing)
    other = "server" if role == "client" else "client"
    return start(nursery, transport, other, max_websocket_size=size, ping_interval=None)


async def test_a_protocol_error_is_told_although_more_keeps_coming(contexts: Contexts) -> None:
    """Close 1002 is read by a peer that has sent more than was read."""
    async with transacting("server", contexts, tcp_pair) as (ws, _, peer, _):
        peer.send(b"\x81\x02hi" + MESSAGE["server"])  # not masked
        peer.send(MESSAGE["server"] * 1000)
        with pytest.raises(ConnectionClosed):
            await ws.receive()
        peer.send(MESSAGE["server"])
        received = await peer.receive(4)
        assert received[:4] == b"\x88" + received[1:2] + b"\x03\xea"
        peer.notify_close()
        peer.sock.shutdown(socket.SHUT_WR)
        await ws.aclose()


# From connect() and serve()


async def test_a_client_gives_up_a_stalled_handshake_at_open_timeout(
    nursery: trio.Nursery, contexts: Contexts, autojump_clock: trio.testing.MockClock
) -> None:
    our_end, their_end = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(our_end))
    their_end.setblocking(False)
    began = trio.current_time()
    with their_end:
        with pytest.raises(trio.TooSlowError):
            await connect(nursery, "wss://test", stream=stream, ssl_context=contexts.client(), open_timeout=7)
        assert trio.current_time() - began == pytest.approx(7)
        assert their_end.recv(1 << 16)[:1] == b"\x16"  # a ClientHello
        assert their_end.recv(1) == b""


async def test_a_server_gives_up_a_stalled_handshake_at_open_timeout(
    nursery: trio.Nursery, contexts: Contexts, mock_clock: trio.testing.MockClock
) -> None:
    async def never(_: Transaction) -> None:
        raise AssertionError

    server = await nursery.start(
        partial(serve, never, 0, host="127.0.0.1", ssl_context=contexts.server(), open_timeout=7)
    )
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.setblocking(False)
        client = Peer(sock, contexts.client(), server_side=False)
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        client.flush()
        await trio.lowlevel.wait_readable(sock)  # The server has answered, and now we say nothing.
        client.take_in()
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(6.9)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        mock_clock.jump(0.2)
        await trio.lowlevel.wait_readable(sock)
        assert sock.recv(1) == b""
    nursery.cancel_scope.cancel()


async def test_http_on_a_tls_port_ends_that_connection_only(nursery: trio.Nursery, contexts: Contexts) -> None:
    async def echo(ws: Transaction) -> None:
        await ws.send(await ws.receive())

    server = await nursery.start(partial(serve, echo, 0, host="127.0.0.1", ssl_context=contexts.server("127.0.0.1")))
    with trio.fail_after(30), socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.setblocking(False)
        sock.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\n\r\n")
        await trio.lowlevel.wait_readable(sock)
        with suppress(ConnectionResetError):
            assert not sock.recv(100).startswith(b"HTTP")
        ws = await connect(nursery, server.url, ssl_context=contexts.client())
        await ws.send("on")
        assert await ws.receive() == "on"
    nursery.cancel_scope.cancel()


async def test_tls_on_an_http_port_is_a_handshake_error(nursery: trio.Nursery, contexts: Contexts) -> None:
    async def never(_: Transaction) -> None:
        raise AssertionError

    server = await nursery.start(partial(serve, never, 0, host="127.0.0.1"))
    with trio.fail_after(30), pytest.raises(HandshakeError, match=r"TLS with 127\.0\.0\.1 failed"):
        await connect(nursery, f"wss://127.0.0.1:{server.port}/", ssl_context=contexts.client())
    nursery.cancel_scope.cancel()
