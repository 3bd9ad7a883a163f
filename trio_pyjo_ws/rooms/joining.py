"""Rooms that connections join: :func:`open_rooms`, :class:`Rooms` and :class:`Room`.

The promise: a member gets every message of the room, in the room's one order, from its join on, or its connection is
closed. What keeps it is :mod:`~trio_pyjo_ws.rooms.audience`; where the order comes from is a broker's business: this
process (:mod:`~trio_pyjo_ws.rooms.memory`) or a server of Redis (:mod:`~trio_pyjo_ws.adapters.redis`).
"""

from __future__ import annotations

import math
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import trio

from .._engine.nursery import HiddenNursery
from ..arguments import by_value
from ..broadcasting import SLOW_CODES
from ..errors import Missed, RoomsUnavailable
from ..options import whole_number
from ..wire.protocol import MAX_WEBSOCKET_SIZE
from .audience import LOST, MAX_BACKLOG, Audience, Queue
from .memory import MemoryBroker
from .positions import Event, Position

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..arguments import Data
    from ..transaction import Transaction

__all__ = ["Room", "Rooms", "RoomsStatistics", "open_rooms"]

PATIENCE = 5.0
"""Seconds that a member waits for a message that another process has delivered."""

GOODBYE = 1.0
"""Seconds in which the broker is told that this process leaves."""


class RoomsStatistics(NamedTuple):
    """What :meth:`Rooms.statistics` returns, for this process, since the rooms were opened."""

    rooms: int
    """Rooms with members in this process."""
    members: int
    """Members in this process."""
    messages_published: int
    """Messages that this process has published."""
    messages_delivered: int
    """Messages that were sent to members: one for each member."""
    members_lost: int
    """Members that were closed because they had missed messages."""
    connected: bool
    """Whether there is a connection to the broker; True in memory."""
    reconnections: int
    """How often the connection to the broker was lost and opened again."""


class Broker(Protocol):
    """Where the messages of a room get their order. What is asynchronous may raise RoomsUnavailable."""

    async def open(self, nursery: trio.Nursery) -> None:
        """Begin."""
        ...

    async def aclose(self) -> None:
        """End."""
        ...

    async def attach(self, audience: Audience) -> None:
        """Have the audience told what is published from now on, and let it make up for what it has missed."""
        ...

    async def publish(self, name: str, message: str | bytes) -> Position:
        """Publish once."""
        ...

    async def replay(self, audience: Audience, after: Position) -> list[Event]:
        """The messages behind ``after``, up to what the audience has delivered when this is called, at least."""
        ...

    async def who(self, name: str) -> set[str]:
        """Who is present."""
        ...

    async def enter(self, audience: Audience, who: str) -> None:
        """Somebody has entered a room: the first member of that name here."""
        ...

    def leave(self, audience: Audience, who: str) -> None:
        """Nobody of that name is left in the room here."""
        ...

    def detach(self, audience: Audience) -> None:
        """The audience has no members any more."""
        ...

    @property
    def connected(self) -> bool:
        """Whether it can be asked."""
        ...

    @property
    def reconnections(self) -> int:
        """How often it could be asked again."""
        ...


class _Channel(trio.abc.ReceiveChannel[Event]):
    """The events of a room."""

    def __init__(self, audience: Audience, queue: Queue) -> None:
        self._audience = audience
        self._queue = queue
        self._closed = False

    async def receive(self) -> Event:
        queue = self._queue
        await trio.lowlevel.checkpoint()
        while not self._closed:
            if queue.events:
                return queue.events.popleft()
            if queue.missed is not None:
                raise Missed(queue.missed)
            if queue.ended:
                raise trio.EndOfChannel
            await queue.news.park()
        raise trio.ClosedResourceError("this channel is closed")

    async def aclose(self) -> None:
        self._closed = True
        _end(self._audience, self._queue)
        await trio.lowlevel.checkpoint()


