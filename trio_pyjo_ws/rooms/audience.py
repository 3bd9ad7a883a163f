"""One room in this process: its members, and how far they are in its order.

The broker says what was published, by :meth:`Audience.take`: in order, perhaps twice, perhaps with a hole. The audience
makes of that what its members see: each message once, in order, without a hole, or the end of their connections.

- ``accepted`` is the position up to which the audience has taken over; ``delivered`` the one up to which its members
  have it. Between the two lies the backlog, which is there only if there are many members: then a task delivers, which
  lets others run.
- While a hole is being filled, and before the audience is attached to its broker, what comes is *held*.
- A member that catches up from an earlier position has what is delivered meanwhile in its queue, until the queue is
  empty: then it is a member as the others are, without a wait in between.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Literal

import trio

from ..broadcasting import broadcast, broadcast_nowait

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..transaction import Transaction
    from .positions import Event, Position

__all__ = ["AT_ONCE", "MAX_BACKLOG", "Audience", "Queue"]

AT_ONCE = 256
"""Members that are served in one turn of the scheduler: some 2 ms. If there are more, a task does it."""

MAX_BACKLOG = 1024
"""Messages that wait to be delivered, or to be taken out of a channel beyond its room, before some are given up."""

LOST = 1013
"""The close code of a member that cannot get what it has missed: try again later (RFC 6455, section 7.4.1)."""


class Queue:
    """What was delivered, for one reader: a member that catches up, or a channel."""

    __slots__ = ("_skipped", "capacity", "ended", "events", "missed", "news")

    def __init__(self, capacity: int, skipped: int = 0) -> None:
        self.capacity = capacity
        self.events: deque[Event] = deque()
        self.ended = False
        """Whether nothing more comes, behind the events."""
        self.missed: str | None = None
        """Why messages are missing there; None if none are."""
        self.news = trio.lowlevel.ParkingLot()
        self._skipped = skipped

    def put(self, event: Event) -> None:
        """Add an event, unless the reader has it already. A reader that is too slow gets no more."""
        if self.ended or event.position.number <= self._skipped:
            return
        if len(self.events) >= self.capacity:
            self.end(f"too slow: {len(self.events)} messages waited")
            return
        self.events.append(event)
        self.news.unpark()

    def end(self, missed: str | None = None) -> None:
        """Nothing more comes."""
        if not self.ended:
            self.ended = True
            self.missed = missed
        self.news.unpark_all()


class Audience:
    """The members of one room in this process."""

    def __init__(self, name: str, slow: Literal["close", "drop-message"], code: int, nursery: trio.Nursery) -> None:
        self.name = name
        self.users = 0
        """Those who join or have joined. Without any, it is dropped."""
        self.lock = trio.Lock()
        """Held while it is attached to its broker."""
        self.attached: object = None
        """The connection to the broker, by which it gets what is published."""
        self.people: Counter[str] = Counter()
        """Who is here, and how often."""
        self.joined: set[Transaction] = set()
        """The connections that join or have joined."""
        self.members: set[Transaction] = set()
        """Those that are sent what is delivered."""
        self.queues: set[Queue] = set()
        self.recipients = 0
        """Deliveries to members, so far."""
        self.lost = 0
        """Members that were closed as they had missed something."""
        self.accepted: Position | None = None
        self.delivered: Position | None = None
        self._held: list[Event] | None = []
        self._backlog: deque[Event | str] = deque()
        """What is to be delivered; a str is the reason for which all are closed there."""
        self._delivering = False
        self._room = trio.lowlevel.ParkingLot()
        self._slow = slow
        self._code = code
        self._nursery = nursery

    # What the broker reports

    def hold(self) -> None:
        """Keep back what comes, until :meth:`settle`."""
        if self._held is None:
            self._held = []

    def take(self, event: Event) -> bool:
        """Something was published. Return False if something before it is missing: it is held then."""
        if self._held is not None:
            self._held.append(event)
            return True
        position, accepted = event.position, self.accepted
        assert accepted is not None
        if position.epoch == accepted.epoch:
            if position.number <= accepted.number:
                return True  # It came with what was missing.
            if position.number == accepted.number + 1:
                self._accept(event)
                return True
        self._held = [event]
        return False

    def settle(self, position: Position, missing: Iterable[Event]) -> bool:
        """Give out what was missing, up to ``position`` at least, and what was held. Return as :meth:`take` does."""
        for event in missing:
            self._accept(event)
        if self.accepted is None or self.accepted.epoch != position.epoch:
            self._begin_at(position)
        return self._release()

    def lose(self, position: Position, reason: str) -> bool:
        """What is missing cannot be had: close all members, and begin at ``position``. Return as :meth:`take` does."""
        self._give_up(reason)
        self._begin_at(position)
        return self._release()

    def _begin_at(self, position: Position) -> None:
        self.accepted = position
        if not self._delivering:
            self.delivered = position

    def _release(self) -> bool:
        held, self._held = self._held or [], None
        for index, event in enumerate(held):
            if not self.take(event):
                self._held = held[index:]
                return False
        return True

    # Delivering

    def _accept(self, event: Event) -> None:
        self.accepted = event.position
        if self._delivering or len(self.members) > AT_ONCE:
            if len(self._backlog) >= MAX_BACKLOG:
                self._backlog.clear()
                self._give_up(f"{MAX_BACKLOG} messages waited to be delivered")
            self._deliver_later(event)
        else:
            self._begin(event)
            self.recipients += broadcast_nowait(self.members, event.message, slow=self._slow, code=self._code)

    def _begin(self, event: Event) -> None:
        self.delivered = event.position
        for queue in tuple(self.queues):
            queue.put(event)

    def _give_up(self, reason: str) -> None:
        if self.members or self.queues:
            self._deliver_later(reason)

    def _deliver_later(self, what: Event | str) -> None:
        self._backlog.append(what)
        if not self._delivering:
            self._delivering = True
            self._nursery.start_soon(self._deliver, name=f"delivery to {len(self.members)} members")

    async def _deliver(self) -> None:
        """Deliver to many, and let others run."""
        while self._backlog:
            what = self._backlog.popleft()
            self._room.unpark()
            if isinstance(what, str):
                await self._close(what)
            else:
                self._begin(what)
                self.recipients += await broadcast(self.members, what.message, slow=self._slow, code=self._code)
        self._delivering = False
        self.delivered = self.accepted  # Behind a loss it is further than the last message.

    async def wait_for_room(self) -> None:
        """Wait while too much waits to be delivered."""
        while len(self._backlog) >= MAX_BACKLOG:
            await self._room.park()

    async def _close(self, reason: str) -> None:
        for queue in tuple(self.queues):
            queue.end(reason)
        for member in tuple(self.members):
            self.lost += member.__connection__.is_open()
            member.__connection__.close_soon(LOST, reason)
            await trio.lowlevel.checkpoint()
