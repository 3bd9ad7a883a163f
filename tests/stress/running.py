"""One seed, from its plan to its verdict."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import trio
import trio.testing

from trio_pyjo_ws import Opcode

from . import oracle
from .links import Link
from .receiving import ACTORS
from .record import close_of
from .sending import ENDS, break_message, compose, ping, send, send_messages
from .world import QUIET, LibraryLog, World, has_closed, one_chance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_pyjo_ws import Transaction

    from .plan import Actor, Plan
    from .record import Side, Wrong

PATIENCE = 10_000
"""Units after which a seed hangs; on the real clock it is REAL_PATIENCE."""
REAL_PATIENCE = 20.0
"""Seconds."""
MAX_STEPS = 100_000
"""Steps of tasks after which a seed spins; an ordinary one takes some thousands."""

DESCRIPTORS = Path("/dev/fd")

logger = logging.getLogger("trio_pyjo_ws")


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a seed, and how it came to that."""

    plan: Plan
    wrongs: list[Wrong]
    log: list[str]
    steps: int
    transactions: list[weakref.ref[Transaction]]
    """To see that nothing holds them, when garbage has been collected."""

    @property
    def kinds(self) -> set[str]:
        return {wrong.kind for wrong in self.wrongs}

    def __str__(self) -> str:
        again = f"again: nox -s stress -- {self.plan.seed} --transport {self.plan.transport}"
        wrongs = [f"  {wrong}" for wrong in self.wrongs]
        return "\n".join([str(self.plan), "log: tick, units, who, what", *self.log, "wrong:", *wrongs, again])


class Steps(trio.abc.Instrument):
    """Counts the steps of tasks, and cancels a run that spins: no clock would end it."""

    def __init__(self, scope: trio.CancelScope) -> None:
        self.count = 0
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1
        if self.count == MAX_STEPS:
            self._scope.cancel()


def run(plan: Plan) -> Verdict:
    """Run a plan. Nothing but what follows from it decides what happens, unless there is a real socket."""
    world = World(plan)
    handler = LibraryLog(world)
    logger.addHandler(handler)
    propagates, logger.propagate = logger.propagate, False
    before = _descriptors()
    steps = 0
    clock = None if world.real else trio.testing.MockClock(autojump_threshold=0)
    try:
        with one_chance(world), _unraisable(world), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            steps = trio.run(_main, world, clock=clock)
        for warning in caught:
            world.wrong("warning", str(warning.message))
    except BaseException as exc:
        if isinstance(exc, (KeyboardInterrupt, SystemExit)):
            raise
        world.wrong("exception", "".join(traceback.format_exception(exc)))
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
    if (left := _descriptors() - before) > 0:
        world.wrong("left", f"{left} descriptors")
    transactions = [weakref.ref(side.ws) for side in world.sides.values() if side.was_opened]
    return Verdict(plan, [*world.wrongs, *oracle.judge(world)], world.log, steps, transactions)


@contextmanager
def _unraisable(world: World) -> Iterator[None]:
    """What Python could tell nobody is wrong, too."""

    def tell(what: sys.UnraisableHookArgs) -> None:
        world.wrong("exception", f"unraisable: {what.exc_value!r} in {what.object!r:.100}")

    with patch.object(sys, "unraisablehook", tell):
        yield


def _descriptors() -> int:
    return len(list(DESCRIPTORS.iterdir())) if DESCRIPTORS.exists() else 0


async def _main(world: World) -> int:
    world.begin()
    tasks = trio.lowlevel.current_statistics().tasks_living
    with trio.CancelScope() as scope:
        steps = Steps(scope)
        trio.lowlevel.add_instrument(steps)
        async with trio.open_nursery() as watching:
            watching.start_soon(_watch, world, scope)
            await _live(world)
            watching.cancel_scope.cancel()
        trio.lowlevel.remove_instrument(steps)
    if steps.count >= MAX_STEPS:
        world.wrong("hang", f"after {steps.count} steps it goes on")
    left = trio.lowlevel.current_statistics().tasks_living - tasks
    if left:
        world.wrong("left", f"{left} tasks")
    return steps.count


async def _watch(world: World, scope: trio.CancelScope) -> None:
    await trio.sleep(REAL_PATIENCE if world.real else PATIENCE)
    world.wrong("hang", "\n".join(["nobody goes on; the tasks are in", *_stacks()]))
    scope.cancel()


