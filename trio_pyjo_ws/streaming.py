"""A message that is received as it arrives, piece by piece.

Only the task that waits for such a message asks the protocol for pieces, and only while it reads itself. What somebody
else has read meanwhile is a whole message; before one that may be too large for that, he stops (``holding``). So a
cancelled wait leaves nothing begun behind. Once the first piece is there whoever reads puts the others behind it.
"""

from __future__ import annotations

from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Literal

import trio
from trio.lowlevel import checkpoint_if_cancelled

from .connection import TURN
from .wire.fragments import Piece

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from .connection import Connection

__all__ = ["MessageStream"]


class MessageStream:
    """One message while it is received; see :meth:`Transaction.receive_stream`.

    ``async for piece in message`` gives ``str`` of a text message, cut between characters, and ``bytes`` of a binary
    one, none of them empty. The loop ends with the message. Where the connection ends before, it raises
    :class:`ConnectionClosed`, also after a normal close, or :class:`trio.ClosedResourceError` where this side has
    closed it. Each step is a checkpoint as :meth:`Transaction.receive` is; cancelling it loses nothing.
    """

    def __init__(self, connection: Connection) -> None:
        self.kind: Literal["text", "binary"]
        """Whether it is a text or a binary message, as its first frame tells. Once the block is entered."""
        self._connection = connection
        self._pieces: deque[Piece] = deque()
        self._asked = False
        self._begun = False
        self._ended = False
        self._waiting = False

    def __repr__(self) -> str:
        state = "ended" if self._ended else "open" if self._connection._stream is self else "not open"
        return f"<MessageStream {state} of {self._connection!r}>"

    async def __aenter__(self) -> Self:
        connection = self._connection
        if connection._receiving:
            raise trio.BusyResourceError("another task is receiving from this connection already")
        if self._begun:
            raise trio.ClosedResourceError("this message has been received; receive_stream() gives the next")
        await checkpoint_if_cancelled()
        connection._receiving = connection._streamed = True
        connection._stream = self
        try:
            while not self._pieces:
                if connection._inbox:
                    self._add(Piece(connection._inbox.pop(0), True))
                else:
                    await self._wait()
        except BaseException:
            self._leave()
            raise
        self.kind = "text" if isinstance(self._pieces[0].data, str) else "binary"
        if not connection._attended:
            connection._attend()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        connection = self._connection
        await checkpoint_if_cancelled()
        if perf_counter() - connection._housekeeper.turn_started > TURN:
            await connection._yield()
        while not self._ended:
            if connection._stream is not self:
                raise trio.ClosedResourceError("the block that receives this message is not open")
            if not self._pieces:
                try:
                    await self._wait()
                except trio.EndOfChannel:
                    raise connection._closed_error() from None
                continue
            data, self._ended = self._pieces.popleft()
            connection._wake_readers()
            if data:
                if not connection._attended:
                    connection._attend()
                return data
        raise StopAsyncIteration

    async def _wait(self) -> None:
        """Take a step towards the next piece. Raises what tells that none will come."""
        connection = self._connection
        connection._prepare_to_wait()
        self._ask()
        self._waiting = True
        try:
            if not connection._reading:
                await connection._advance()
            elif self._asked:
                connection._take_in(b"")
            self._ask_no_more()
            if connection._reading and not self._pieces:
                await connection._wait_reader()
        finally:
            self._waiting = False
            self._ask_no_more()
            connection._wake_readers()

    def _ask(self) -> None:
        connection = self._connection
        protocol = connection._protocol
        if self._begun or protocol.giving_pieces or connection._events:
            return  # The rest of a message whose block was left comes first.
        # What somebody else reads comes whole, but for a message of which he has read a part.
        if not connection._reading or protocol.midway:
            self._asked = True
            protocol.give_pieces()

    def _ask_no_more(self) -> None:
        protocol = self._connection._protocol
        if self._asked and not (self._begun or protocol.giving_pieces):
            self._asked = False
            protocol.give_whole()

    def _add(self, piece: Piece) -> None:
        self._begun = True
        self._pieces.append(piece)

    def _leave(self) -> None:
        connection = self._connection
        connection._stream = None
        connection._receiving = False
        connection._wake_readers()
        if not connection._attended:
            connection._attend()

    def _is_full(self) -> bool:
        settings = self._connection._settings
        pieces = self._pieces
        size = sum(len(piece.data) for piece in pieces)
        return len(pieces) >= settings.max_queue or size >= settings.max_queue_bytes
