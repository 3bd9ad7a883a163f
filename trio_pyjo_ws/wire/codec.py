# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False, nonecheck=True
"""Frames out of bytes (RFC 6455, section 5), and messages out of frames.

The :class:`Decoder` takes bytes in whatever pieces they arrive, and enforces every rule that can be told from the
frames alone. It gives *items*, in order:

- ``str`` or ``bytes``: a whole message that is not compressed, of one frame (the straight path: no object but the
  message is made) or of many;
- ``(head, payload)``: a control frame, ``head`` being its first byte and the payload unmasked; or what has come of a
  compressed message, ``head`` being FIN for the last of it and 0 before;
- :class:`Frame`, while frames are watched: every frame, before what it means;
- last of all, the :class:`RemoteProtocolError` that ends the stream.

A message that has not come whole is collected in an :class:`~trio_pyjo_ws.wire.arriving.Arriving`.
"""

from __future__ import annotations

from typing import Union

from ..errors import RemoteProtocolError
from . import masking
from .arriving import Arriving
from .frames import Frame

__all__ = ["MAX_EMPTY_FRAGMENTS", "Decoder", "Item"]

Item = Union[str, bytes, "tuple[int, bytes]", Frame, RemoteProtocolError]

FRAMES_AT_ONCE = 1024
"""Frames that one call looks at, so that a flood of tiny fragments does not decide how long a call takes."""

CONTROL_PRICE = 8
"""Frames that a control frame counts as: each is handled by itself, and a ping is answered."""

MAX_EMPTY_FRAGMENTS = 1024
"""How many fragments of one message may be empty. Those with a payload are bounded by the message's size."""

FIN = 0x80
RSV1 = 0x40
RSV2_RSV3 = 0x30
OPCODE = 0x0F
TEXT = 0x1
BINARY = 0x2
FIN_TEXT = FIN | TEXT
FIN_BINARY = FIN | BINARY
FIRST_CONTROL_OPCODE = 0x8
RESERVED_OPCODES = frozenset({3, 4, 5, 6, 7, 11, 12, 13, 14, 15})
MASKED = 0x80
SHORT = 125
"""The longest payload whose length fits into the second byte, and the longest of a control frame (section 5.5)."""


def breach(head: int, length: int, compression: bool, fragmented: bool) -> str | None:
    """Which rule the first two bytes of a frame break, None if they break none (sections 5.2, 5.4 and 5.5)."""
    opcode = head & OPCODE
    if opcode in RESERVED_OPCODES:
        return f"the opcode {opcode} is reserved"
    if head & RSV2_RSV3 or (head & RSV1 and (not compression or opcode not in (TEXT, BINARY))):
        return f"a reserved bit is set in the first byte {head:#04x}, with no extension that gives it a meaning"
    if opcode >= FIRST_CONTROL_OPCODE:
        if not head & FIN:
            return "a control frame is fragmented"
        if length > SHORT:
            return "a control frame has a payload of more than 125 bytes"
    elif fragmented:
        if opcode:
            return "a new message begins before the last fragment of the one before"
    elif not opcode:
        return "a continuation frame has nothing to continue"
    return None


