"""What trio promises of a call that waits: lines 67, 70, 71 and 75."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_pyjo_ws import ConnectionClosed, Opcode

from .attack import BINARY, CLOSE, PING, TEXT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio_pyjo_ws import Transaction

Attacked = Any


@pytest.mark.parametrize("patience", [0.5, 1.5])
async def test_67_a_receive_that_is_cancelled_again_and_again_loses_nothing(
    attacked: Attacked, over: str, patience: float, autojump_clock: MockClock
) -> None:
    seen: list[Any] = []
    cancelled = 0

    async def impatient(ws: Transaction) -> None:
        nonlocal cancelled
        while True:
            with trio.move_on_after(patience) as scope:
                seen.append(await ws.receive())
            cancelled += scope.cancelled_caught

    async with attacked(application=impatient, over=over) as peer:
        data = b"".join(
            (
                peer.frame(TEXT, b"whole"),
                peer.frame(PING),
                peer.frame(TEXT, b"two at once"),
                peer.fragments(BINARY, b"in fragments", 3),
                peer.frame(CLOSE, b"\x03\xe8"),
            )
        )
        for index in range(len(data)):
            peer.send(data[index : index + 1])
            await trio.sleep(1)
        peer.end.hang_up()
        await wait_all_tasks_blocked()
        assert seen == ["whole", "two at once", b"in fragments"]
        assert cancelled > len(data) // 2
        assert isinstance(peer.error, trio.EndOfChannel)


@pytest.mark.parametrize("order", ["send first", "cancel first"])
async def test_67_a_receive_that_is_cancelled_as_its_message_comes(
    attacked: Attacked, over: str, order: str, autojump_clock: MockClock
) -> None:
    async def receive(ws: Transaction, scope: trio.CancelScope) -> None:
        with scope:
            seen.append(await ws.receive())

    seen: list[Any] = []

    async def rest(ws: Transaction) -> None:
        await trio.sleep(100)
        while True:
            seen.append(await ws.receive())

    async with attacked(application=rest, over=over) as peer:
        for number in range(50):
            scope = trio.CancelScope()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive, peer.ws, scope)
                await wait_all_tasks_blocked()
                if order == "cancel first":
                    scope.cancel()
                peer.send(peer.frame(TEXT, b"%d" % number))
                for _ in range(number % 4):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        peer.send(peer.frame(CLOSE, b"\x03\xe8"))
        await trio.sleep(101)
        assert seen == [str(number) for number in range(50)]
        peer.end.hang_up()
        await wait_all_tasks_blocked()
        assert isinstance(peer.error, trio.EndOfChannel)


@pytest.mark.parametrize("pieces", [0, 1, 3])
async def test_70_an_iterator_that_raises_ends_the_connection(
    attacked: Attacked, over: str, pieces: int, autojump_clock: MockClock
) -> None:
    async def broken() -> AsyncIterator[str]:
        for number in range(pieces):
            yield f"piece {number}"
        raise KeyError("a bug")

    async def stream(ws: Transaction) -> None:
        await ws.send("before")
        with pytest.raises(KeyError):
            await ws.send(text=broken())
        with pytest.raises(trio.ClosedResourceError):
            await ws.send("after")

    async with attacked(application=stream, over=over) as peer:
        await wait_all_tasks_blocked()
        assert peer.error is None
        frames = peer.read()
        # What has been sent is no whole message, and nothing follows it but the Close.
        assert [frame.fin for frame in frames] == [True] + [False] * pieces + [True]
        assert (frames[-1].opcode, frames[-1].payload[:2]) == (Opcode.CLOSE, b"\x03\xf3")
        assert b"bug" not in frames[-1].payload
        peer.send(peer.frame(CLOSE, b"\x03\xf3"))
        await peer.ends_normally()


async def test_71_a_second_receiver(attacked: Attacked, autojump_clock: MockClock) -> None:
    async with attacked() as peer:  # whose application waits for a message
        with pytest.raises(trio.BusyResourceError):
            await peer.ws.receive()
        with pytest.raises(trio.BusyResourceError):
            peer.ws.receive_nowait()
        with pytest.raises(trio.BusyResourceError):
            _ = [message async for message in peer.ws]
        peer.send(peer.frame(TEXT, b"for the first"), peer.frame(CLOSE, b"\x03\xe8"))
        await wait_all_tasks_blocked()
        assert peer.messages == ["for the first"]
        assert [frame.opcode for frame in peer.read()] == [Opcode.CLOSE]
        await peer.ends_normally()


@pytest.mark.parametrize("end", ["Close", "breach", "end of stream", "silence"])
async def test_75_a_pending_ping_wakes_when_the_connection_ends(
    attacked: Attacked, over: str, end: str, autojump_clock: MockClock
) -> None:
    async def ping(ws: Transaction) -> None:
        with pytest.raises(ConnectionClosed) as info:
            await ws.ping()
        codes.append(info.value.close.code)

    codes: list[int] = []
    async with attacked(over=over, ping_interval=20) as peer, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ping, peer.ws)
        await wait_all_tasks_blocked()
        assert [frame.opcode for frame in peer.read()] == [Opcode.PING] * 3
        if end == "Close":
            peer.send(peer.frame(CLOSE, b"\x0b\xb8"))
        elif end == "breach":
            peer.send(b"\xff\xff")
        if end != "silence":
            peer.end.hang_up()
            await wait_all_tasks_blocked()
            assert trio.current_time() == 0
        else:
            await trio.sleep(41)
        assert codes == [{"Close": 3000, "breach": 1002}.get(end, 1006)] * 3


async def test_75_a_pending_ping_wakes_when_this_side_closes(attacked: Attacked, autojump_clock: MockClock) -> None:
    async def ping(ws: Transaction) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await ws.ping()

    async with attacked() as peer, trio.open_nursery() as nursery:
        nursery.start_soon(ping, peer.ws)
        await wait_all_tasks_blocked()
        nursery.start_soon(peer.ws.aclose)
        await wait_all_tasks_blocked()
        peer.send(peer.frame(CLOSE, b"\x03\xe8"))
        peer.end.hang_up()