class Room:
    """A membership of a room, made by :meth:`Rooms.join`."""

    def __init__(self, rooms: Rooms, audience: Audience, unread: Queue | None) -> None:
        self._rooms = rooms
        self._audience = audience
        self._unread = unread

    def __repr__(self) -> str:
        return f"<Room {self.name!r:.60} at {self.position}>"

    @property
    def name(self) -> str:
        """The room's name."""
        return self._audience.name

    @property
    def position(self) -> Position:
        """The position of the last message that members in this process were given.

        Right after the join it is where this membership begins: a client that keeps it, or the position of a later
        message, can join again with ``after=`` and miss nothing.
        """
        position = self._audience.delivered
        assert position is not None
        return position

    async def publish(self, message: str | Data) -> Position:
        """Publish to this room as :meth:`Rooms.publish` does."""
        return await self._rooms.publish(self.name, message)

    def open_channel(self, max_buffer_size: int = 16) -> trio.abc.ReceiveChannel[Event]:
        """Return a channel of the room's events, for a handler that sends each message in another form.

        If the room was joined without a connection, the first channel begins where the membership does, and has room
        for ``max_buffer_size`` events beside those that came since; any other channel begins now. A reader that is
        slower than the room does not hold it up: once ``max_buffer_size`` events wait, the channel takes no more, and
        raises :class:`Missed` after them. It also raises that after a loss at the broker, and ends when the room is
        left. Raises TypeError and ValueError.
        """
        whole_number(1)("max_buffer_size", max_buffer_size)
        queue, self._unread = self._unread, None
        if queue is None:
            queue = Queue(max_buffer_size)
            self._audience.queues.add(queue)
        else:
            queue.capacity = max_buffer_size + len(queue.events)
        return _Channel(self._audience, queue)


