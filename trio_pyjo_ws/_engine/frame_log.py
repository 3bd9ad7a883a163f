"""What ``PYJO_WEBSOCKET_DEBUG=1`` in the environment does: every frame of every connection is logged.

A line tells the connection, the direction and the frame: ``client-1 -> TEXT FIN, 12 bytes: 'Hello World!'``. A payload
is shortened, and what looks like a password or a token is left out of it; so is all of a compressed one, and of the
later fragments of a message, in which nobody could see where such a thing ends.
"""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

from ..wire.frames import Frame, Opcode, parse_frame

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["FrameLog", "is_wanted"]

logger = logging.getLogger("trio_pyjo_ws")

SHOWN = 80
"""Characters of a payload that are shown."""

LOOKED_AT = 4_096
"""Bytes of a payload in which secrets are looked for, before it is shortened."""

# A str, which `re` compiles when it is first used: never, if frames are not logged.
HIDDEN = r"""
    ((?:pass(?:word|wd|phrase)?|pwd|secret|token|authori[sz]ation|credentials?|api[-_]?key|cookie|session[-_]?id)
        [\\'"]*\s*[:=]\s*)   # as in JSON, in a header, in a query
        (?:\\?"(?:[^"\\]|\\.)*\\?"? | '[^']*'? | (?:(?:basic|bearer)\s+)?[^\s&,;}\]]+)
        | (\b(?:basic|bearer)\s+)[^\s"']+
    """


def is_wanted() -> bool:
    """Whether the environment asks for it: the variable is there, and neither empty nor 0."""
    return os.environ.get("PYJO_WEBSOCKET_DEBUG", "0") not in ("", "0")


class FrameLog:
    """Logs all frames of ``connection`` from now on; on standard error, if logging is not set up at all."""

    __slots__ = ("_name",)

    def __init__(self, connection: Connection) -> None:
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.DEBUG)
        if not logger.hasHandlers():
            logger.addHandler(logging.StreamHandler())
        self._name = connection.name
        connection.watch(self, frames=True)
        connection.protocol.on_taken = self._taken

    def frame(self, frame: Frame) -> None:
        """A frame has come."""
        logger.debug("%s <- %s", self._name, _describe(frame))

    def messages(self, count: int, more: bool) -> None:
        """Messages have come: their frames are logged already."""

    def _taken(self, data: bytes) -> None:
        frames = bytearray(data)
        while frame := parse_frame(frames):
            logger.debug("%s -> %s", self._name, _describe(frame))


def _describe(frame: Frame) -> str:
    fin, rsv1, rsv2, rsv3, opcode, payload = frame
    bits = {"FIN": fin, "RSV1": rsv1, "RSV2": rsv2, "RSV3": rsv3}
    name = " ".join([getattr(opcode, "name", f"opcode {opcode}"), *(bit for bit, is_set in bits.items() if is_set)])
    size = f"{name}, {len(payload)} bytes"
    if not payload:
        return size
    if opcode == Opcode.CLOSE:
        return f"{size}: {int.from_bytes(payload[:2], 'big')} {_show(payload[2:])}"
    if rsv1 or opcode == Opcode.CONTINUATION:
        return size
    return f"{size}: {_show(payload)}"


def _show(payload: bytes) -> str:
    text = payload[:LOOKED_AT].decode("utf-8", "backslashreplace")
    hidden = re.sub(HIDDEN, lambda match: f"{match[1] or match[2]}***", text, flags=re.IGNORECASE | re.VERBOSE)
    shown = repr(hidden)
    return shown if len(shown) <= SHOWN else f"{shown[: SHOWN - 3]}..."
