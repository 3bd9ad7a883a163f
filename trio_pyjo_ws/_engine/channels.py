"""The memory channels that carry a transaction's events.

They have the surface and the behaviour of :class:`trio.MemoryReceiveChannel`, which is final, but for this: a
``receive()`` that finds nothing reads from the network itself, as :meth:`Transaction.receive` does, and checkpoints are
amortised.

A :class:`Queue` is what one subscription holds; the clones of a channel share it. An item belongs to the first task
that waits for one, from the moment in which it is put there: nobody else can take it, and if that task is cancelled, it
goes to the next.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled, current_task

from ..json_codec import UndecodedJson
from .reading import Waiter, wait_for_news

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["ChannelStatistics", "EventChannel", "Queue"]

T_co = TypeVar("T_co", covariant=True)

_NOTHING: Any = object()


class ChannelStatistics(NamedTuple):
    """What :meth:`EventChannel.statistics` returns: the fields of :class:`trio.MemoryChannelStatistics`."""

    current_buffer_used: int
    """Items that wait to be received."""
    max_buffer_size: int
    """The number of items that it holds."""
    open_send_channels: int
    """1 until the channel ends."""
    open_receive_channels: int
    """Clones of the channel that are open."""
    tasks_waiting_send: int
    """Always 0: nothing is read from the network that the channel has no room for."""
    tasks_waiting_receive: int
    """Tasks that wait in ``receive()``."""
    peak_buffer_used: int
    """The most items that have waited at once."""


class Source(Waiter, Protocol):
    """What a queue asks of the connection that feeds it."""

    name: str

    def wake(self, task: trio.lowlevel.Task) -> None:
        """Have a task look again that waits for news."""
        ...

    def room_was_made(self) -> None:
        """An item was taken."""
        ...

    def end_of_channel(self) -> Exception:
        """What the end of a channel says of how the connection ended."""
        ...


class _Waiting:
    """A task in ``receive()``, and what it was given."""

    __slots__ = ("channel", "item")

    def __init__(self, channel: object) -> None:
        self.channel = channel
        self.item: Any = _NOTHING


class Queue:
    """The items of one subscription. ``put`` never waits: whoever feeds it asks for its ``room``."""

    __slots__ = ("_closed", "_connection", "_peak", "_waiting", "capacity", "channels", "ended", "items", "reports_end")

    def __init__(self, connection: Source, capacity: int, *, reports_end: bool = False) -> None:
        self._connection = connection
        self.capacity = capacity
        self.items: deque[Any] = deque()
        self.channels: set[object] = set()
        """The open clones of its channel."""
        self.ended = False
        """Whether nothing will be put into it any more."""
        self.reports_end = reports_end
        """Whether its end says how the connection ended."""
        self._waiting: OrderedDict[trio.lowlevel.Task, _Waiting] = OrderedDict()
        self._closed: Callable[[], None] | None = None
        self._peak = 0

    @property
    def room(self) -> int:
        """Items that may be put into it."""
        return self.capacity - len(self.items)

    def put_all(self, items: list[Any]) -> None:
        """Add items, for each of which there is room."""
        if self._waiting:
            for item in items:
                self.put(item)
        else:
            self.items += items
            self._peak = max(self._peak, len(self.items))

    def put(self, item: Any) -> None:
        """Add an item, or give it to the first task that waits for one."""
        if not self._give(item):
            self.items.append(item)
            self._peak = max(self._peak, len(self.items))

    def _give(self, item: Any) -> bool:
        for task, waiting in self._waiting.items():
            if waiting.item is _NOTHING:
                waiting.item = item
                self._connection.wake(task)
                return True
        return False

    def end(self) -> None:
        """Nothing more comes: the channels end, behind what is here."""
        self.ended = True
        for task in self._waiting:
            self._connection.wake(task)

    def on_close(self, call: Callable[[], None]) -> None:
        """Have ``call`` called when the last clone is closed."""
        self._closed = call

    def remove(self, channel: object) -> None:
        """A clone was closed."""
        self.channels.discard(channel)
        for task, waiting in self._waiting.items():
            if waiting.channel is channel:
                self._connection.wake(task)
        if not self.channels and self._closed is not None:
            self._closed()

    def take(self) -> Any:
        """The first item. Raises WouldBlock if there is none, or the error that ends the channel if none will come."""
        if self.items:
            item = self.items.popleft()
            self._connection.room_was_made()
            return item
        if self.ended:
            raise self._end()
        raise trio.WouldBlock

    async def wait(self, channel: object) -> Any:
        """Wait for an item that is this task's, reading from the network if nobody else does."""
        connection = self._connection
        task = current_task()
        waiting = self._waiting[task] = _Waiting(channel)
        try:
            while waiting.item is _NOTHING:
                self._check(channel)
                await wait_for_news(connection, task)
        except BaseException as exc:
            if waiting.item is _NOTHING:
                raise
            # As trio's channels do: what has come is received, and the next checkpoint is cancelled. If it went on to
            # another task, one that has gone on meanwhile would be given it behind its successor.
            if not isinstance(exc, trio.Cancelled):
                if not self._give(waiting.item):
                    self.items.appendleft(waiting.item)
                raise
        finally:
            del self._waiting[task]
            connection.reading.attend()
        return waiting.item

    def _check(self, channel: object) -> None:
        if channel not in self.channels:
            raise trio.ClosedResourceError("this channel is closed")
        if self.ended:
            raise self._end()

    def _end(self) -> Exception:
        return self._connection.end_of_channel() if self.reports_end else trio.EndOfChannel()

    def statistics(self) -> ChannelStatistics:
        """What :meth:`EventChannel.statistics` returns."""
        return ChannelStatistics(
            current_buffer_used=len(self.items),
            max_buffer_size=self.capacity,
            open_send_channels=int(not self.ended),
            open_receive_channels=len(self.channels),
            tasks_waiting_send=0,
            tasks_waiting_receive=len(self._waiting),
            peak_buffer_used=self._peak,
        )