class Rooms:
    """Rooms by their names, made by :func:`open_rooms`. A room exists once it is joined or published to."""

    def __init__(
        self,
        broker: Broker,
        audiences: dict[str, Audience],
        nursery: trio.Nursery,
        slow: Literal["close", "drop-message"],
        code: int,
        history: int,
        max_message_size: int,
    ) -> None:
        self._broker = broker
        self._audiences = audiences
        self._nursery = nursery
        self._slow = slow
        self._code = code
        self._history = history
        self._max_message_size = max_message_size
        self._published = 0
        self._delivered = 0  # in rooms that this process has left
        self._lost = 0  # there

    def __repr__(self) -> str:
        return f"<Rooms: {self.statistics()}>"

    @asynccontextmanager
    async def join(
        self, name: str, ws: Transaction | None = None, *, after: Position | None = None, who: str | None = None
    ) -> AsyncIterator[Room]:
        """Be a member of the room ``name`` for the length of the block: ``async with rooms.join("chat", ws) as room``.

        ``ws`` is sent every message that is published from now on, in the room's order, until the block is left. A
        member that has ``write_limit`` bytes unsent is slow; :func:`open_rooms` says what happens to it. Without
        ``ws``, :meth:`Room.open_channel` has the messages.

        ``after`` is the position of a message that the member has already: first it is sent what came since, as fast
        as it takes it. Raises :class:`Missed` if not all of that is kept; then nothing is joined.

        ``who`` is the name by which :meth:`who` lists this member. Several members may have the same.

        Raises TypeError and ValueError for arguments that are wrong or a ``ws`` that is a member of this room,
        :class:`RoomsUnavailable` if the broker does not answer within 5 seconds, and what ``ws.send`` raises, while it
        is sent what it has missed. A checkpoint; cancelled, nothing is joined.
        """
        self._check(name)
        if after is not None and not isinstance(after, Position):
            raise TypeError(f"after must be a Position or None, not {after!r:.60}")
        if who is not None:
            if not isinstance(who, str):
                raise TypeError(f"who must be a str or None, not {who!r:.60}")
            who.encode()  # raises UnicodeEncodeError, a ValueError
        audience = self._audiences.get(name)
        if audience is None:
            audience = self._audiences[name] = Audience(name, self._slow, self._code, self._nursery)
        elif ws in audience.joined:
            raise ValueError(f"{ws!r} is a member of {name!r:.60} already")
        with ExitStack() as stack:
            audience.users += 1
            stack.callback(self._release, audience)
            if ws is not None:
                audience.joined.add(ws)
                stack.callback(audience.joined.discard, ws)
            await self._broker.attach(audience)
            queue = None
            if ws is None or after is not None:
                queue = await self._begin(stack, audience, after)
            if ws is not None:
                stack.callback(audience.members.discard, ws)
                if queue is not None:
                    assert after is not None
                    await _catch_up(audience, queue, after, ws)
                    audience.queues.discard(queue)
                    queue = None
                # No checkpoint since it got the last message, so it misses none.
                audience.members.add(ws)
            if who is not None:
                stack.callback(self._leave, audience, who)
                audience.people[who] += 1
                await self._broker.enter(audience, who)
            yield Room(self, audience, queue)

    async def publish(self, name: str, message: str | Data) -> Position:
        """Publish ``message`` to all members of the room ``name``, in all processes; return its position.

        ``str`` goes as text, ``bytes`` as binary. This waits for the broker, and never for a member. The message is
        published at most once: nothing is tried again.

        Raises TypeError for another type, ValueError if it is larger than ``max_message_size``, before anything is
        sent, and :class:`RoomsUnavailable` if the broker is away for 5 seconds or breaks off: it is unknown then
        whether the message was published. A checkpoint; if cancelled, that is unknown as well.
        """
        self._check(name)
        value = by_value(message)
        if value is None:
            raise TypeError(f"a message must be str or bytes, not {type(message).__name__}")
        size = len(value.encode() if isinstance(value, str) else value)
        if size > self._max_message_size:
            raise ValueError(f"a message must have at most {self._max_message_size} bytes, not {size}")
        position = await self._broker.publish(name, value)
        self._published += 1
        return position

    async def who(self, name: str) -> set[str]:
        """Return the names in the room ``name``, in all processes: what its members gave as ``who=``.

        After a process is killed its people are shown for at most ``lease`` seconds more. Raises
        :class:`RoomsUnavailable`. A checkpoint.
        """
        self._check(name)
        return await self._broker.who(name)

    def statistics(self) -> RoomsStatistics:
        """Return the numbers of rooms, members and messages in this process."""
        audiences = self._audiences.values()
        return RoomsStatistics(
            rooms=len(audiences),
            members=sum(len(audience.members) for audience in audiences),
            messages_published=self._published,
            messages_delivered=self._delivered + sum(audience.recipients for audience in audiences),
            members_lost=self._lost + sum(audience.lost for audience in audiences),
            connected=self._broker.connected,
            reconnections=self._broker.reconnections,
        )

    def _check(self, name: str) -> None:
        if self._nursery.cancel_scope.cancel_called:
            raise trio.ClosedResourceError("these rooms are closed")
        if not isinstance(name, str):
            raise TypeError(f"the name of a room must be a str, not {name!r:.60}")
        if not name:
            raise ValueError("the name of a room must not be empty")
        name.encode()  # raises UnicodeEncodeError, a ValueError

    async def _begin(self, stack: ExitStack, audience: Audience, after: Position | None) -> Queue:
        """A queue of what is delivered from now on, behind what came since ``after``."""
        queue = Queue(self._history + MAX_BACKLOG, 0 if after is None else after.number)
        audience.queues.add(queue)
        stack.callback(_end, audience, queue)
        if after is not None:
            queue.events.extendleft(reversed(await self._broker.replay(audience, after)))
        return queue

    def _leave(self, audience: Audience, who: str) -> None:
        audience.people[who] -= 1
        if not audience.people[who]:
            del audience.people[who]
            self._broker.leave(audience, who)

    def _release(self, audience: Audience) -> None:
        audience.users -= 1
        if not audience.users:
            del self._audiences[audience.name]
            self._delivered += audience.recipients
            self._lost += audience.lost
            self._broker.detach(audience)


