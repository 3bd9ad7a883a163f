"""A connection under attack: opened as in life, and then its peer sends whatever bytes the test wants.

Each attack has a neighbour, another connection of the same server, or in the same nursery. At the end of the test the
attacked connection must have ended and left nothing behind, and the neighbour must not have noticed.
"""

from __future__ import annotations

import itertools
import math
import os
import socket
import struct
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from trio.testing import MemoryReceiveStream, MemorySendStream, wait_all_tasks_blocked

from trio_pyjo_ws import ConnectionClosed, Transaction, connect, serve_listeners
from trio_pyjo_ws.handshake.negotiate import accept_value
from trio_pyjo_ws.wire.frames import Frame, Opcode, apply_mask, parse_frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

Application = Callable[[Transaction], Awaitable[None]]

KEY = b"mask"
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%b\r\n"
)
RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %b\r\n%b\r\n"
)
LONG = 1000
"""Seconds: more than any timeout of the library's. On the mock clock they pass at once."""

LIMIT = 2 * 262_144 + 1_048_576
"""Bytes that a connection with the default options may take: two of the largest messages, and the queue."""

BUFFER = 65_536
"""Bytes, about, that a socket takes while the other end does not read: a flood soon has nowhere to go."""

FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
"""First bytes of frames: FIN and the opcode."""


class Memory:
    """The hostile end of a stream in memory, which takes whatever it is sent."""

    closed = False

    def __init__(self) -> None:
        self._to_victim = MemoryReceiveStream()
        self._from_victim = MemorySendStream()
        self.stream = trio.StapledStream(self._from_victim, self._to_victim)

    def send(self, data: bytes | memoryview) -> int:
        with suppress(trio.ClosedResourceError):  # There is nobody to be hurt any more.
            self._to_victim.put_data(data)
        return len(data)

    async def wait_send(self) -> None:
        raise AssertionError("it takes everything")

    def on_data(self, call: Callable[[], None]) -> None:
        """Have ``call`` called whenever something has come."""

        async def hook() -> None:
            call()

        self._from_victim.send_all_hook = hook

    def receive(self) -> bytes | None:
        """What has come: b"" at the end, None where there is nothing."""
        try:
            return bytes(self._from_victim.get_data_nowait())
        except trio.WouldBlock:
            return None

    def hang_up(self) -> None:
        self.closed = True
        with suppress(trio.ClosedResourceError):
            self._to_victim.put_eof()


class Socket:
    """The hostile end of a socket."""

    closed = False

    def __init__(self) -> None:
        ours, self.sock = socket.socketpair()
        for sock in (ours, self.sock):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        self.sock.setblocking(False)
        self.stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))

    def send(self, data: bytes | memoryview) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)  # There is nobody to be hurt any more.

    async def wait_send(self) -> None:
        with suppress(trio.ClosedResourceError):
            await trio.lowlevel.wait_writable(self.sock)

    def receive(self) -> bytes | None:
        try:
            return self.sock.recv(16_384)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return b""

    def hang_up(self) -> None:
        if not self.closed:
            self.closed = True
            trio.lowlevel.notify_closing(self.sock)
            self.sock.close()


class Tcp(Socket):
    """The hostile end of a connection over TCP, which can be reset."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.sock = socket.create_connection(listener.getsockname())
            ours = listener.accept()[0]
        self.sock.setblocking(False)
        self.stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))

    def reset(self) -> None:
        """End it without the courtesy of a FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.hang_up()


ENDS: dict[str, type[Memory | Socket]] = {"memory": Memory, "socket": Socket, "tcp": Tcp}


