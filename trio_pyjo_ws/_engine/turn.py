# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False, nonecheck=True
"""How long a task may go on before others have their turn.

The bytes of one peer must not keep the others waiting, however many messages they are. So whoever handles messages
checks after each of them whether the turn is over, and then yields to the scheduler.
"""

from __future__ import annotations

from time import perf_counter

__all__ = ["TURN", "Turn"]

TURN = 0.001
"""Seconds that a task may go on without yielding to the scheduler (trio's issue 1757 reasons the same way)."""

_TURN = TURN


class Turn:
    """A time in which no other task runs. Until the first one begins, it is over."""

    __slots__ = ("_began",)

    def __init__(self) -> None:
        self._began = 0.0

    def begin(self) -> None:
        """Others have had their turn: the next begins."""
        self._began = perf_counter()

    def is_over(self) -> bool:
        """Whether it has lasted for as long as it may."""
        now = perf_counter()
        return now - self._began > _TURN
