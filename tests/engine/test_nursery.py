"""The nursery that the user of a block does not see: the table of its module, case by case."""

from __future__ import annotations

import asyncio  # noqa: TID251 - to be told that it does not do
import sys
import warnings
from typing import TYPE_CHECKING

import pytest
import trio

from trio_pyjo_ws._engine.nursery import HiddenNursery, check_runs_on_trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup


async def rest() -> None:
    """A task of the library's own."""
    await trio.sleep_forever()


def raising(exc: BaseException) -> Callable[[], Awaitable[None]]:
    async def task() -> None:
        raise exc

    return task


def raising_when_cancelled(exc: BaseException) -> Callable[[], Awaitable[None]]:
    async def task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise exc

    return task


async def end() -> None:
    await trio.lowlevel.checkpoint()


async def run(block: Callable[[], Awaitable[None]], *tasks: Callable[[], Awaitable[None]]) -> None:
    async with HiddenNursery() as nursery:
        for task in tasks:
            nursery.start_soon(task)
        await block()


def shape(exc: BaseException) -> object:
    """An exception as its type, a group as the list of what is in it."""
    return [shape(part) for part in exc.exceptions] if isinstance(exc, BaseExceptionGroup) else type(exc)


async def test_it_is_a_nursery() -> None:
    ended: list[int] = []

    async def task(number: int) -> None:
        await trio.lowlevel.checkpoint()
        ended.append(number)

    async with HiddenNursery() as nursery:
        assert isinstance(nursery, trio.Nursery)
        nursery.start_soon(task, 1)
        nursery.start_soon(task, 2)
    assert sorted(ended) == [1, 2]


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("the block's"),
        KeyboardInterrupt(),
        SystemExit(),
        ExceptionGroup("", [ValueError("the block's")]),
        ExceptionGroup("", [ValueError("the block's"), ExceptionGroup("", [KeyError(), OSError()])]),
        BaseExceptionGroup("", [KeyboardInterrupt()]),
    ],
    ids=repr,
)
async def test_what_the_block_alone_raises_comes_out_as_it_is(exc: BaseException) -> None:
    with pytest.raises(type(exc)) as raised:
        await run(raising(exc), rest, rest)
    assert raised.value is exc
    assert exc.__context__ is None


async def test_a_task_that_fails_cancels_the_block_and_comes_out_in_a_group() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await run(trio.sleep_forever, rest, raising(KeyError("a task's")))
    assert shape(raised.value) == [KeyError]
    assert raised.value.__context__ is None


async def test_so_it_does_when_the_block_has_ended() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await run(end, rest, raising(KeyError("a task's")))
    assert shape(raised.value) == [KeyError]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("block", [trio.sleep_forever, end])
async def test_what_ends_a_program_comes_out_of_a_task_as_it_is(
    block: Callable[[], Awaitable[None]], kind: type[BaseException]
) -> None:
    exc = kind()
    with pytest.raises(kind) as raised:
        await run(block, rest, raising(exc))
    assert raised.value is exc


async def test_beside_another_failure_it_is_in_the_group() -> None:
    with pytest.raises(BaseExceptionGroup) as raised:
        await run(raising_when_cancelled(ValueError("the block's")), rest, raising(SystemExit()))
    assert shape(raised.value) == [SystemExit, ValueError]


async def test_where_block_and_task_fail_both_are_in_the_group() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await run(raising_when_cancelled(ValueError("the block's")), rest, raising(KeyError("a task's")))
    assert shape(raised.value) == [KeyError, ValueError]


async def test_a_group_of_the_block_stays_a_group_in_it() -> None:
    async def block() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rest)
            nursery.start_soon(raising_when_cancelled(ValueError("the block's")))

    with pytest.raises(ExceptionGroup) as raised:
        await run(block, rest, raising(KeyError("a task's")))
    assert shape(raised.value) == [KeyError, [ValueError]]


# Cancelled from outside


async def cancelled(block: Callable[[], Awaitable[None]], *tasks: Callable[[], Awaitable[None]]) -> BaseException:
    """What comes out before it reaches the scope that is cancelled."""
    found: list[BaseException] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await run(block, *tasks)
        except BaseException as exc:
            found.append(exc)
            raise
    assert scope.cancelled_caught == ("Cancelled" in repr(found))
    return found[0]


async def test_a_block_that_is_cancelled_raises_its_own_cancelled() -> None:
    raised: list[BaseException] = []

    async def block() -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled as exc:
            raised.append(exc)
            raise

    assert [await cancelled(block, rest, rest)] == raised


async def test_cancelled_behind_the_block_it_is_one_cancelled() -> None:
    async def block() -> None:
        pass

    assert isinstance(await cancelled(block, rest, rest), trio.Cancelled)


async def test_a_task_that_fails_when_all_is_cancelled_is_not_lost() -> None:
    with pytest.raises(BaseExceptionGroup) as raised:
        await cancelled(trio.sleep_forever, rest, raising_when_cancelled(KeyError("a task's")))
    assert shape(raised.value) == [KeyError]  # The scope has caught the block's Cancelled.


async def test_nor_is_what_ends_a_program() -> None:
    exc = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt) as raised:
        await cancelled(trio.sleep_forever, rest, raising_when_cancelled(exc))
    assert raised.value is exc


# Elsewhere


def test_with_loose_exception_groups_it_is_the_same() -> None:
    async def main() -> None:
        await test_what_the_block_alone_raises_comes_out_as_it_is(ValueError())
        await test_a_task_that_fails_cancels_the_block_and_comes_out_in_a_group()
        await test_where_block_and_task_fail_both_are_in_the_group()
        await test_a_block_that_is_cancelled_raises_its_own_cancelled()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trio deprecates them.
        trio.run(main, strict_exception_groups=False)


def test_on_another_loop_it_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"start the program with trio\.run\(main\), not with asyncio\.run"):
        asyncio.run(run(end))
    with pytest.raises(RuntimeError, match=r"trio\.run\(main\)"):
        check_runs_on_trio()
