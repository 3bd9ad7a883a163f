"""The world of one seed: its clock and its chance, its two sides, and what is noted of what they do."""

from __future__ import annotations

import logging
import os
import random
import sys
import time
import traceback
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import trio

from .plan import REAL, SIDES, Plan
from .record import Closing, End, Message, Side, Sink, Take, Wrong, close_of, number_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trio_pyjo_ws import Transaction

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

MILLISECOND = 0.001
QUIET = 40
"""Units without a message received after which none is expected any more; no actor pauses for as long."""


class Crash(Exception):  # noqa: N818 - it is no error here
    """What a callback, a handler or an iterable raises on purpose."""


class World:
    """What the actors of one seed share."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.real = plan.transport in REAL
        self.unit = MILLISECOND if self.real else 1.0
        self.sides = {name: Side(name) for name in SIDES}
        self.wrongs: list[Wrong] = []
        self.log: list[str] = []
        self.raised: list[Crash] = []
        self.came_out: list[BaseException] = []
        self.settled: int | None = None
        self.nursery: trio.Nursery
        """Where tasks begin that nobody waits for, each of which ends by itself."""
        self.handler_may_end = trio.Event()
        self.handler_raises = False
        self._tick = 0
        self._number = 0
        self._began = 0.0

    # Time

    def tick(self) -> int:
        """The next moment."""
        self._tick += 1
        return self._tick

    async def sleep(self, units: float) -> None:
        await trio.sleep(units * self.unit)

    def begin(self) -> None:
        self._began = trio.current_time()

    def note(self, who: str, what: str) -> None:
        """Write down what happened."""
        elapsed = (trio.current_time() - self._began) / self.unit
        self.log.append(f"{self._tick:6} {elapsed:8.1f} {who:22} {what}")

    def wrong(self, kind: str, text: str) -> None:
        """Something is found that must not be."""
        self.wrongs.append(Wrong(kind, text))
        self.log.append(f"{self._tick:6} {'':8} {'!':22} {kind}: {text}")

    # Chance

    def chance(self, name: str) -> Random:
        """The generator of the actor of this name."""
        return Random(f"{self.plan.seed} {self.plan.transport} {name}")

    @contextmanager
    def perhaps_cancelled(self, chance: Random, share: float) -> Iterator[trio.CancelScope]:
        """A scope that is cancelled in ``share`` of the cases: after some steps of the scheduler, or some time."""
        with trio.CancelScope() as scope:
            if chance.random() < share:
                if chance.random() < 0.3:
                    scope.deadline = trio.current_time() + chance.choice((0, 1, 2)) * self.unit
                else:
                    self.nursery.start_soon(self._cancel, scope, chance.choice((0, 1, 1, 2, 3, 5, 9, 20)))
            yield scope

    async def _cancel(self, scope: trio.CancelScope, steps: int) -> None:
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    # Messages

    def peer(self, side: Side) -> Side:
        return self.sides["server" if side.name == "client" else "client"]

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def take(self, side: Side, sink: Sink, value: object, event: str, began: int, reader: str) -> None:
        """``value`` was given to ``reader``."""
        number = number_of(value)
        self._check(side, sink, value, number, event)
        sink.takes.append(Take(number, began, self.tick(), reader))
        self.note(reader, f"got {number}")

    def _check(self, side: Side, sink: Sink, value: object, number: int | None, event: str) -> None:
        message = None if number is None else self.peer(side).sent.get(number)
        if message is None:
            self.wrong("changed", f"{sink.name} was given {value!r:.80}, which nobody has sent")
        elif not message.matches(event):
            self.wrong("not entitled", f"{sink.name}, of {event}, was given {message}")
        elif not message.is_received_as(value, event):
            self.wrong("changed", f"{sink.name} was given {value!r:.80} for {message}: {message.payload!r:.80}")

    def is_quiet(self) -> Callable[[], bool]:
        """A function that tells whether nothing has been received since the call before."""
        before = -1

        def quiet() -> bool:
            nonlocal before
            count = sum(len(sink.takes) for side in self.sides.values() for sink in side.sinks)
            count += sum(side.parts_seen for side in self.sides.values())
            before, last = count, before
            return count == last

        return quiet

    # Ends

    def closing(self, side: Side, how: str, *codes: int, reason: str | None = None) -> None:
        """``side`` begins to close."""
        side.closings.append(Closing(self.tick(), how, codes, reason))
        self.note(f"{side.name}", f"closes: {how} {codes or ''} {reason or ''}".rstrip())

    def end(self, side: Side, who: str, what: str, exc: BaseException, *, sends: bool = False) -> None:
        """An exception has told ``who`` that the connection has ended."""
        side.ends.append(End(who, what, exc, self.tick(), sends, final=side.ws.is_finished))
        self.note(who, f"{what} ended: {exc!r:.120}")

    def failed(self, who: str, exc: BaseException, expected: tuple[type[BaseException], ...] = ()) -> None:
        """An exception came out: on purpose, or as it must not."""
        for leaf in _leaves(exc):
            if isinstance(leaf, Crash):
                self.came_out.append(leaf)
                self.note(who, f"{leaf!r} came out")
            elif not isinstance(leaf, (trio.Cancelled, *expected)):
                self.wrong("exception", f"{who}: {''.join(traceback.format_exception(leaf)).strip()}")

    @contextmanager
    def nothing_lost(self, who: str, expected: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
        """A nursery of a connection's, whose exceptions are taken note of; those ``expected`` are nothing new."""
        try:
            yield
        except BaseExceptionGroup as group:
            cancelled, others = group.split(trio.Cancelled)
            if others is not None:
                self.failed(who, others, expected)
            if cancelled is not None:
                raise cancelled from None
        except Exception as exc:
            self.failed(who, exc, expected)

    def crash(self, who: str) -> Crash:
        """An exception to raise, which has to come out somewhere."""
        crash = Crash(who)
        self.raised.append(crash)
        self.note(who, "raises")
        return crash


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        for one in exc.exceptions:
            yield from _leaves(one)
    else:
        yield exc


