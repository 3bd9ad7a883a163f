"""Who reads: one role, for one connection or for many.

*Whoever waits, reads.* With a single connection no task stands between the socket and ``receive()``: the task that
waits there waits for the socket itself, and reads in its own turn. It *leads*. A task in the background leads while
nobody waits: after a moment (``GRACE``), or at once if somebody is called back, a pong is awaited, or the connection is
closing.

*Many connections are read together.* The sockets of a server are in one :class:`~trio_pyjo_ws._engine.hub.Hub`, and one
task in the background leads for all: it waits for the set, reads all that is ready in one turn, and wakes the tasks
whose messages have come. One wait and one step of the scheduler serve them all, and nothing has to be registered for a
wait.

The decision is :func:`who_reads`, a pure function; all else here carries it out. The invariants:

- At most one task leads.
- A task that waits is *parked* here or leads. It is woken when something has come that is its own, when the connection
  ends, and when it is its turn to lead.
- If a connection is open, has room and nobody leads, the grace is armed or somebody is on their way.
"""

from __future__ import annotations

import select
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio
from outcome import Outcome
from trio.lowlevel import (
    Abort,
    checkpoint_if_cancelled,
    current_task,
    wait_readable,
    wait_task_rescheduled,
)

from .hub import Hub, Member

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from .housekeeper import Deadline, Housekeeper
    from .transport import Transport
    from .turn import Turn

__all__ = ["GRACE", "WOKEN", "Reader", "Reading", "Waiter", "reading_of", "wait_for_news", "who_reads"]

T = TypeVar("T")

GRACE = 0.1
"""Seconds without a receiver after which a task in the background leads; twice that at the most."""

MANY = 2
"""Connections that are read together: fewer have nothing to share."""

HAS_EPOLL = hasattr(select, "epoll")


class Reader(Enum):
    """Who is to read next."""

    NOBODY = "nobody: there is nothing to read, or no room for it"
    RECEIVER = "the task that waits"
    BACKGROUND = "a task in the background"
    LATER = "the next task that waits, or else, after the grace, the background"


def who_reads(*, members: int, room: bool, waiting: bool, urgent: bool, quiet: bool) -> Reader:
    """Decide who reads next, if nobody leads now.

    ``members``: the connections to read from. Of a single one: ``room``: it may be read from; ``waiting``: a task waits
    for what it brings; ``urgent``: it has to be read from although nobody waits; ``quiet``: nobody has for a while.
    """
    if members >= MANY:
        return Reader.BACKGROUND
    if not members or not room:
        return Reader.NOBODY
    if urgent:
        return Reader.BACKGROUND
    if waiting:
        return Reader.RECEIVER
    return Reader.BACKGROUND if quiet else Reader.LATER


class Readable(Member, Protocol):
    """What a reading asks of a connection that it reads from."""

    transport: Transport
    stalled: bool
    parked: list[trio.lowlevel.Task]

    def wake(self, task: trio.lowlevel.Task) -> None:
        """Have a task look again that waits for news."""
        ...

    def is_urgent(self) -> bool:
        """Whether it has to be read from although nobody waits for what that brings."""
        ...

    def end(self) -> None:
        """Its stream is broken."""
        ...


class Waiter(Readable, Protocol):
    """What a task that waits for news asks of its connection."""

    housekeeper: Housekeeper
    turn: Turn
    ended: bool

    @property
    def reading(self) -> Reading:
        """Who reads from it."""
        ...

    def has_to_wait(self) -> bool:
        """Whether there is nothing to read, and it has not ended. The peer has all that is queued then."""
        ...