def _close_all(audiences: dict[str, Audience]) -> None:
    """Nothing is delivered any more: close all members."""
    reason = "the rooms are closed"
    for audience in audiences.values():
        for queue in tuple(audience.queues):
            queue.end(reason)
        for member in tuple(audience.members):
            member.__connection__.close_soon(1001, reason)


def _end(audience: Audience, queue: Queue) -> None:
    audience.queues.discard(queue)
    queue.end()


async def _catch_up(audience: Audience, queue: Queue, after: Position, ws: Transaction) -> None:
    """Send a member what it has missed, until it has all that is delivered."""
    while True:
        while queue.events:
            await ws.send(queue.events.popleft().message)
            if not queue.events:
                await ws.drain()  # Otherwise it could be too slow for the next message already.
        if queue.missed is not None:
            ws.__connection__.close_soon(LOST, queue.missed)
            raise Missed(queue.missed)
        assert audience.delivered is not None
        if audience.delivered.number >= after.number:
            return
        # The member comes from another process, which was further than this one is.
        with trio.move_on_after(PATIENCE) as patience:
            await queue.news.park()
        if patience.cancelled_caught:
            raise RoomsUnavailable(f"the broker has not sent the message at {after} within {PATIENCE:g} seconds")


@asynccontextmanager
async def open_rooms(
    url: str | None = None,
    *,
    history: int = 0,
    keep: float = 300,
    slow: Literal["close", "drop-message"] = "close",
    code: int = 1013,
    lease: float = 15,
    max_message_size: int = MAX_WEBSOCKET_SIZE,
) -> AsyncIterator[Rooms]:
    """Open rooms for the length of a block.

    Without ``url`` the rooms are in this process only. A URL names a server of Redis or Valkey, ``redis://localhost``,
    ``rediss://`` over TLS or ``unix:///path`` for a Unix socket: then all processes that open rooms with it share them.
    That needs the extra ``redis``.

    ``history`` is how many messages of a room are kept for those that join with ``after=``, and for a process that was
    without its broker for a moment; with 0 either has to begin anew after any message that it has missed. ``keep`` is
    how many seconds an unused room is remembered. ``slow`` says what happens to a member that has
    ``write_limit`` bytes unsent: ``"close"`` (with ``code``, 1013 or 1008), or ``"drop-message"``, which gives up the
    promise that a member gets every message. ``lease`` is how many seconds :meth:`Rooms.who` still lists the people
    of a killed process. ``max_message_size`` is in bytes.

    At the end of the block the remaining members are closed with 1001. Raises TypeError and ValueError,
    ImportError without the extra, and :class:`RoomsUnavailable` if the server cannot be reached within 5 seconds.
    """
    if url is not None and not isinstance(url, str):
        raise TypeError(f"url must be a str or None, not {url!r:.60}")
    whole_number(0)("history", history)
    whole_number(1)("max_message_size", max_message_size)
    _check_seconds("keep", keep)
    _check_seconds("lease", lease)
    if slow not in ("close", "drop-message"):
        raise ValueError(f"slow must be 'close' or 'drop-message', not {slow!r:.60}")
    if code not in SLOW_CODES:
        raise ValueError(f"code must be 1008 or 1013, not {code!r:.60}")
    audiences: dict[str, Audience] = {}
    async with HiddenNursery() as nursery:
        broker: Broker
        if url is None:
            broker = MemoryBroker(audiences, history, keep)
        else:
            from ..adapters.redis import RedisBroker  # noqa: PLC0415 - it needs the extra `redis`

            broker = RedisBroker(url, audiences, history, keep, lease)
        rooms = Rooms(broker, audiences, nursery, slow, code, history, max_message_size)
        try:
            await broker.open(nursery)
            yield rooms
        finally:
            nursery.cancel_scope.cancel()
            _close_all(audiences)
            with trio.move_on_after(GOODBYE, shield=True):
                await broker.aclose()


def _check_seconds(name: str, value: Any) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds, not {value!r:.60}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be a positive number of seconds, not {value!r:.60}")
