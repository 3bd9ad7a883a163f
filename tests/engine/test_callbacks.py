"""Callbacks that fail: it comes out of the nursery, or ends one connection of a server, and never vanishes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trio_pyjo_ws.testing import MemoryServer, open_memory_pair, serve_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_pyjo_ws import Transaction

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

Fail = Callable[[], Awaitable[None]]


def leaves(exc: BaseException) -> Iterator[BaseException]:
    """The exceptions in all the groups of an exception."""
    if isinstance(exc, BaseExceptionGroup):
        for part in exc.exceptions:
            yield from leaves(part)
    else:
        yield exc


# How a callback fails, once it goes on or is cancelled


def failing(exc: BaseException) -> Fail:
    async def fail() -> None:
        try:
            await trio.sleep(1)
        finally:
            raise exc

    return fail


async def fail_in_a_nursery() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 1)
        nursery.start_soon(failing(ValueError("lost")))


FAILURES = {
    "exception": failing(ValueError("lost")),
    "group": failing(ExceptionGroup("", [ValueError("lost")])),
    "nursery": fail_in_a_nursery,
}

# Who calls it


async def by_a_message(ws: Transaction, peer: Transaction, fail: Fail) -> None:
    @ws.on
    async def message(ws: Transaction, message: str) -> None:
        await fail()

    await peer.send("Hello")


async def by_one_message(ws: Transaction, peer: Transaction, fail: Fail) -> None:
    async def callback(ws: Transaction, message: bytes) -> None:
        await fail()

    ws.once("text", callback)
    await peer.send("Hello")


async def by_drained(ws: Transaction, peer: Transaction, fail: Fail) -> None:
    async def callback(ws: Transaction) -> None:
        await fail()

    ws.on("drain", callback)
    await ws.send("Hello")


async def by_sent(ws: Transaction, peer: Transaction, fail: Fail) -> None:
    async def callback(ws: Transaction) -> None:
        await fail()

    await ws.send("Hello", cb=callback)


CALLERS = [by_a_message, by_one_message, by_drained, by_sent]


async def talk_until(when: float, talk: Callable[[Transaction, Transaction], Awaitable[None]]) -> None:
    """Open a pair in a nursery, that is cancelled after so many seconds unless something fails before."""
    with trio.move_on_after(when):
        async with trio.open_nursery() as nursery:
            await talk(*open_memory_pair(nursery))
            await trio.sleep_forever()


@pytest.mark.parametrize("when", [0.5, 2], ids=["cancelled", "not cancelled"])
@pytest.mark.parametrize("fail", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("call", CALLERS)
async def test_what_a_callback_raises_comes_out_of_the_nursery(
    call: Callable[[Transaction, Transaction, Fail], Awaitable[None]],
    fail: Fail,
    when: float,
    autojump_clock: trio.testing.MockClock,
) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await talk_until(when, lambda ws, peer: call(ws, peer, fail))
    [failure] = leaves(raised.value)
    assert repr(failure) == "ValueError('lost')"
    assert trio.current_time() == min(when, 1)


@pytest.mark.parametrize("when", [0.5, 2], ids=["cancelled", "not cancelled"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("call", CALLERS)
async def test_so_does_what_ends_the_program(
    call: Callable[[Transaction, Transaction, Fail], Awaitable[None]],
    kind: type[BaseException],
    when: float,
    autojump_clock: trio.testing.MockClock,
) -> None:
    exc = kind()
    with pytest.raises(BaseExceptionGroup) as raised:
        await talk_until(when, lambda ws, peer: call(ws, peer, failing(exc)))
    assert list(leaves(raised.value)) == [exc]


async def test_a_callback_that_only_ends_when_it_is_cancelled_is_no_failure(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def rest() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()

    await talk_until(1, lambda ws, peer: by_a_message(ws, peer, rest))
    assert trio.current_time() == 1


async def test_at_the_end_of_a_cancelled_connection_a_callback_fails_aloud(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def finish(ws: Transaction, code: int, reason: str) -> None:
        raise ValueError("lost")

    async def subscribe(ws: Transaction, peer: Transaction) -> None:
        ws.on(finish)

    with pytest.raises(ExceptionGroup) as raised:
        await talk_until(1, subscribe)
    assert [repr(leaf) for leaf in leaves(raised.value)] == ["ValueError('lost')"]


@pytest.mark.parametrize("when", [0.5, 2], ids=["cancelled", "not cancelled"])
@pytest.mark.parametrize("fail", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("call", CALLERS)
async def test_on_a_server_it_is_logged_and_ends_one_connection(
    call: Callable[[Transaction, Transaction, Fail], Awaitable[None]],
    fail: Fail,
    when: float,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    opened: list[Transaction] = []

    async def handler(ws: Transaction) -> None:
        opened.append(ws)
        await trio.sleep_forever()

    async with trio.open_nursery() as others:
        with trio.move_on_after(when) as scope:
            async with trio.open_nursery() as nursery:
                server: MemoryServer = await nursery.start(serve_memory, handler)
                peer = await server.connect(others)
                neighbour = await server.connect(others)
                await trio.testing.wait_all_tasks_blocked()
                await call(opened[0], peer, fail)
                await trio.sleep(1.5)
                assert not neighbour.is_finished
                await trio.sleep_forever()
        assert scope.cancelled_caught
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    assert [repr(leaf) for leaf in leaves(record.exc_info[1])] == ["ValueError('lost')"]