def _stacks() -> list[str]:
    """Where each task is, by the last lines of its stack."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found: list[str] = []
    tasks = [root]
    while tasks:
        task = tasks.pop()
        tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        lines = [f"{frame.f_code.co_name}:{number}" for frame, number in task.iter_await_frames()]
        found.append(f"    {task.name}: {' > '.join(lines[-6:])}")
    return found


async def _live(world: World) -> None:
    """Open the connection, have the actors act and the director end it, and see that nothing is left."""
    link = Link(world)
    async with trio.open_nursery() as world.nursery:
        await link.open(world.nursery)
        for side in world.sides.values():
            world.note(side.name, repr(side.ws))
        async with trio.open_nursery() as acting:
            for actor in world.plan.actors:
                side = world.sides[actor.side]
                side.senders += actor.kind == "sender"
                acting.start_soon(partial(_act, world, side, actor), name=actor.name)
            for number in range(world.plan.neighbours):
                acting.start_soon(link.visit, f"neighbour{number + 1}")
            await _direct(world, link)
        world.note("director", "all actors have ended")
        await link.clear_away()
    oracle.look_at_the_rest(world)
    for what in link.left():
        world.wrong("left", f"{what} is not closed")


async def _act(world: World, side: Side, actor: Actor) -> None:
    act = {"sender": send_messages, "pinger": ping, **ACTORS}[actor.kind]
    await world.sleep(actor.start)
    try:
        await act(world, side, actor)
    except Exception as exc:
        world.failed(actor.name, exc)


# The ending


async def _direct(world: World, link: Link) -> None:
    """End the connection as the plan says, and see that it has ended."""
    ending = world.plan.ending
    side = world.sides[ending.side]
    peer = world.peer(side)
    if ending.kind in ("settled", "both"):
        await _wait_until(world, lambda: not side.senders and not peer.senders)
        await _settle(world)
    elif ending.kind in ("now", "big", "broken"):
        await _wait_until(world, lambda: not side.senders)
    else:
        await world.sleep(ending.after)
    if ending.kind == "settled":
        world.settled = world.tick()
        world.note("director", "settled")
    try:
        if ending.kind == "kill":
            await _kill(world, link, side, ending.how)
        elif ending.kind == "big":
            await _send_too_much(world, side)
        elif ending.kind == "broken":
            await break_message(world, side, ending.how)
        elif ending.kind == "both":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_close, world, link, peer, "finish", 4000, None)
                nursery.start_soon(_close, world, link, side, ending.how, ending.code, ending.reason)
        elif ending.kind == "crash":
            await _settle(world)
        else:
            await _close(world, link, side, ending.how, ending.code, ending.reason)
    except Exception as exc:
        world.failed("director", exc)
    await _see_it_ended(world, side, peer)


async def _wait_until(world: World, condition: object) -> None:
    assert callable(condition)
    while not condition():
        await world.sleep(1)


async def _settle(world: World) -> None:
    """Wait until all that was sent has been received, or nothing has for a while."""
    quiet = 0
    is_quiet = world.is_quiet()
    while quiet < QUIET and oracle.missing(world):
        await world.sleep(1)
        quiet = quiet + 1 if is_quiet() else 0


async def _close(world: World, link: Link, side: Side, how: str, code: int | None, reason: str | None) -> None:
    """Close by one of the calls that do."""
    ws = side.ws
    side.waiting_at_close = ws.statistics().messages_waiting
    reason = reason if code is not None else None
    if how in ("finish", "finish cancelled", "frame"):
        world.closing(side, how, 1005 if code is None else code, reason=reason)
    if how == "finish":
        close = await (ws.finish() if code is None else ws.finish(code, reason))
        if close != close_of(ws):
            world.wrong("close code", f"finish() returned {close}, and the connection ended with {close_of(ws)}")
    elif how == "finish cancelled":
        with world.perhaps_cancelled(world.chance("closing"), 1.0):
            await (ws.finish() if code is None else ws.finish(code, reason))
        if ws.statistics().state == "open":  # It was cancelled before it had any effect.
            await (ws.finish() if code is None else ws.finish(code, reason))
    elif how == "frame":
        payload = b"" if code is None else code.to_bytes(2, "big") + (reason or "").encode()
        try:
            await ws.send(frame=[1, 0, 0, 0, Opcode.CLOSE, payload])
        except ENDS as exc:
            world.end(side, "director", how, exc, sends=True)
    elif how == "aclose":
        world.closing(side, how, 1000)
        await ws.aclose()
    elif how == "leave":
        world.closing(side, how, 1000)
        async with ws:
            pass
    elif how == "server closes":
        world.closing(side, how, 1001, reason="the server is shutting down")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.server.aclose)
            await world.sleep(1)
            world.handler_may_end.set()
    else:
        world.handler_raises = how == "handler raises"
        world.closing(side, how, 1011 if world.handler_raises else 1000)
        world.handler_may_end.set()


async def _kill(world: World, link: Link, side: Side, how: str) -> None:
    """End without a closing handshake."""
    if how == "nursery":
        for one in world.sides.values():
            if one is side or world.plan.transport in ("memory", "sockets"):
                world.closing(one, "killed")
        link.kill(side.name)
    elif how == "aclose cancelled":
        world.closing(side, how, 1000)
        with trio.CancelScope() as scope:
            scope.cancel()
            await side.ws.aclose()
    else:
        await _wait_until(world, lambda: not any(one.senders for one in world.sides.values()))
        await _settle(world)


async def _send_too_much(world: World, side: Side) -> None:
    """A message over the limit of the peer: it fails the connection, unless it happens to want it in pieces."""
    chance = world.chance("big")
    message = compose(world, chance, side, "binary=", 8)
    message.payload += b" " * (world.plan.limit + chance.choice((1, 500)))  # type: ignore[operator]  # it is bytes
    message.is_big = True
    await send(world, side, "director", message, chance)
    await _settle(world)


async def _see_it_ended(world: World, side: Side, peer: Side) -> None:
    """Wait for the end, and close what has not ended by itself."""
    expects_end = world.plan.ending.kind in ("settled", "now", "early", "both", "broken") or side.closings
    quiet = 0
    is_quiet = world.is_quiet()
    while not (side.ws.is_finished and peer.ws.is_finished):
        await world.sleep(1)
        quiet = quiet + 1 if is_quiet() else 0
        if quiet > QUIET and not expects_end:
            for one in (side, peer):
                if not has_closed(one.ws):
                    world.closing(one, "aclose", 1000)
                    await one.ws.aclose()
                    break
            expects_end = True