class Decoder:
    """Frames and messages out of bytes.

    ``masked`` tells whether the peer has to mask (a server's peers do, a client's must not), ``max_size`` bounds the
    payload of a message in bytes, and ``compression`` tells whether RSV1 has a meaning. While ``watch`` is set, every
    frame that begins is an item of its own. While ``holding`` is set, decoding stops before a frame that makes a
    message too large, in place of failing: somebody may yet claim it.

    After each :meth:`decode`, ``plain`` tells that the items are messages only, ``held`` that it has stopped because of
    ``holding``, and ``pending`` that there may be more items without more data.
    """

    __slots__ = (
        "_data",
        "_empty_fragments",
        "_failed",
        "_head",
        "_key",
        "_missing",
        "_position",
        "_seen",
        "arriving",
        "compression",
        "held",
        "holding",
        "masked",
        "max_empty_fragments",
        "max_size",
        "pending",
        "plain",
        "watch",
    )

    def __init__(
        self,
        masked: bool,
        max_size: int,
        compression: bool = False,
        max_empty_fragments: int = MAX_EMPTY_FRAGMENTS,
    ) -> None:
        self.masked = masked
        self.max_size = max_size
        self.compression = compression
        self.max_empty_fragments = max_empty_fragments
        self.watch = False
        self.holding = False
        self.held = False
        self.plain = True
        self.pending = False
        self.arriving = Arriving()
        """The message of which a part has come, or else the next."""
        self._data = b""
        self._position = 0
        self._empty_fragments = 0
        # The data frame whose header is complete and whose payload is not:
        self._missing = 0
        self._head = 0
        self._key = b""
        self._seen: masking.Buffer | None = None  # of its payload, if frames were watched when it began
        self._failed = False

    def decode(self, data: bytes, limit: int) -> list[Item]:
        """Take ``data`` in, and read on until there are ``limit`` items, or ``FRAMES_AT_ONCE`` frames were read.

        A control frame counts as several. A ``limit`` of 0 only keeps the data. Reading stops, too, behind a Close and
        behind a part of a compressed message, which has to be inflated before there is more.
        """
        items: list[Item] = []
        left = FRAMES_AT_ONCE
        self.plain = True
        self.held = False
        if self._failed:
            return items
        stop = False
        position = 0
        if self._data:
            if data:
                data = self._data[self._position :] + data
            else:
                data = self._data
                position = self._position
        end = len(data)
        masked = self.masked
        mask_length = 4 if masked else 0
        if self._missing and end > position and limit:
            position, stop = self._resume(data, position, end, items)
        while end - position >= 2 and left > 0 and not stop and len(items) < limit:
            left -= 1
            head = data[position]
            length = data[position + 1]
            if (length >= MASKED) is not masked:
                self._fail(items, "a client's frames must be masked" if masked else "a server's frames are not masked")
                break
            length &= 0x7F
            arriving = self.arriving
            whole = (head == FIN_BINARY or head == FIN_TEXT) and not (arriving.begun or arriving.claimed or self.watch)
            if not whole:
                found = breach(head, length, self.compression, arriving.begun)
                if found is not None:
                    self._fail(items, found)
                    break
            start = position + 2
            if length > SHORT:
                start += 2 if length == 126 else 8
                if end < start:
                    break
                if length == 126:
                    extended = data[position + 2] << 8 | data[position + 3]
                else:
                    extended = int.from_bytes(data[position + 2 : start], "big")
                if extended <= (SHORT if length == 126 else 0xFFFF) or extended >> 63:
                    self._fail(items, f"the length {extended} is not in its shortest form, or has its highest bit set")
                    break
                length = extended
            if length > self.max_size - arriving.size and self._is_too_large(head, length):
                if self.holding:
                    self.held = True
                else:
                    self._fail(items, f"a message of more than {self.max_size} bytes", 1009)
                break
            start += mask_length
            if end - start < length:
                if end < start or head & OPCODE >= FIRST_CONTROL_OPCODE:
                    break
                self._head = head
                self._missing = length
                self._key = data[start - mask_length : start]
                self._seen = masking.Buffer() if self.watch else None
                self._begin(head)
                position = end
                if end > start:
                    position, stop = self._resume(data, start, end, items)
                break
            position = start + length
            if not whole:
                stop = self._take_frame(head, data, start, position, items)
                if head & FIRST_CONTROL_OPCODE:
                    left -= CONTROL_PRICE - 1
            elif head == FIN_BINARY:
                items.append(masking.unmasked(data, start, position) if masked else data[start:position])
            else:
                self._give_text(data, start, position, items)
                stop = self._failed
        if position == end or self._failed:
            data = b""
            position = end = 0
        self._data = data
        self._position = position
        stop = stop or left <= 0 or len(items) >= limit
        more = end - position >= (1 if self._missing else 2)  # One byte is no frame, but may be the rest of one.
        self.pending = self.held or (more and stop)
        return items

    def finish(self) -> str | bytes | None:
        """The message that is arriving has come whole: give it. None if it is claimed, and so somebody's already."""
        arriving = self.arriving
        if arriving.claimed:
            arriving.finish()
            self.arriving = Arriving()
            return None
        message = arriving.take()
        arriving.restart()
        return message

    def unclaim(self) -> bool:
        """Take back the claim on the message that is arriving, if it is not too large to be whole; return whether."""
        arriving = self.arriving
        if arriving.held > self.max_size or self._missing > self.max_size - arriving.size:
            return False
        arriving.unclaim()
        return True

    def _is_too_large(self, head: int, length: int) -> bool:
        """Whether the message of a frame with this head and length of payload is over the limit."""
        arriving = self.arriving
        opcode = head & OPCODE
        if opcode >= FIRST_CONTROL_OPCODE or arriving.claimed:
            return False  # A control frame belongs to no message, and has its own bound.
        max_size = self.max_size
        if head & RSV1 or (not opcode and arriving.compressed):
            # Data that cannot be compressed grows: by 6 % in the worst block type, plus the blocks' own heads. What
            # it inflates to is bounded elsewhere; this bounds a message that never ends and inflates to nothing.
            length -= (max_size >> 3) + 64
        return length > max_size - arriving.size

    def _begin(self, head: int) -> None:
        opcode = head & OPCODE
        if opcode:
            self.arriving.begin(opcode, head & RSV1 != 0)
            self._empty_fragments = 0

    def _take_frame(self, head: int, data: bytes, start: int, end: int, items: list[Item]) -> bool:
        """A frame has come whole that is not a whole message. Return whether to stop behind it."""
        opcode = head & OPCODE
        if opcode >= FIRST_CONTROL_OPCODE or self.watch:
            payload = masking.unmasked(data, start, end) if self.masked else data[start:end]
            self._show(items, head, payload)
            if opcode >= FIRST_CONTROL_OPCODE:
                self.plain = False
                items.append((head, payload))
                # What stands behind a Close is not looked at (section 5.5.1).
                return opcode == FIRST_CONTROL_OPCODE
        self._begin(head)
        if start == end and not head & FIN:
            self._empty_fragments += 1
            if self._empty_fragments > self.max_empty_fragments:
                self._fail(items, f"a message with over {self.max_empty_fragments} empty fragments", 1008)
                return True
        self._key = data[start - 4 : start] if self.masked else b""
        return self._collect(head & FIN != 0, data, start, end, items)

    def _resume(self, data: bytes, position: int, end: int, items: list[Item]) -> tuple[int, bool]:
        """Go on with the payload of a frame. Return where in ``data`` it ends, and whether to stop behind it."""
        size = min(end - position, self._missing)
        end = position + size
        self._missing -= size
        seen = self._seen
        if seen is not None:
            seen.extend_part(data, position, end, self._key, self._missing)
            if not self._missing:
                self._seen = None
                self._show(items, self._head, seen.take())
            elif self.arriving.claimed:
                # It may be of any size, so it is shown as it arrives: the rest of it is one more fragment.
                self._show(items, self._head & ~FIN, seen.take())
                self._head &= FIN
        stop = self._collect(self._head & FIN != 0 and not self._missing, data, position, end, items)
        if self.masked:
            turn = size & 3
            self._key = self._key[turn:] + self._key[:turn]
        return end, stop

    def _collect(self, final: bool, data: bytes, start: int, end: int, items: list[Item]) -> bool:
        """Add a part of the message that is arriving; give it if that was the last. Return whether to stop."""
        arriving = self.arriving
        arriving.note(end - start)
        if arriving.compressed or arriving.is_text:
            payload = data[start:end]
            if self.masked:
                payload = masking.apply_mask(payload, self._key)
            if arriving.compressed:
                self.plain = False
                items.append((FIN if final else 0, payload))
                return True
            try:
                arriving.add(payload, final)
            except UnicodeDecodeError:
                self._fail(items, "text that is not UTF-8", 1007)
                return True
        else:
            arriving.add_part(data, start, end, self._key, 0 if arriving.claimed else self._missing)
        if final:
            message = self.finish()
            if message is None:
                return True  # Whoever has claimed it is told of it before there is more.
            items.append(message)
        return False

    def _give_text(self, data: bytes, start: int, end: int, items: list[Item]) -> None:
        try:
            if self.masked:
                items.append(masking.unmasked(data, start, end).decode("utf-8"))
            else:
                items.append(data[start:end].decode("utf-8"))
        except UnicodeDecodeError:
            self._fail(items, "text that is not UTF-8", 1007)

    def _show(self, items: list[Item], head: int, payload: bytes) -> None:
        """Give a frame as it is, if frames are watched."""
        if self.watch:
            self.plain = False
            items.append(Frame.from_head(head, payload))

    def _fail(self, items: list[Item], message: str, code: int = 1002) -> None:
        self._failed = True
        self.plain = False
        self._missing = 0
        items.append(RemoteProtocolError(message, code))
