"""A nursery inside an ``async with`` of ours, which the user of that block need not know of.

trio's nursery puts what its block raises into a group, together with the Cancelled of every task that it had to cancel
for it. Somebody who writes ``async with open_websocket(url)`` has opened no nursery, and expects of the block what
holds for any other: what it raises comes out. So here:

===============================  ================================================================================
fails                            comes out
===============================  ================================================================================
the block, or it is cancelled    its exception: the same object, not in a group
a task (a callback of the user)  an exception group, as out of any nursery, so that ``except*`` finds it whether one
                                 task has failed or several; KeyboardInterrupt and SystemExit as they are, because
                                 Python ends a program for them only if they are not in a group
both                             a group of both
===============================  ================================================================================

The Cancelled of the tasks never come out, unless there is nothing else: then one of them does.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import trio

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

__all__ = ["HiddenNursery", "check_runs_on_trio"]


class HiddenNursery:
    """``async with HiddenNursery() as nursery``: a :class:`trio.Nursery` whose block's exceptions come out as they are.

    Raises RuntimeError on any other event loop than trio's.
    """

    _manager: AbstractAsyncContextManager[trio.Nursery, bool | None]

    async def __aenter__(self) -> trio.Nursery:
        check_runs_on_trio()
        self._manager = trio.open_nursery(strict_exception_groups=True)
        return await self._manager.__aenter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            return await self._manager.__aexit__(exc_type, exc, traceback)
        except BaseExceptionGroup as group:
            raised = _choose(group, exc)
        if raised is None:
            return False  # So Python lets the block's exception out, untouched.
        # As trio does: the exception comes from here, and what it came with is not its context.
        context = raised.__context__
        try:
            raise raised
        finally:
            raised.__context__ = context
            del raised, context


def check_runs_on_trio() -> None:
    """Raise RuntimeError, which says what to do, in anything but a task of trio's."""
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        raise RuntimeError(
            "trio_pyjo_ws needs trio: start the program with trio.run(main), not with asyncio.run(main())"
        ) from None


def _choose(group: BaseExceptionGroup[BaseException], exc: BaseException | None) -> BaseException | None:
    """What comes out in place of a nursery's group; None for ``exc``, the exception of its block."""
    own = set() if exc is None else set(map(id, _leaves(exc)))
    # Splitting makes all the groups in it anew, so the block's exception is known by its leaves.
    cancelled, rest = group.split(lambda part: isinstance(part, trio.Cancelled) and id(part) not in own)
    if rest is None:
        assert cancelled is not None
        return next(_leaves(cancelled))
    if own.issuperset(map(id, _leaves(rest))):
        return None
    failures = [leaf for leaf in _leaves(rest) if not isinstance(leaf, trio.Cancelled)]
    if len(failures) == 1 and not isinstance(failures[0], Exception):
        return failures[0]
    return rest


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group and in the groups in it; of any other exception, itself."""
    if isinstance(exc, BaseExceptionGroup):
        for part in exc.exceptions:
            yield from _leaves(part)
    else:
        yield exc