class Peer:
    """One connection: its transaction, what its application has seen, and the hostile end, to which nothing is sacred.

    ``role`` is the role of the library. ``messages`` and ``error`` are all that the application sees.
    """

    def __init__(self, role: str, over: str) -> None:
        self.role = role
        self.end = ENDS[over]()
        self.ws: Transaction = None  # type: ignore[assignment]  # until it is open
        self.messages: list[str | bytes] = []
        self.error: Exception | None = None
        self.handler_is_done = trio.Event()
        self.neighbour = self
        self.gone = False
        self.answers: list[Frame] = []
        """What an honest peer has been sent, but for pings."""
        self._received = bytearray()

    async def application(self, ws: Transaction) -> None:
        """What most handlers are."""
        async for message in ws:
            self.messages.append(message)

    # Sending

    def header(self, head: int, length: int, *, form: int | None = None, masked: bool | None = None) -> bytes:
        """The first bytes of a frame; ``form`` is the number of bytes of the extended length, else the shortest."""
        if form is None:
            form = 0 if length < 126 else 2 if length < 1 << 16 else 8
        masked = self.role == "server" if masked is None else masked
        second = (0x80 if masked else 0) | (length if form == 0 else {2: 126, 8: 127}[form])
        extended = length.to_bytes(form, "big") if form else b""
        return bytes([head, second]) + extended + (KEY if masked else b"")

    def frame(self, head: int, payload: bytes = b"", *, form: int | None = None, masked: bool | None = None) -> bytes:
        """The bytes of a frame, masked as the role of the peer asks, or as ``masked`` says."""
        header = self.header(head, len(payload), form=form, masked=masked)
        return header + (apply_mask(payload, KEY) if header.endswith(KEY) else payload)

    def fragments(self, head: int, payload: bytes, count: int) -> bytes:
        """A message in so many fragments; ``head`` is the first byte of it in one."""
        heads = [head & ~FIN, *[0] * (count - 1)]
        heads[-1] |= FIN
        cuts = itertools.pairwise(len(payload) * number // count for number in range(count + 1))
        return b"".join(self.frame(head, payload[start:stop]) for head, (start, stop) in zip(heads, cuts, strict=True))

    def send(self, *data: bytes) -> None:
        """All in one piece, and at once."""
        joined = b"".join(data)
        assert self.end.send(joined) == len(joined), "more than fits: pour() it"

    async def pour(self, data: bytes, times: float = 1) -> None:
        """Send ``data`` again and again, as fast as it is taken, until the connection is over."""
        view = memoryview(data)
        while times > 0 and not self._over():
            sent = 0
            while sent < len(data) and not self._over():
                sent += (taken := self.end.send(view[sent:]))
                if taken:
                    await trio.lowlevel.checkpoint()
                else:
                    await self.end.wait_send()
            times -= 1

    def _over(self) -> bool:
        return self.ws.is_finished or self.end.closed

    # What comes back

    def _receive(self) -> None:
        while not self.gone and (data := self.end.receive()) is not None:
            self.gone = not data
            self._received += data

    def read_head(self) -> bytes:
        """The request or the response of the opening handshake. Frames may stand behind it."""
        self._receive()
        head, end, rest = self._received.partition(b"\r\n\r\n")
        self._received = rest
        return bytes(head + end)

    def read(self) -> list[Frame]:
        """The frames that the library has sent by now, each of them whole."""
        self._receive()
        frames: list[Frame] = []
        while (frame := parse_frame(self._received)) is not None:
            frames.append(frame)
        assert not (self.gone and self._received), "a torn frame"
        return frames

    def be_honest(self) -> None:
        """Answer pings, as an honest peer does."""
        assert isinstance(self.end, Memory)
        self.end.on_data(self._answer)

    def _answer(self) -> None:
        for frame in self.read():
            if frame.opcode == Opcode.PING:
                self.send(self.frame(PONG, frame.payload))
            else:
                self.answers.append(frame)

    async def fails_with(self, code: int) -> None:
        """The peer is sent this code and then the end of the stream; the application sees ConnectionClosed, no more."""
        await wait_all_tasks_blocked()
        frames = self.read()
        assert [frame.opcode for frame in frames if frame.opcode != Opcode.PONG] == [Opcode.CLOSE]
        assert int.from_bytes(frames[-1].payload[:2], "big") == code
        frames[-1].payload[2:].decode()
        await self.is_closed_with(code)

    async def is_closed_with(self, code: int) -> None:
        """The connection is over; the application has seen just that, and has seen it at once."""
        assert trio.current_time() < 1, trio.current_time()
        self.end.hang_up()
        await wait_all_tasks_blocked()
        assert self.ws.is_finished
        assert self.handler_is_done.is_set()
        assert isinstance(self.error, ConnectionClosed)
        assert self.error.close.code == code

    async def ends_normally(self) -> None:
        """The application sees the end of the messages, and no error."""
        self.end.hang_up()
        await wait_all_tasks_blocked()
        assert self.ws.is_finished
        assert self.handler_is_done.is_set()
        assert self.error is None


class Listener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts what it is given."""

    def __init__(self) -> None:
        self.connect, self._accepted = trio.open_memory_channel[trio.abc.Stream](math.inf)

    async def accept(self) -> trio.abc.Stream:
        return await self._accepted.receive()

    async def aclose(self) -> None:
        self._accepted.close()


class Attack:
    """Opens connections of one role: of one server, or in one nursery."""

    def __init__(self, role: str, nursery: trio.Nursery, ends: ExitStack, options: dict[str, Any]) -> None:
        self.role = role
        self.nursery = nursery
        self.ends = ends
        self.options = options
        self.listener = Listener()
        self._accepting: Peer | None = None

    async def serve(self) -> None:
        await self.nursery.start(partial(serve_listeners, self._handle, [self.listener], **self.options))

    async def open(self, over: str, application: Application | None = None) -> Peer:
        peer = Peer(self.role, over)
        self.ends.callback(peer.end.hang_up)
        peer.application = application or peer.application  # type: ignore[method-assign]
        extension = _extension(self.options.get("compression"))
        if self.role == "server":
            self._accepting = peer
            self.listener.connect.send_nowait(peer.end.stream)
            peer.send(REQUEST % extension)
        else:
            self.nursery.start_soon(self._connect, peer)
            await wait_all_tasks_blocked()
            key = peer.read_head().partition(b"Sec-WebSocket-Key: ")[2][:24].decode()
            peer.send(RESPONSE % (accept_value(key).encode(), extension))
        await wait_all_tasks_blocked()
        if self.role == "server":
            assert peer.read_head().startswith(b"HTTP/1.1 101")
        assert peer.ws.established
        return peer

    async def _connect(self, peer: Peer) -> None:
        async with trio.open_nursery() as nursery:
            peer.ws = await connect(nursery, "ws://test/", stream=peer.end.stream, **self.options)
            await self._run(peer)

    async def _handle(self, ws: Transaction) -> None:
        assert self._accepting is not None
        self._accepting.ws = ws
        await self._run(self._accepting)

    async def _run(self, peer: Peer) -> None:
        try:
            await peer.application(peer.ws)
        except Exception as exc:
            peer.error = exc
        finally:
            peer.handler_is_done.set()


def _extension(compression: Any) -> bytes:
    """The header by which permessage-deflate is offered, and agreed on, with what ``compression`` asks for."""
    if not compression:
        return b""
    names = ("server_no_context_takeover", "client_no_context_takeover")
    asked = [f"; {name}" for name in names if getattr(compression, name, False)]
    return f"Sec-WebSocket-Extensions: permessage-deflate{''.join(asked)}\r\n".encode()


def descriptors() -> int:
    """How many file descriptors are open."""
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0  # noqa: PTH208 - the count only


@asynccontextmanager
async def attacked(
    role: str,
    *,
    over: str = "memory",
    application: Application | None = None,
    **options: Any,
) -> AsyncIterator[Peer]:
    """An open connection whose peer is hostile, and a neighbour that is checked at the end."""
    options.setdefault("ping_interval", None)
    before = descriptors()
    # On the mock clock a test that hangs fails at once.
    with ExitStack() as ends, trio.fail_after(3 * LONG):
        async with trio.open_nursery() as nursery:
            attack = Attack(role, nursery, ends, options)
            if role == "server":
                await attack.serve()
                await wait_all_tasks_blocked()
            tasks = trio.lowlevel.current_statistics().tasks_living
            neighbour = await attack.open("memory")
            neighbour.be_honest()
            peer = await attack.open(over, application)
            peer.neighbour = neighbour
            yield peer
            assert peer.ws.is_finished, "the test ends before the connection does"
            neighbour.send(neighbour.frame(TEXT, b"Is all well?"), neighbour.frame(CLOSE, b"\x03\xe8"))
            await wait_all_tasks_blocked()
            assert neighbour.messages == ["Is all well?"]
            assert neighbour.answers[-1].opcode == Opcode.CLOSE
            await neighbour.ends_normally()
            assert trio.lowlevel.current_statistics().tasks_living == tasks
            nursery.cancel_scope.cancel()
    assert descriptors() == before


@contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Gives a function that tells the most bytes that there were at once, of those allocated since the beginning."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
