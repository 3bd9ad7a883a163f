"""Receiving a message, whole or as it arrives, and waiting for the end of the connection.

A :class:`MessageStream` *claims* the message that is arriving, or else the next: what comes of it collects there, and
the stream takes it out. Nothing is read for it beyond ``max_queue_bytes``. What comes after it was left is thrown
away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal

import trio
from trio.lowlevel import checkpoint_if_cancelled, current_task

from ..json_codec import UndecodedJson
from .reading import wait_for_news

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from ..wire.arriving import Arriving
    from .connection import Connection

__all__ = ["JsonMessages", "MessageStream", "finish", "receive"]


async def receive(connection: Connection) -> str | bytes:
    """Wait for a message: there is none yet, or others have to have their turn first."""
    inbox = connection.inbox
    task = current_task()
    inbox.open(task, False)
    try:
        if inbox.messages:
            await connection.housekeeper.yield_turn()
        while connection.lacks_message():
            await wait_for_news(connection, task)
    finally:
        inbox.close()
        if not connection.reading.attended:
            connection.reading.attend()
    return connection.take_kept()


async def finish(connection: Connection, code: int | None, reason: str | None) -> None:
    """Begin to close, if that has not begun, and wait for the end. Cancelled, closing goes on in the background."""
    connection.begin_close(code, reason)
    task = current_task()
    connection.closers.add(task)
    try:
        while not connection.ended:
            await wait_for_news(connection, task)
    finally:
        connection.closers.discard(task)
        connection.reading.attend_now()


class JsonMessages(AsyncIterator[Any]):
    """The messages of a connection as the objects that they stand for; see :meth:`Transaction.iter_json`."""

    __slots__ = ("_connection", "_decode")

    def __init__(self, connection: Connection, decode: Callable[[str | bytes], Any] | None) -> None:
        self._connection = connection
        self._decode = decode

    async def __anext__(self) -> Any:
        await checkpoint_if_cancelled()
        connection = self._connection
        message = connection.take_message()
        if message is None:
            try:
                message = await receive(connection)
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
        return UndecodedJson(message, connection.json).decode(self._decode)


class MessageStream:
    """One message while it is received; see :meth:`Transaction.receive_stream`.

    ``async for piece in message`` yields ``str`` of a text message, cut between characters, or ``bytes`` of a binary
    one, and no empty pieces. The loop ends with the message. If the connection ends before, it raises
    :class:`ConnectionClosed`, also after a normal close, or :class:`trio.ClosedResourceError` if this side has closed
    it. Each step is a checkpoint as :meth:`Transaction.receive` is; cancelling it loses nothing.
    """

    def __init__(self, connection: Connection) -> None:
        self.kind: Literal["text", "binary"]
        """Whether it is a text or a binary message, as its first frame tells. Once the block is entered."""
        self._connection = connection
        self._whole: str | bytes | None = None  # a message that had come whole
        self._arriving: Arriving | None = None  # one that comes
        self._entered = False
        self._open = False
        self._ended = False

    def __repr__(self) -> str:
        state = "ended" if self._ended else "open" if self._open else "not open"
        return f"<MessageStream {state} of {self._connection.name}>"

    async def __aenter__(self) -> Self:
        inbox = self._connection.inbox
        if inbox.receiving:
            raise trio.BusyResourceError("another task is receiving from this connection already")
        if self._entered:
            raise trio.ClosedResourceError("this message has been received; receive_stream() gives the next")
        await checkpoint_if_cancelled()
        inbox.open(None, True)
        self._entered = self._open = True
        try:
            await self._begin()
        except BaseException:
            self._unclaim()
            self._leave()
            raise
        return self

    async def _begin(self) -> None:
        """Take the first message that has come whole, or else wait until one begins."""
        connection = self._connection
        while True:
            arriving = self._arriving
            if arriving is None:
                connection.inbox.call_owed()  # What a callback leaves of that came before what arrives now.
                if connection.inbox.messages:
                    whole = self._whole = connection.take_kept()
                    self.kind = "text" if isinstance(whole, str) else "binary"
                    return
                if connection.inbox.dropped:  # Behind a hole nothing is received.
                    raise connection.end_of_messages()
                arriving = connection.protocol.arriving
                if not arriving.discarded:  # by a stream that was left before it had all
                    arriving.claim()
                    self._arriving = arriving
                    connection.inbox.enter(arriving)
            if arriving is self._arriving and arriving.begun:
                self.kind = "text" if arriving.is_text else "binary"
                connection.inbox.enter(None)
                return
            if connection.has_ended_messages():
                raise connection.end_of_messages()
            await self._wait()

    def _unclaim(self) -> None:
        """The wait for a message was cancelled: what has come of it meanwhile is for others."""
        arriving, self._arriving = self._arriving, None
        if arriving is None:
            return
        if arriving.ended:
            self._connection.inbox.hand_back(arriving.take())
        elif not self._connection.protocol.unclaim():
            arriving.discard()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        connection = self._connection
        await checkpoint_if_cancelled()
        if connection.turn.is_over():
            await connection.housekeeper.yield_turn()
        while not self._ended:
            if not self._open:
                raise trio.ClosedResourceError("the block that receives this message is not open")
            if piece := self._take():
                return piece
            if not self._ended:
                if connection.ended:
                    raise connection.closed_error()
                await self._wait()
        raise StopAsyncIteration

    def _take(self) -> str | bytes:
        """What has come; perhaps nothing, perhaps the end."""
        arriving = self._arriving
        if arriving is None:
            whole, self._whole = self._whole, None
            self._ended = True
            return whole or b""
        piece = arriving.take()
        if piece:
            self._connection.room_was_made()
        elif arriving.ended:
            self._ended = True
        return piece

    async def _wait(self) -> None:
        task = current_task()
        self._connection.inbox.expect(task)
        try:
            await wait_for_news(self._connection, task)
        finally:
            self._connection.inbox.expect(None)

    def _leave(self) -> None:
        connection, arriving = self._connection, self._arriving
        self._open = False
        connection.inbox.close()
        if arriving is not None and not self._ended:
            arriving.discard()
        connection.room_was_made()
        connection.reading.attend()
