"""What the caller's functions raise: a failure of theirs is told to whoever has to know; all else goes on its way.

A handler, a hook, a callback may raise anything. An :class:`Exception`, alone or in a group, is a *failure* of what was
called. KeyboardInterrupt, SystemExit and the Cancelled of a scope around this point are meant for the nurseries around,
as everywhere in trio. A nursery that fails while it is cancelled raises both kinds in one group, so groups are split.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = ["call_and_report", "first_of", "raise_in_nursery", "separate"]


def separate(exc: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """What of an exception is a failure of what was called, and what is meant for the nurseries around it.

    A Cancelled is meant for them if one of their scopes is cancelled. Otherwise it was carried here from elsewhere, by
    an :class:`outcome.Error` for example; let out, it would end the program without a word.
    """

    def passes(leaf: BaseException) -> bool:
        if isinstance(leaf, trio.Cancelled):
            return trio.current_effective_deadline() == -math.inf
        return not isinstance(leaf, (Exception, BaseExceptionGroup))

    if isinstance(exc, BaseExceptionGroup):
        passing, failure = exc.split(passes)
        if passing is not None and failure is not None:
            return failure, passing
        return (exc, None) if passing is None else (None, exc)
    return (None, exc) if passes(exc) else (exc, None)


def first_of(exc: BaseException) -> BaseException:
    """The exception itself; of a group, which a nursery makes even of a single exception, the first."""
    while isinstance(exceptions := getattr(exc, "exceptions", None), tuple):
        exc = exceptions[0]
    return exc


async def call_and_report(function: Callable[[], Awaitable[None]], failed: Callable[[BaseException], None]) -> None:
    """Call what calls callbacks, in a task of its own, and tell ``failed`` of its exception."""
    try:
        await function()
    except BaseException as exc:
        failed(exc)


async def raise_in_nursery(exc: BaseException) -> None:
    """Raise ``exc`` in the nursery that this is started in."""
    raise exc