class Reading:
    """The reading of one connection, or of all those of a housekeeper whose sockets can be in one set."""

    __slots__ = (
        "_grace",
        "_housekeeper",
        "_hub",
        "_leader",
        "_leads",
        "_members",
        "attended",
        "background",
        "waited",
    )

    def __init__(self, housekeeper: Housekeeper) -> None:
        self._housekeeper = housekeeper
        self._members: dict[Readable, None] = {}
        self._hub: Hub | None = None
        self._leader: trio.lowlevel.Task | None = None
        self._leads: Transport | None = None
        """What the leader waits for; None for the whole set."""
        self._grace: Deadline | None = None
        self.attended = False
        """Whether :meth:`attend` has nothing to do."""
        self.background = False
        """Whether a task runs that leads in the background."""
        self.waited = False
        """Whether a task has waited since the grace, or the background, began."""

    # Members

    def join(self, connection: Readable) -> Reading:
        """Read from ``connection``, from now on. Gives the reading that does: its own if the set has no place."""
        try:
            self._watch_many(connection)
        except OSError:  # There is no descriptor left for a set, or no memory of the system's for one more socket.
            return Reading(self._housekeeper).join(connection)
        self._members[connection] = None
        if len(self._members) == MANY:
            self._interrupt()  # A task that leads for its own connection leads no more.
        self._end_grace()
        self.attend()
        return self

    def _watch_many(self, connection: Readable) -> None:
        if self._members and self._hub is None:
            self._hub = Hub()
            for member in self._members:
                self._hub.add(member, member.transport.fd)
        if self._hub is not None:
            self._hub.add(connection, connection.transport.fd)

    def leave(self, connection: Readable) -> None:
        """``connection`` has ended."""
        self._members.pop(connection, None)
        if self._hub is not None:
            self._hub.remove(connection.transport.fd)
        if len(self._members) < MANY:
            self._end_grace()
            self._interrupt()
            if not self.background:
                self._close_hub()

    def _only(self) -> Readable | None:
        """The member, if there is one alone."""
        return next(iter(self._members)) if len(self._members) == 1 else None

    def _close_hub(self) -> None:
        if self._hub is not None:
            self._hub.close()
            self._hub = None

    # Leading

    def may_lead(self, connection: Readable) -> bool:
        """Whether the task that waits for what ``connection`` brings is to read it, unless the background does."""
        return len(self._members) == 1 and self._leader is None and not connection.stalled

    def interrupt(self, task: trio.lowlevel.Task) -> None:
        """If ``task`` leads, have it look again."""
        if task is self._leader:
            self._interrupt()

    async def lead(self, connection: Readable, task: trio.lowlevel.Task) -> None:
        """Wait for what a single connection brings, and read it; ``task`` is the caller's."""
        self._leader = task
        self._leads = transport = connection.transport
        try:
            await transport.wait_receive()
        except trio.ClosedResourceError:
            pass  # It was interrupted, or the connection has ended.
        except trio.BrokenResourceError:
            connection.end()
        finally:
            self._leader = self._leads = None
            if not self.background:
                self._pass_on()  # Not to this connection's tasks alone: it may have ended, and left another by itself.
        self._housekeeper.turn.begin()
        connection.pull()

    def _interrupt(self) -> None:
        """Have the leader look again."""
        if self._leads is not None:
            self._leads.interrupt()
        elif self._leader is not None and self._hub is not None:
            trio.lowlevel.notify_closing(self._hub.fd)

    def _pass_on(self) -> None:
        """Wake a task that may lead now, if there is one."""
        only = self._only()
        if only is not None and only.parked:
            only.wake(only.parked[0])

    # Reading on

    def attend(self, *, quiet: bool = False) -> None:
        """A task has stopped waiting, or there is a new reason to read: see that somebody does."""
        if self.attended or self._leader is not None or not self._members:
            return
        reader = self._decide(quiet=quiet)
        if reader is Reader.BACKGROUND:
            self._start()
        elif reader is Reader.RECEIVER:
            self._pass_on()
        elif reader is Reader.LATER:
            self.waited = False
            self.attended = True
            self._grace = self._housekeeper.at(trio.current_time() + GRACE, self._grace_is_over)

    def attend_now(self) -> None:
        """There is a reason to read that does not wait for the grace."""
        self._end_grace()
        self.attend(quiet=True)

    def _decide(self, *, quiet: bool) -> Reader:
        only = self._only()
        return who_reads(
            members=len(self._members),
            room=only is not None and not only.stalled,
            waiting=only is not None and bool(only.parked),
            urgent=only is not None and only.is_urgent(),
            quiet=quiet,
        )

    def _end_grace(self) -> None:
        if self._grace is not None:
            self._housekeeper.cancel(self._grace)
            self._grace = None
            self.attended = False

    def _grace_is_over(self) -> None:
        self._grace = None
        self.attended = False
        self.attend(quiet=not self.waited)

    def _start(self) -> None:
        self._end_grace()
        self.background = self.attended = True
        self._housekeeper.start_soon(self._read_in_background, "reader")

    async def _read_in_background(self) -> None:
        self.waited = False
        try:
            # What the grace has begun goes on until a task waits.
            while self._decide(quiet=not self.waited) is Reader.BACKGROUND:
                only = self._only()
                if only is None:
                    await self._read_many()
                else:
                    await self._read_one(only)
        finally:
            self.background = self.attended = False
            if len(self._members) < MANY:
                self._close_hub()
            if not self._housekeeper.is_over:
                self.attend()

    async def _read_one(self, connection: Readable) -> None:
        if connection.may_pull():
            if self._housekeeper.turn.is_over():
                await self._housekeeper.yield_turn()
            connection.pull()
        elif not connection.stalled:
            await self.lead(connection, current_task())

    async def _read_many(self) -> None:
        hub = self._hub
        assert hub is not None
        if hub.ready:
            await self._housekeeper.yield_turn()
        else:
            self._leader = current_task()
            try:
                await wait_readable(hub.fd)
            except trio.ClosedResourceError:
                pass  # It was interrupted.
            finally:
                self._leader = None
            self._housekeeper.turn.begin()
        hub.read(self._housekeeper.turn)


