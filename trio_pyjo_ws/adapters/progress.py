"""How far a program is, as a bar on standard error (rich)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["open_progress"]


@contextmanager
def open_progress(total: float) -> Iterator[Callable[[float], object]]:
    """A bar, for ``with``: the value is called with how much of ``total`` is done. It goes when the block ends.

    Nothing moves by itself: rich would start a thread for that.
    """
    columns = (BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.update(task, completed=done, refresh=True)