class LibraryLog(logging.Handler):
    """What the library logs as an error came out of somewhere: a crash on purpose, or a fault."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        world = self._world
        world.note("log", f"{record.levelname} {record.getMessage()}")
        if record.levelno < logging.ERROR:
            return
        if record.exc_info and record.exc_info[1] is not None:
            world.failed("log", record.exc_info[1])
        else:
            world.wrong("logged", record.getMessage())


class Turns:
    """A clock in the place of perf_counter(), by which the library measures how long a turn of the scheduler is."""

    def __init__(self, chance: Random, kind: str) -> None:
        self._chance = chance
        self._steps = {"short": (0.0,), "long": (0.01,), "random": (0.0, 0.0, 0.0, 0.01)}[kind]
        self._now = 0.0

    def __call__(self) -> float:
        self._now += self._chance.choice(self._steps)
        return self._now


@contextmanager
def one_chance(world: World) -> Iterator[None]:
    """Have all that happens follow from the seed alone: the order of tasks, masking keys, and when a turn is over.

    Over a real socket the kernel decides as well, and over TLS the length of a signature.
    """
    turns = Turns(world.chance("turns"), world.plan.turns)
    keys = world.chance("keys").randbytes
    run: Any = trio._core._run  # pytest-trio does the same for Hypothesis
    state = run._r.getstate()
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "trio_pyjo_ws"]
    patches: list[Any] = [
        patch.object(run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        patch.object(os, "urandom", keys),
        patch.object(random, "_urandom", keys),  # which is where `secrets` has it from
    ]
    patches += [
        patch.object(module, "perf_counter", turns)
        for module in modules
        if getattr(module, "perf_counter", None) is time.perf_counter
    ]
    run._r.seed(f"{world.plan.seed} {world.plan.transport}")
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()
        run._r.setstate(state)


def has_closed(ws: Transaction) -> bool:
    return close_of(ws) is not None


def describe(message: Message) -> str:
    """How a message is shown in the log."""
    return f"{message.form} {message.number} ({len(message.payload)})"
