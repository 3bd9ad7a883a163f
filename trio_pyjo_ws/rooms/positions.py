"""Where a message stands in its room's order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Event", "Position"]

_TEXT = re.compile(r"([0-9a-f]{16})\.(0|[1-9][0-9]{0,14})")


@dataclass(frozen=True, slots=True)
class Position:
    """The place of a message in the order of its room: opaque, to be kept and given back as ``after=``.

    ``str()`` returns it as text that is safe in a URL and in JSON, and :meth:`parse` reads that.
    """

    epoch: str
    """Names a stretch of the order that is known to be whole: another begins when the broker may have lost some."""
    number: int
    """Counts the messages of the room."""

    def __str__(self) -> str:
        return f"{self.epoch}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the position that ``text`` encodes.

        Raises TypeError unless it is a str, and ValueError unless ``str()`` of a position has made it. The text may
        come from a peer: :meth:`Rooms.join` detects a position that never existed.
        """
        if not isinstance(text, str):
            raise TypeError(f"a position must be a str, not {type(text).__name__}")
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError(f"invalid position {text[:60]!r} (expected one that str() of a Position has made)")
        return cls(found[1], int(found[2]))


class Event(NamedTuple):
    """A message of a room, and its position there."""

    position: Position
    message: str | bytes
