"""The other end of a connection under test: a socket and the bytes on it, in the test's own hands."""

from __future__ import annotations

import itertools
import socket
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from trio.lowlevel import ParkingLot

from trio_pyjo_ws import Transaction
from trio_pyjo_ws._engine import turn
from trio_pyjo_ws._engine.housekeeper import Housekeeper
from trio_pyjo_ws._engine.transport import SocketTransport, StreamTransport, Transport
from trio_pyjo_ws.options import Settings
from trio_pyjo_ws.wire.frames import Close, Frame, Opcode
from trio_pyjo_ws.wire.protocol import Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import pytest

OTHER: dict[str, Any] = {"client": "server", "server": "client"}


def set_clock(monkeypatch: pytest.MonkeyPatch, clock: Callable[[], float]) -> None:
    """Have ``clock`` tell when a turn is over, in place of ``perf_counter()``."""
    monkeypatch.setattr(turn, "perf_counter", clock)


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every look at the clock find that the turn is over."""
    set_clock(monkeypatch, partial(next, itertools.count(1e9)))  # later than any real one


class Turns:
    """Counts how often another task has had its turn."""

    def __init__(self) -> None:
        self.count = 0

    async def run(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.count += 1


def control(opcode: int, payload: bytes = b"") -> Frame:
    return Frame(True, False, False, False, opcode, payload)


class Recorder(SocketTransport):
    """Notes how much each system call has written; ``limit`` is what the kernel takes of one write at the most."""

    limit: int | None = None

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.writes: list[int] = []
        self.stalled = ParkingLot()

    def try_send(self, data: bytes | memoryview) -> int:
        sent = super().try_send(data[: self.limit])
        self.writes.append(sent)
        return sent

    def try_send_pieces(self, pieces: list[bytes]) -> int:
        left = sum(map(len, pieces)) if self.limit is None else self.limit
        taken: list[bytes] = []
        for piece in pieces:
            taken.append(piece[:left])
            left -= len(taken[-1])
        sent = super().try_send_pieces(taken)
        self.writes.append(sent)
        return sent

    async def send_some(self, data: bytes | memoryview) -> int:
        while self.limit == 0 and self.fd != -1:
            await self.stalled.park()
        return await super().send_some(data)

    def close(self) -> None:
        super().close()
        self.stalled.unpark_all()


class Peer:
    """Speaks the protocol when, and only when, it is told to. What it reads is parsed: a torn frame would be found."""

    def __init__(self, sock: socket.socket, role: str) -> None:
        self.sock = sock
        self.protocol = Protocol(OTHER[role], max_websocket_size=1 << 30)
        self.protocol.watch_frames = True
        self.gone = False
        self.answering = True
        """Whether it answers at all."""

    def send(self, *messages: str | bytes | Frame) -> None:
        """All in one piece."""
        self.sock.sendall(self.bytes_of(*messages))

    def bytes_of(self, *messages: str | bytes | Frame) -> bytes:
        for message in messages:
            if isinstance(message, Frame):
                self.protocol.send_frame(message)
            else:
                self.protocol.send_message(message)
        return self.protocol.take()

    def read(self) -> list[Frame]:
        """The frames that have come by now."""
        frames: list[Frame] = []
        while not self.gone:
            try:
                data = self.sock.recv(1 << 20)
            except BlockingIOError:
                break
            except ConnectionResetError:
                data = b""
            self.gone = not data
            events = self.protocol.client_read(data)
            while self.protocol.pending:
                events += self.protocol.client_read()
            frames += [event for event in events if isinstance(event, Frame)]
        return frames

    def read_messages(self) -> list[bytes]:
        return [frame.payload for frame in self.read() if frame.opcode in (Opcode.TEXT, Opcode.BINARY)]

    def answer(self) -> None:
        """Send the pongs, and the Close, that are owed for what was read."""
        answers = self.protocol.take()
        if self.answering:
            self.sock.sendall(answers)

    @property
    def close_code(self) -> int | None:
        """What the Close said that this peer has got; 1006 after an end without one."""
        close = self.protocol.close
        return close.code if close else Close(1006).code if self.gone else None


def start(
    nursery: trio.Nursery,
    transport: Transport,
    role: Any = "server",
    crash: Callable[[Exception], None] | None = None,
    **options: Any,
) -> Transaction:
    """A transaction over ``transport`` that has no opening handshake behind it, and lives in ``nursery``.

    ``crash`` is told of the exceptions of callbacks, in place of the nursery.
    """
    settings = Settings.of(options)
    keeper = Housekeeper(nursery)
    protocol = Protocol(role, max_websocket_size=settings.max_websocket_size)
    ws = Transaction(protocol, transport, keeper, settings, crash)
    keeper.retire()
    nursery.start_soon(keeper.run, name="housekeeper")
    ws.__connection__.start()
    return ws


@asynccontextmanager
async def connected(role: str = "server", **options: Any) -> AsyncIterator[tuple[Transaction, Peer, trio.Nursery]]:
    """A transaction on one end of a socket pair, and its peer. In the end the nursery is cancelled, which closes."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    # On the mock clock a test that hangs fails at once.
    with theirs, trio.fail_after(100_000):
        async with trio.open_nursery() as nursery:
            options.setdefault("ping_interval", None)
            ws = start(nursery, Recorder(ours), role, **options)
            yield ws, Peer(theirs, role), nursery
            nursery.cancel_scope.cancel()
        assert ws.is_finished
        assert ours.fileno() == -1


def writes(ws: Transaction) -> list[int]:
    assert isinstance(ws.__connection__.transport, Recorder)
    return ws.__connection__.transport.writes


def limit_writes(ws: Transaction, limit: int | None) -> None:
    assert isinstance(ws.__connection__.transport, Recorder)
    ws.__connection__.transport.limit = limit
    ws.__connection__.transport.stalled.unpark_all()


def stream_connection(
    nursery: trio.Nursery, stream: trio.abc.Stream, role: str = "server", **options: Any
) -> Transaction:
    """A transaction over any stream, which is used through its own methods."""
    options.setdefault("ping_interval", None)
    return start(nursery, StreamTransport(stream), role, **options)


def task_names(nursery: trio.Nursery) -> list[str]:
    """The background tasks of the connection, by the first word of their names."""
    return sorted(task.name.split()[0] for task in nursery.child_tasks)


class Flood(Transport):
    """A transport whose peer always has more to say, and takes whatever is written."""

    resumable = True
    ready = True

    def __init__(self, chunk: bytes) -> None:
        self.chunk = chunk
        self.reads = 0
        self.written = b""
        self.closed = False

    def try_send(self, data: bytes | memoryview) -> int:
        self.written += data
        return len(data)

    def try_receive(self) -> bytes:
        if self.closed:
            raise trio.ClosedResourceError("closed by the test")
        self.reads += 1
        return self.chunk

    def send_eof(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.close()


async def receive_all(channel: trio.abc.ReceiveChannel[Any], into: list[Any]) -> None:
    """Receive to the normal end."""
    with suppress(trio.EndOfChannel):
        while True:
            into.append(await channel.receive())
