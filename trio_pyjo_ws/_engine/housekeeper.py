"""Deadlines, corked transactions and background tasks of all the transactions of one server, or of one client.

Idle is free: a connection whose handler is parked in ``receive()`` has no other task. What a task per connection
would wait for is here in one place: a heap of deadlines (the next ping, the pong owed, the grace after which somebody
has to read in the background, the end of a close) and what is to be done in the next turn of the scheduler: to write
what is corked, above all. One task, parked with the earliest deadline, looks after all of it; it starts a task for a
single transaction only when that one needs one.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from threading import get_ident  # noqa: TID251 - it starts none: it tells whether a caller is in another
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import trio

from .turn import Turn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from .transport import Transport

__all__ = ["Deadline", "Housekeeper"]

T = TypeVar("T")

SWEEP = 64
"""Cancelled deadlines that may stay in the heap, however few others there are."""


class _Corked(Protocol):
    """What has frames to write that wait for the end of the turn."""

    def uncork(self) -> None: ...


class _Member(Protocol):
    """A connection that this housekeeper looks after."""

    def end(self) -> None: ...


class Deadline:
    """A call that is due at ``when`` (seconds on trio's clock), unless it is cancelled before."""

    __slots__ = ("call", "when")

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call: Callable[[], None] | None = call

    def __lt__(self, other: Deadline) -> bool:
        return self.when < other.when


def _in_turn(queue: deque[T]) -> Iterator[T]:
    """What is in ``queue`` now, or as much of it as a turn has time for. The rest stays."""
    turn = Turn()
    turn.begin()
    for _ in range(len(queue)):
        yield queue.popleft()
        if turn.is_over():
            break


class Housekeeper:
    """One task for many transactions. :meth:`run` it in the nursery that the transactions belong to."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.turn = Turn()
        """Begins when a task of these transactions goes on, after others had their turn."""
        self.shared: Any = None
        """What reads from the sockets of all these transactions, once something does."""
        self.is_over = False
        """Whether the nursery is cancelled: no task may be started any more."""
        self._thread = get_ident()
        self._deadlines: list[Deadline] = []
        self._cancelled = 0
        self._corked: deque[_Corked] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._to_close: list[Transport] = []
        self._members: set[_Member] = set()
        self._retired = False
        self._task: trio.lowlevel.Task | None = None
        self._scope = trio.CancelScope()

    @property
    def deadlines(self) -> int:
        """How many deadlines are pending."""
        return len(self._deadlines) - self._cancelled

    def is_here(self) -> bool:
        """Whether the caller is in the thread of these transactions."""
        return get_ident() == self._thread

    def join(self, member: _Member) -> None:
        """A connection begins. It is ended if the nursery is cancelled before it leaves."""
        self._members.add(member)

    def leave(self, member: _Member, transport: Transport) -> None:
        """A connection has ended. What is left of its transport is closed here."""
        self._members.discard(member)
        if transport.closes_at_once:
            if self._retired:
                self._wake()
            return
        self._to_close.append(transport)
        if self.is_over:  # The nursery is being cancelled, and this one was still on its way in.
            self.start_soon(self._close_transports, "last housekeeping")
        self._wake()

    def retire(self) -> None:
        """No transaction will join any more: end when the last one leaves."""
        self._retired = True
        self._wake()

    def at(self, when: float, call: Callable[[], None]) -> Deadline:
        """Have ``call`` called at ``when``, by the housekeeper's task. It must not block, nor raise."""
        deadline = Deadline(when, call)
        heapq.heappush(self._deadlines, deadline)
        if when < self._scope.deadline:  # noqa: PLR1730 - setting it costs 2 us, also to what it is
            self._scope.deadline = when
        return deadline

    def cancel(self, deadline: Deadline) -> None:
        """Forget a deadline. One that is over already may be given, too."""
        if deadline.call is None:
            return
        deadline.call = None
        self._cancelled += 1
        # Connections that come and go leave deadlines behind that are not due for long: sweep them out when they are
        # the most, which costs each of them a constant share. In place: _call_due() may be in the middle of the list.
        if self._cancelled > SWEEP and self._cancelled * 2 > len(self._deadlines):
            self._deadlines[:] = [pending for pending in self._deadlines if pending.call is not None]
            heapq.heapify(self._deadlines)
            self._cancelled = 0

    def cork(self, outbox: _Corked) -> None:
        """Have ``outbox`` uncorked in the next turn of the scheduler, whatever the caller does until then."""
        self._corked.append(outbox)
        if self._task is not None:
            self._wake()

    def soon(self, call: Callable[[], None]) -> None:
        """Have ``call`` called in the next turn of the scheduler. It must not block, nor raise."""
        self._calls.append(call)
        self._wake()

    async def yield_turn(self) -> None:
        """Let others run. A checkpoint."""
        await trio.lowlevel.checkpoint()
        self.turn.begin()

    def start_soon(self, function: Callable[[], Awaitable[None]], name: str) -> None:
        """Start a background task of a transaction's."""
        self.nursery.start_soon(function, name=name)

    async def run(self) -> None:
        """Run until retired and alone. Cancelling it aborts the transactions that are left."""
        try:
            while self._is_needed():
                # The scope is cancelled only by its deadline: when the first of the heap is due.
                with trio.CancelScope(deadline=self._call_due()) as self._scope:
                    await self._work()
        finally:
            self.is_over = True
            for member in tuple(self._members):
                member.end()
            await self._close_transports()

    def _is_needed(self) -> bool:
        return not self._retired or bool(self._members) or bool(self._to_close)

    async def _work(self) -> None:
        while self._is_needed():
            for call in _in_turn(self._calls):
                call()
            for outbox in _in_turn(self._corked):
                outbox.uncork()
            await self._close_transports()
            if self._corked or self._calls:
                # There were too many for one turn, or one has called back somebody who sent more: that is for the next
                # turn, or the two would go on for ever.
                await trio.lowlevel.checkpoint()
            elif self._is_needed():
                await self._park()

    def _call_due(self) -> float:
        """Call what is due, and return when the next call is."""
        deadlines = self._deadlines
        turn = Turn()
        turn.begin()
        is_late = False
        while deadlines:
            deadline = deadlines[0]
            if deadline.call is not None:
                if deadline.when > trio.current_time():
                    return deadline.when
                if is_late:
                    return -math.inf  # The others have their turn first.
            heapq.heappop(deadlines)
            if deadline.call is None:
                self._cancelled -= 1
            else:
                call, deadline.call = deadline.call, None
                call()
                is_late = turn.is_over()
        return math.inf

    async def _close_transports(self) -> None:
        while self._to_close:
            await self._to_close.pop().aclose()

    async def _park(self) -> None:
        self._task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _wake(self) -> None:
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None
