"""Sending what takes more than queueing it: waiting, a message in pieces, the compression of a large one, a ping.

Until a message that goes in fragments has ended no other goes between them (RFC 6455, section 5.4): ``open_message`` of
the outbox keeps the others waiting. The peer must not take a part of a message for all of it, so a failure in the
middle closes the connection with 1011.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Generator
from secrets import token_bytes
from typing import TYPE_CHECKING

from trio.lowlevel import checkpoint_if_cancelled

from ..wire.frames import Frame, Opcode, is_control
from .connection import COMPRESSED_AT_ONCE
from .writing import wait_room, wait_turn, wait_written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..wire.fragments import Fragmenter
    from .connection import Connection

__all__ = ["ping", "send", "send_pieces", "wait_sent"]


async def send(
    connection: Connection,
    payload: str | bytes | Frame,
    compress: bool | None = None,
    sent: Callable[[], None] | None = None,
) -> None:
    """Send a message or a frame, and have ``sent`` called once all is handed over.

    Cancelled, it has queued the whole frame or nothing of it.
    """
    outbox = connection.outbox
    control = is_control(payload)
    if isinstance(payload, Frame):
        connection.transport.check_frames("frames")
    if outbox.must_wait(control):
        await wait_turn(outbox, control=control)
    if not isinstance(payload, Frame) and connection.takes_long(payload, compress):
        await _compress(connection, payload, sent)
    else:
        connection.queue(payload, compress, sent)
    outbox.write_soon()
    await wait_sent(connection)


async def wait_sent(connection: Connection) -> None:
    """Wait until all that is queued is written, or will be without its sender. Raises what ended the connection."""
    outbox = connection.outbox
    if outbox.broken and not connection.closed_here:
        raise connection.closed_error()
    if outbox.unsent:
        await wait_written(outbox, outbox.end)


async def _compress(connection: Connection, message: str | bytes, sent: Callable[[], None] | None) -> None:
    """Queue a large message compressed, in one frame, and let others run while it is being compressed."""
    outbox, protocol = connection.outbox, connection.protocol
    deflate = protocol.check_can_compress()
    payload = memoryview(message.encode() if isinstance(message, str) else message)
    outbox.begin_message()
    complete = False
    parts = []
    try:
        for start in range(0, len(payload), COMPRESSED_AT_ONCE):
            if start:
                await connection.housekeeper.yield_turn()
            if not connection.is_open():
                raise connection.closed_error()
            parts.append(deflate.compress_some(payload[start : start + COMPRESSED_AT_ONCE]))
        parts.append(deflate.end_compressed())
        opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
        connection.queue(Frame(True, True, False, False, opcode, b"".join(parts)), sent=sent)
        complete = True
    finally:
        if not complete:
            deflate.forget()
        outbox.end_message()


async def send_pieces(
    connection: Connection,
    source: AsyncIterable[object] | Iterable[object],
    opcode: int,
    compress: bool | None,
    sent: Callable[[], None] | None,
) -> None:
    """Send each piece of ``source`` as it comes; have ``sent`` called once all is handed over."""
    if not isinstance(source, AsyncIterable):
        source = _each(source)
    try:
        await wait_turn(connection.outbox, control=False)
        if not connection.is_open():
            raise connection.closed_error()
        await _send_fragments(connection, source, connection.protocol.fragmenter(opcode, compress), sent)
    finally:
        if isinstance(source, AsyncGenerator):
            await source.aclose()
    if connection.outbox.unsent:
        await wait_written(connection.outbox, connection.outbox.end)


async def _each(source: Iterable[object]) -> AsyncGenerator[object, None]:
    try:
        for piece in source:
            yield piece
    finally:
        if isinstance(source, Generator):
            source.close()


async def _send_fragments(
    connection: Connection, source: AsyncIterable[object], fragmenter: Fragmenter, sent: Callable[[], None] | None
) -> None:
    outbox = connection.outbox
    outbox.begin_message()
    try:
        async for piece in source:
            fragment = fragmenter.cut(piece)
            if fragment is not None:
                await checkpoint_if_cancelled()
                connection.queue(Frame.from_head(*fragment))
                outbox.write_soon()
                await wait_room(outbox)
                if connection.turn.is_over():
                    await connection.housekeeper.yield_turn()
        connection.queue(Frame.from_head(*fragmenter.end()), sent=sent)
        outbox.write_soon()
    except BaseException as exc:
        if (fragmenter.begun or isinstance(exc, Exception)) and connection.is_open():
            connection.close_soon(1011, "a message could not be completed")
        raise
    finally:
        outbox.end_message()


async def ping(connection: Connection, payload: bytes | None) -> float:
    """Send a ping, wait for its pong, and return the seconds that this took."""
    heartbeat = connection.heartbeat
    connection.transport.check_frames("pings")
    payload = token_bytes(4) if payload is None else payload
    if heartbeat.is_waiting(payload):
        raise ValueError(f"a ping with the payload {payload!r} is waiting for its pong already")
    await checkpoint_if_cancelled()
    if not connection.is_open():
        raise connection.closed_error()
    sent = heartbeat.expect(payload)
    try:
        connection.reading.attend_now()
        await sent.answered.wait()
    finally:
        heartbeat.forget(payload, sent)
    if sent.failure is not None:
        raise sent.failure
    return sent.latency
