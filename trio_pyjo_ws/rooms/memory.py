"""The broker of rooms that are all in this process."""

from __future__ import annotations

from collections import OrderedDict, deque
from secrets import token_hex
from typing import TYPE_CHECKING

import trio

from ..errors import Missed
from .positions import Event, Position

if TYPE_CHECKING:
    from .audience import Audience

__all__ = ["MemoryBroker"]


class _Kept:
    """What is kept of a room."""

    def __init__(self, history: int) -> None:
        self.epoch = token_hex(8)
        self.number = 0
        self.events: deque[Event] = deque(maxlen=history)
        self.until = 0.0

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.number)


class MemoryBroker:
    """The order of each room, and its last messages. Nothing in it can fail."""

    connected = True
    reconnections = 0

    def __init__(self, audiences: dict[str, Audience], history: int, keep: float) -> None:
        self._audiences = audiences
        self._history = history
        self._keep = keep
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        """The rooms, the one that was used last at the end."""

    async def open(self, nursery: trio.Nursery) -> None:
        """There is nothing to open. A checkpoint."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """There is nothing to close."""

    async def attach(self, audience: Audience) -> None:
        """Have the audience told what is published from now on. A checkpoint."""
        await trio.lowlevel.checkpoint()
        if audience.attached is None:
            audience.attached = self
            audience.settle(self._use(audience.name).position, ())

    def detach(self, audience: Audience) -> None:
        """The room has no members any more: it is kept for a while."""
        self._use(audience.name)

    async def publish(self, name: str, message: str | bytes) -> Position:
        """Give a message its position, and deliver it."""
        await trio.lowlevel.checkpoint()
        audience = self._audiences.get(name)
        if audience is not None:
            await audience.wait_for_room()
        kept = self._use(name)
        kept.number += 1
        event = Event(kept.position, message)
        kept.events.append(event)
        if audience is not None:
            audience.take(event)
        return event.position

    async def replay(self, audience: Audience, after: Position) -> list[Event]:
        """The messages behind ``after``, up to what is delivered. Raises Missed. A checkpoint."""
        kept = self._use(audience.name)
        until = audience.delivered
        assert until is not None
        events = [event for event in kept.events if after.number < event.position.number <= until.number]
        whole = after.epoch == kept.epoch and after.number <= kept.number
        if not whole or len(events) < until.number - after.number:
            raise Missed(f"not all messages after {after} are kept")
        await trio.lowlevel.checkpoint()
        return events

    async def enter(self, audience: Audience, who: str) -> None:
        """Somebody is present in a room. A checkpoint."""
        await trio.lowlevel.checkpoint()

    def leave(self, audience: Audience, who: str) -> None:
        """Nobody of that name is left in the room here."""

    async def who(self, name: str) -> set[str]:
        """Who is present in a room. A checkpoint."""
        await trio.lowlevel.checkpoint()
        audience = self._audiences.get(name)
        return set() if audience is None else set(audience.people)

    def _use(self, name: str) -> _Kept:
        """What is kept of a room, which is used now. Those that were not used for long are dropped."""
        now = trio.current_time()
        kept = self._kept.get(name)
        if kept is None:
            kept = self._kept[name] = _Kept(self._history)
        kept.until = now + self._keep
        self._kept.move_to_end(name)
        while (oldest := next(iter(self._kept.values()))).until <= now:
            unused = next(iter(self._kept))
            if unused in self._audiences:
                oldest.until = now + self._keep
                self._kept.move_to_end(unused)
            else:
                del self._kept[unused]
        return kept
