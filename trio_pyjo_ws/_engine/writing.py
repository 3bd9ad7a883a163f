"""Waiting to write: for room, for the end of another's message, for the kernel.

A sender that has to wait writes itself if that is safe. It is over a socket, which tells how much it has taken when the
wait is cancelled. ``send_all`` of any other stream does not tell that, so nobody's cancellation reaches it: a task of
the nursery writes. If the nursery itself is cancelled, the connection ends for good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from trio.lowlevel import checkpoint_if_cancelled

if TYPE_CHECKING:
    from .outbox import Outbox

__all__ = ["drain", "wait_room", "wait_turn", "wait_written", "write_in_background"]


async def wait_turn(outbox: Outbox, *, control: bool) -> None:
    """Wait until something may be queued, or the connection is not open any more.

    ``control``: it is a control frame, which may go between the fragments of another's message.
    """
    while outbox.must_wait(control):
        if outbox.is_full():
            await wait_written(outbox, outbox.sent + 1)
        else:
            await outbox.waiting().park()


async def wait_room(outbox: Outbox) -> None:
    """Wait until less than the write limit is queued, or the connection is not open any more."""
    while outbox.is_full() and outbox.owner.is_open():
        await wait_written(outbox, outbox.sent + 1)


async def wait_written(outbox: Outbox, position: int) -> None:
    """Wait until the bytes up to ``position`` were handed over, and meanwhile be the writer if that is safe.

    Raises the error that explains why nothing can be sent any more, if the connection ends before that.
    """
    resumable = outbox.transport.resumable
    if not resumable:
        outbox.flush_or_write()  # A task in the background goes on until all is written.
    try:
        while outbox.sent < position:
            if outbox.broken:
                await checkpoint_if_cancelled()  # If the nursery was cancelled, this says so, not a closed socket.
                raise outbox.owner.closed_error()
            if outbox.writing or not resumable:
                await outbox.waiting().park()
            else:
                await _write_some(outbox)
    finally:
        if outbox.queued:
            outbox.flush_or_write()


async def drain(outbox: Outbox) -> None:
    """Wait until everything queued so far was handed over. A checkpoint."""
    await trio.lowlevel.checkpoint()
    position = outbox.end
    outbox.flush_or_write()
    await wait_written(outbox, position)


async def _write_some(outbox: Outbox) -> None:
    transport = outbox.transport
    data = outbox.begin_write()
    try:
        sent = await transport.send_some(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        outbox.give_up()
        return
    except BaseException:
        if not transport.resumable:
            outbox.owner.end()  # How much of the frame has left is not known.
        raise
    finally:
        outbox.end_write()
    if not outbox.broken:
        outbox.note_sent(sent)


async def write_in_background(outbox: Outbox) -> None:
    """Write until nothing is queued, or somebody else does."""
    try:
        while outbox.queued and not outbox.writing and not outbox.broken:
            await _write_some(outbox)
    finally:
        outbox.end_background()
