"""Cancelled at every checkpoint, an operation has had no effect, or the connection is closed."""

from __future__ import annotations

import itertools
import os
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
import trio.lowlevel

from trio_pyjo_ws import ConnectionClosed, Transaction, broadcast
from trio_pyjo_ws.testing import open_memory_pair

from ..cancelling import at_each_pause, is_closed, open_streams, run_cancelled
from ..peer import set_clock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

LARGE = os.urandom(300_000)  # No compression makes it fit into a socket's buffer.
LARGE_TEXT = LARGE[:200_000].hex()


class Operation(NamedTuple):
    """What is cancelled, the messages that it sends, and how to take the message that it leaves."""

    run: Callable[[Transaction], Awaitable[Any]]
    sends: list[str | bytes] = []  # noqa: RUF012 - never changed
    take: Callable[[Transaction], Awaitable[Any]] = Transaction.receive


async def iterate(ws: Transaction) -> str | bytes:
    async for message in ws:
        return message
    raise AssertionError("it ends")


async def receive_from_channel(ws: Transaction) -> Any:
    # The same one each time: a channel that is closed takes along what it holds.
    if "channel" not in vars(ws):
        vars(ws)["channel"] = ws.open_channel("message")
    return await vars(ws)["channel"].receive()


async def callback(ws: Transaction) -> None:
    await trio.lowlevel.checkpoint()


async def queue_and_drain(ws: Transaction) -> None:
    if ws.statistics().bytes_unsent:
        await ws.drain()
    ws.send_nowait("Hello")
    await ws.drain()


async def enter(ws: Transaction) -> None:
    async with ws:
        await trio.lowlevel.checkpoint()


OPERATIONS = {
    "receive": Operation(Transaction.receive),
    "iterate": Operation(iterate),
    "channel": Operation(receive_from_channel, take=receive_from_channel),
    "send": Operation(lambda ws: ws.send("Hello"), ["Hello"]),
    "send large": Operation(lambda ws: ws.send(LARGE, compress=False), [LARGE]),
    "send compressed": Operation(lambda ws: ws.send("Hello" * 100, compress=True), ["Hello" * 100]),
    "send large compressed": Operation(lambda ws: ws.send(text=LARGE_TEXT, compress=True), [LARGE_TEXT]),
    "send json": Operation(lambda ws: ws.send(json={"a": [1]}), ['{"a":[1]}']),
    "send frame": Operation(lambda ws: ws.send(frame=[1, 0, 0, 0, 1, b"Hello"]), ["Hello"]),
    "send with a callback": Operation(lambda ws: ws.send(callback, "Hello"), ["Hello"]),
    "queue and drain": Operation(queue_and_drain, ["Hello"]),
    "drain": Operation(Transaction.drain),
    "ping": Operation(Transaction.ping),
    "finish": Operation(lambda ws: ws.finish(3000)),
    "aclose": Operation(Transaction.aclose),
    "async with": Operation(enter),
    "broadcast": Operation(lambda ws: broadcast([ws], "Hello"), ["Hello"]),
    "broadcast to the slow": Operation(lambda ws: broadcast([ws], "Hello", slow="wait"), ["Hello"]),
}

# What carries the bytes, whether each operation has to yield, and whether something waits to be written already.
SETTINGS = [
    ("memory", "client", False, True),
    ("memory", "server", True, False),
    ("pieces", "client", False, False),
    ("pieces", "server", True, True),
    ("stalls", "client", False, False),
    ("stalls", "server", False, True),
    ("socket", "client", True, True),
    ("socket", "client", False, False),
    ("socket", "server", False, True),
    ("socket", "server", True, False),
    ("tls", "client", False, True),
    ("tls", "server", True, False),
]


@pytest.mark.parametrize(("link", "role", "turns", "queued"), SETTINGS)
@pytest.mark.parametrize("name", OPERATIONS)
async def test_cancelled_at_any_checkpoint_there_is_no_effect_or_a_closed_connection(
    name: str,
    link: str,
    role: str,
    turns: bool,
    queued: bool,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> None:
    clock = itertools.count(1.0, 1.0 if turns else 0.0)
    set_clock(monkeypatch, lambda: next(clock))
    assert await at_each_pause(partial(attempt, OPERATIONS[name], link, role, queued)) > 1


async def attempt(operation: Operation, link: str, role: str, queued: bool, pause: int) -> bool:
    """Cancel at that pause; return whether the operation had ended before it."""
    got: list[str | bytes] = []
    received: list[str | bytes] = []
    async with trio.open_nursery() as nursery:
        pair = open_memory_pair(
            nursery,
            streams=open_streams(link, nursery, role),
            compression=True,
            close_timeout=5,
            ping_interval=None,
            max_websocket_size=1_000_000,
        )
        async with trio.open_nursery() as handshakes:
            for side in pair:
                handshakes.start_soon(side.__connection__.transport.do_handshake)  # which there is for TLS only
        ws, peer = pair if role == "client" else pair[::-1]
        sent: list[str | bytes] = [b"queued", LARGE[:70_000]] if queued else []
        for message in sent:
            ws.send_nowait(message)
        nursery.start_soon(respond, peer, received)

        async def operate() -> None:
            value = await operation.run(ws)
            if value == "message":
                got.append(value)

        done = False

        async def act() -> None:
            nonlocal done
            done = await run_cancelled(pause, operate)

        async with trio.open_nursery() as tasks:
            tasks.start_soon(act)
            await trio.sleep(1)
            if peer.statistics().state == "open":
                await peer.send("message")
            await trio.sleep(5)
        if ws.statistics().state == "open":
            await ws.send(b"last")
            await ws.drain()
            await trio.sleep(3)
            assert received[: len(sent)] == sent
            assert received[len(sent) :] in ([b"last"], [*operation.sends, b"last"])
            if not got:
                got.append(await operation.take(ws))
            assert got == ["message"]
            assert (await ws.finish()).code == 1005
        else:
            # Whole messages have come, or none; and whoever goes on using it is told.
            assert received in [[*sent, *operation.sends][:count] for count in range(len(sent + operation.sends) + 1)]
            with pytest.raises((ConnectionClosed, trio.ClosedResourceError)):
                await ws.send("more")
        await trio.sleep(6)
        for side in (ws, peer):
            assert side.is_finished
            assert is_closed(side)
        assert not nursery.child_tasks
    return done


async def respond(peer: Transaction, into: list[str | bytes]) -> None:
    """Reads slowly, and notes what comes whole."""
    try:
        async for message in peer:
            into.append(message)
            await trio.sleep(0.01)
    except ConnectionClosed:
        pass
