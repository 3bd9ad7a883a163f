"""Cancelling an operation at each of its checkpoints in turn, over whatever carries the bytes."""

from __future__ import annotations

import functools
import socket
import ssl
from typing import TYPE_CHECKING, Any

import trio
import trio.testing
import trustme

from trio_pyjo_ws._engine.transport import SocketTransport, StreamTransport
from trio_pyjo_ws.testing import Faults, FaultyStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_pyjo_ws import Transaction

LINKS = ["memory", "pieces", "stalls", "socket", "tls"]
"""What carries the bytes: memory; the same in small pieces; the same, stalled for a moment in the middle of a frame; a
socket whose buffer is small; TLS over that."""


class CancelAt(trio.abc.Instrument):
    """Cancels ``scope`` when a task pauses for the given time: this one, or ``any_task``."""

    def __init__(self, pause: int, any_task: bool = False) -> None:
        self.left = pause
        self.scope = trio.CancelScope()
        self.cancelled_at: float | None = None
        self.task = None if any_task else trio.lowlevel.current_task()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self.task is None or task is self.task:
            self.left -= 1
            if not self.left:
                self.scope.cancel()
                self.cancelled_at = trio.current_time()


async def run_cancelled(pause: int, run: Callable[[], Awaitable[Any]], any_task: bool = False) -> bool:
    """Run, and cancel at that pause; return whether the end came before it. Cancelled, it ends at once."""
    instrument = CancelAt(pause, any_task)
    trio.lowlevel.add_instrument(instrument)
    try:
        with instrument.scope:
            await run()
    finally:
        trio.lowlevel.remove_instrument(instrument)
    assert instrument.cancelled_at in (None, trio.current_time())
    return instrument.cancelled_at is None


async def at_each_pause(attempt: Callable[[int], Awaitable[bool]]) -> int:
    """Call ``attempt(pause)`` for 1, 2, ... until it has ended before that pause; return how many there are."""
    pause = 1
    # On the mock clock an attempt that hangs fails at once.
    while True:
        with trio.fail_after(100_000):
            if await attempt(pause):
                return pause
        pause += 1


@functools.cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The client's, and the server's, for memory.test and 127.0.0.1."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("memory.test", "127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return client, server


def open_link(kind: str, nursery: trio.Nursery) -> tuple[Any, Any]:
    """Two streams that are connected, of which the first has the faults. TLS is the caller's to put around them."""
    if kind in ("socket", "tls"):
        pair = socket.socketpair()
        for sock in pair:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in pair)
        return ours, theirs
    stream, theirs = trio.testing.memory_stream_pair()
    if kind == "pieces":
        return FaultyStream(stream, send=Faults(chunk_size=8192), receive=Faults(chunk_size=100)), theirs
    if kind == "stalls":
        faulty = FaultyStream(stream, send=Faults(stall_at=5), receive=Faults(stall_at=5))

        async def release() -> None:
            await trio.sleep(1.5)
            faulty.sending.release()
            await trio.sleep(0.5)
            faulty.receiving.release()

        nursery.start_soon(release)
        return faulty, theirs
    return stream, theirs


def open_streams(kind: str, nursery: trio.Nursery, role: str) -> tuple[Any, Any]:
    """The streams of :func:`open_link`, the client's first; the one of ``role`` has the faults."""
    streams = open_link(kind, nursery)
    client, server = streams if role == "client" else streams[::-1]
    if kind == "tls":
        ours, theirs = contexts()
        client = trio.SSLStream(client, ours, server_hostname="memory.test", https_compatible=True)
        server = trio.SSLStream(server, theirs, server_side=True, https_compatible=True)
    return client, server


def is_closed(ws: Transaction) -> bool:
    """Whether the socket, or the stream, is closed."""
    transport = ws.__connection__.transport
    if isinstance(transport, SocketTransport):
        return transport.fd == -1
    assert isinstance(transport, StreamTransport)
    return transport._closed