class Woken(Outcome[None]):
    """What a task that is woken gets: nothing, however often.

    An :class:`outcome.Value` can be used only once, and making one takes a tenth of the instructions of a message.
    """

    __slots__ = ()

    def unwrap(self) -> None:
        return

    def send(self, gen: Generator[T, None, object]) -> T:
        return gen.send(None)

    async def asend(self, agen: AsyncGenerator[T, None]) -> T:
        return await agen.asend(None)


WOKEN = Woken()


def reading_of(housekeeper: Housekeeper, transport: Transport) -> Reading:
    """The reading that a connection over ``transport`` belongs to: all sockets of one housekeeper share one."""
    if transport.fd < 0 or not HAS_EPOLL:
        return Reading(housekeeper)
    if housekeeper.shared is None:
        housekeeper.shared = Reading(housekeeper)
    shared: Reading = housekeeper.shared
    return shared


async def wait_for_news(connection: Waiter, task: trio.lowlevel.Task) -> None:
    """Read, or wait until something was read: the caller looks for what it wants, and comes back if it is not there.

    A checkpoint if there is nothing to read.
    """
    reading = connection.reading
    if not connection.has_to_wait():
        late = connection.turn.is_over()
        if late:
            await connection.housekeeper.yield_turn()
        # Another task may have read it meanwhile and be leading now. It would not notice what this read left over.
        if not late or connection.may_pull():
            connection.pull()
    elif not reading.background and reading.may_lead(connection):
        reading.waited = True
        await reading.lead(connection, task)
    else:
        reading.waited = True
        if not reading.attended:
            reading.attend()  # Perhaps this task led, until there was a second connection.
        connection.parked.append(task)
        await wait_task_rescheduled(partial(_leave, connection.parked, task))
        connection.turn.begin()
    if connection.ended:
        await checkpoint_if_cancelled()  # If the nursery was cancelled, say so rather than report a lost connection.


def _leave(parked: list[trio.lowlevel.Task], task: trio.lowlevel.Task, _: object) -> Abort:
    parked.remove(task)
    return Abort.SUCCEEDED
