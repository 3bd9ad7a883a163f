"""Cancelled at every checkpoint, an operation has had no effect, or the connection is closed."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_pyjo_ws import connection, transaction
from trio_pyjo_ws.wire.frames import Opcode

from .peer import (
    Peer,
    connected,
    limit_writes,
    task_names,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when its task pauses for the given time."""

    def __init__(self, pause: int) -> None:
        self.left = pause
        self.scope = trio.CancelScope()
        self.task = trio.lowlevel.current_task()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.left -= 1
            if not self.left:
                self.scope.cancel()


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "receive": lambda ws: ws.receive(),
    "send": lambda ws: ws.send("Hello"),
    "send large": lambda ws: ws.send(bytes(1_000_000)),
    "drain": lambda ws: ws.drain(),
    "ping": lambda ws: ws.ping(),
    "finish": lambda ws: ws.finish(3000),
    "aclose": lambda ws: ws.aclose(),
}


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("role", ["client", "server"])
async def test_cancelled_at_any_checkpoint_there_is_no_effect_or_a_closed_connection(
    role: str, name: str, turns: bool, queued: bool, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    clock = itertools.count(1.0, 1.0 if turns else 0.0)
    for module in (connection, transaction):
        monkeypatch.setattr(module, "perf_counter", lambda: next(clock))
    pause = 1
    while not await cancelled_at(pause, role, OPERATIONS[name], queued):
        pause += 1
    assert pause > 1


async def cancelled_at(pause: int, role: str, operation: Callable[[Any], Any], queued: bool) -> bool:
    """Cancel at that checkpoint; return whether the operation had ended before it."""
    sent: list[bytes] = []
    got: list[Any] = []
    async with connected(role, close_timeout=5) as (ws, peer, nursery):
        if queued:
            limit_writes(ws, 10_000)
            ws.send_nowait(b"queued")
            ws.send_nowait(bytes(70_000))
            sent += [b"queued", bytes(70_000)]

        async def act() -> None:
            nonlocal done
            instrument = CancelAt(pause)
            trio.lowlevel.add_instrument(instrument)
            with instrument.scope:
                value = await operation(ws)
                if isinstance(value, str):
                    got.append(value)
                done = True
            trio.lowlevel.remove_instrument(instrument)

        done = False
        received: list[bytes] = []
        nursery.start_soon(partial(respond, peer, received))
        async with trio.open_nursery() as tasks:
            tasks.start_soon(act)
            await trio.sleep(1)
            if not peer.gone and peer.protocol.state.value == "open":
                peer.send("message")
        if ws.statistics().state == "open":
            await ws.send(b"last")
            await ws.drain()
            await trio.sleep(1)
            assert received[: len(sent)] == sent
            assert received[len(sent) :] in ([b"last"], [b"Hello", b"last"], [bytes(1_000_000), b"last"])
            if not got:
                got.append(await ws.receive())
            assert got == ["message"]
            await ws.aclose()
        await trio.sleep(6)
        assert ws.is_finished
        assert task_names(nursery) == []
    return done


async def respond(peer: Peer, into: list[bytes]) -> None:
    """Reads slowly, answers pings and Close, and ends where it is a server."""
    while not peer.gone:
        await trio.lowlevel.wait_readable(peer.sock)
        await trio.sleep(0.01)
        into += [frame.payload for frame in peer.read() if frame.opcode in (Opcode.TEXT, Opcode.BINARY)]
        if peer.protocol.state.value == "closed":
            if peer.protocol.outgoing and not peer.gone:
                peer.answer()
            if peer.protocol.role == "server":
                break
        elif not peer.gone:
            peer.answer()
    peer.sock.close()
    peer.gone = True