class EventChannel(trio.abc.ReceiveChannel[T_co], Generic[T_co]):
    """A channel of a transaction's events, made by :meth:`Transaction.open_channel`.

    It has the methods of :class:`trio.MemoryReceiveChannel`. ``async for`` takes items until the channel ends: after
    :meth:`Transaction.unsubscribe`, and after the connection has ended. A channel of what the peer sends raises
    :class:`ConnectionClosed` unless the peer closed normally or this side closed.
    """

    __slots__ = ("_connection", "_decode", "_queue")

    def __init__(self, connection: Source, queue: Queue, decode: Callable[[str | bytes], Any] | None = None) -> None:
        self._connection = connection
        self._queue = queue
        self._decode = decode
        queue.channels.add(self)

    def __repr__(self) -> str:
        return f"<EventChannel of {self._connection.name}, using {self._queue.statistics()}>"

    def receive_nowait(self) -> T_co:
        """Return an item that has arrived already.

        Raises :class:`trio.WouldBlock` if there is none, and what :meth:`receive` raises.
        """
        self._check_open()
        item = self._queue.take()
        found: T_co = item.decode(self._decode) if item.__class__ is UndecodedJson else item
        return found

    async def receive(self) -> T_co:
        """Return the next item.

        Raises :class:`trio.EndOfChannel` or :class:`ConnectionClosed` once no more can come,
        :class:`trio.ClosedResourceError` if this channel is closed, and ValueError for JSON that does not decode: that
        message is lost, and the connection goes on. A checkpoint, like :meth:`Transaction.receive`. Any number of tasks
        may wait; cancelling one loses no item.
        """
        queue = self._queue
        if self not in queue.channels:
            raise trio.ClosedResourceError("this channel is closed")
        await checkpoint_if_cancelled()
        if queue.items:
            item = queue.take()
            turn = self._connection.turn
            if turn.is_over():
                await cancel_shielded_checkpoint()  # The item is out of the queue: there is no way back.
                turn.begin()
        else:
            item = await queue.wait(self)
        found: T_co = item.decode(self._decode) if item.__class__ is UndecodedJson else item
        return found

    def clone(self) -> EventChannel[T_co]:
        """Return another channel of the same items: each item goes to one of them.

        Raises :class:`trio.ClosedResourceError` if this channel is closed.
        """
        self._check_open()
        return EventChannel(self._connection, self._queue, self._decode)

    def close(self) -> None:
        """Close this channel; with its last clone, its subscription ends."""
        if self in self._queue.channels:
            self._queue.remove(self)

    async def aclose(self) -> None:
        """Close as :meth:`close` does. A checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> ChannelStatistics:
        """Return the items and tasks that wait here, like :meth:`trio.MemoryReceiveChannel.statistics`."""
        return self._queue.statistics()

    def _check_open(self) -> None:
        if self not in self._queue.channels:
            raise trio.ClosedResourceError("this channel is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if exc is None:  # Otherwise a checkpoint could only replace the exception of the block.
            await trio.lowlevel.checkpoint()
