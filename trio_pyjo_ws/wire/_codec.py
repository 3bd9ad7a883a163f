"""The bytes of frames, in pure Python: the twin that serves where no compiled codec is installed.

A codec is two functions and a class, and knows nothing but RFC 6455, section 5:

- :func:`apply_mask` XORs a payload with a masking key (section 5.3);
- :func:`encode` makes the bytes of one frame (section 5.2);
- :class:`Decoder` takes bytes in whatever pieces they arrive and gives *items*, in order: a ``str`` or ``bytes`` for a
  whole, unfragmented, uncompressed message (the straight path); ``(head, payload)`` for any other frame, ``head``
  being its first byte and the payload unmasked; and, last of all, the :class:`RemoteProtocolError` that ends the
  stream. It enforces every rule that can be told from the frames alone.

Python has no fast XOR of byte strings. Two ways come close, and which one wins depends on the length: small payloads
go through one big integer; larger ones through :meth:`bytes.translate`, one lane for each byte of the key.
Per byte both cost about 0.9 ns, and of that the conversions cost nearly all, so this is the floor of pure Python.
"""

from __future__ import annotations

import codecs
import struct
import sys
from typing import Union

from ..errors import RemoteProtocolError

__all__ = ["Decoder", "Item", "Utf8Validator", "apply_mask", "encode"]

Item = Union[str, bytes, "tuple[int, bytes]", RemoteProtocolError]

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

TRANSLATE_FROM = 1024
"""Bytes from which four translated lanes are faster than one big integer."""

_TRANSLATIONS: list[bytes] = [bytes(byte ^ key for byte in range(256)) for key in range(256)]
_Utf8Decoder = codecs.getincrementaldecoder("utf-8")
_short_head = struct.Struct("!BB").pack
_medium_head = struct.Struct("!BBH").pack
_long_head = struct.Struct("!BBQ").pack


def apply_mask(payload: bytes | bytearray | memoryview, key: bytes) -> bytes | bytearray:
    """XOR ``payload`` with the four bytes of ``key``, over and over (section 5.3). Masks and unmasks alike."""
    length = len(payload)
    if length < TRANSLATE_FROM:
        repeated = (key * (length // 4 + 1))[:length]
        return (int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")).to_bytes(length, "little")
    masked = bytearray(length)
    for lane in range(4):
        masked[lane::4] = bytes(payload[lane::4]).translate(_TRANSLATIONS[key[lane]])
    return masked


def encode(head: int, payload: bytes, key: bytes | None = None) -> bytes:
    """The bytes of a frame whose first byte is ``head``, masked where a ``key`` is given."""
    length = len(payload)
    if key is None:
        if length <= SHORT:
            return _short_head(head, length) + payload
        return (_medium_head(head, 126, length) if length <= 0xFFFF else _long_head(head, 127, length)) + payload
    if length <= SHORT:
        start = _short_head(head, MASKED | length)
    elif length <= 0xFFFF:
        start = _medium_head(head, MASKED | 126, length)
    else:
        start = _long_head(head, MASKED | 127, length)
    return b"".join((start, key, apply_mask(payload, key)))


class Utf8Validator:
    """Whether bytes that come in pieces are UTF-8 (section 8.1), told at the first byte that cannot be."""

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = _Utf8Decoder()

    def accepts(self, piece: bytes | bytearray, final: bool) -> bool:
        """Whether the text may go on with ``piece`` and, where that is the ``final`` one, end with it."""
        decoder = self._decoder
        try:
            decoder.decode(piece, final)
        except UnicodeDecodeError:
            return False
        # Python looks at a surrogate, ED and A0 to BF, only once its third byte is there.
        waiting = decoder.getstate()[0]
        return not (len(waiting) == 2 and waiting[0] == 0xED and waiting[1] >= 0xA0)


def breach(head: int, length: int, compression: bool, fragmented: bool) -> str | None:
    """Which rule the first two bytes of a frame break, None where they break none (sections 5.2, 5.4 and 5.5)."""
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


def size_bound(head: int, max_size: int, compressed: bool) -> int:
    """How many bytes of payload the message of a frame may have; ``compressed`` is that of the message begun before."""
    opcode = head & OPCODE
    if opcode >= FIRST_CONTROL_OPCODE:
        return sys.maxsize  # A control frame belongs to no message, and has its own bound.
    if head & RSV1 or (not opcode and compressed):
        # Data that cannot be compressed grows: by 6 % in the worst block type, plus the blocks' own heads. What
        # it inflates to is bounded elsewhere; this bound is for what has to be kept until then.
        return max_size + (max_size >> 3) + 64
    return max_size


class Decoder:
    """Frames out of bytes.

    ``masked`` tells whether the peer has to mask (a server's peers do, a client's must not), ``max_size`` bounds the
    payload of a message in bytes, and ``compression`` tells whether RSV1 has a meaning. ``straight`` may be cleared to
    get every frame as ``(head, payload)``.

    While ``parts`` is set, the message that is being received, or else the next, is given as it arrives, whatever its
    size: what has come of a frame is an item like a fragment, and the rest of it is one more; the first may be empty.
    The end of the message clears it. While ``holding`` is set, decoding stops before a frame that makes a message too
    large or is compressed.

    After each :meth:`decode`, ``plain`` tells that the items are whole messages only, ``held`` that it has stopped in
    that way, and ``pending`` that it has or that the limit ended the call: more items may be had without more data.
    """

    __slots__ = (
        "_compressed",
        "_data",
        "_failed",
        "_fragmented",
        "_head",
        "_key",
        "_missing",
        "_partial",
        "_position",
        "_size",
        "_utf8",
        "compression",
        "held",
        "holding",
        "masked",
        "max_size",
        "parts",
        "pending",
        "plain",
        "straight",
    )

    def __init__(self, masked: bool, max_size: int, compression: bool = False) -> None:
        self.masked = masked
        self.max_size = max_size
        self.compression = compression
        self.straight = True
        self.parts = False
        self.holding = False
        self.held = False
        self.plain = True
        self.pending = False
        self._data = b""
        self._position = 0
        # Of the message that is being received in fragments:
        self._fragmented = False
        self._compressed = False
        self._size = 0
        self._utf8: Utf8Validator | None = None
        # Of the frame whose header is complete and whose payload is not:
        self._partial: bytearray | None = None
        self._head = 0
        self._key = b""
        self._missing = 0
        self._failed = False

    @property
    def midway(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._fragmented or (self._partial is not None and self._head & OPCODE < FIRST_CONTROL_OPCODE)

    def decode(self, data: bytes, limit: int) -> list[Item]:
        """Take ``data`` in, and give at most ``limit`` items of all that has come.

        A ``limit`` of 0, before the first frame, only keeps the data.
        """
        items: list[Item] = []
        from_bytes = int.from_bytes
        self.plain = not self.parts
        self.held = False
        position = 0
        if self._data:
            if data:
                data = self._data[self._position :] + data
            else:
                data = self._data
                position = self._position
        end = len(data)
        if self._partial is not None:
            position = self._resume(data, position, items)
        masked = self.masked
        straight = self.straight and not self.parts
        mask_length = 4 if masked else 0
        while end - position >= 2 and len(items) < limit and not self._failed:
            head = data[position]
            length = data[position + 1]
            if (length >= MASKED) is not masked:
                self._fail(items, "a client's frames must be masked" if masked else "a server's frames are not masked")
                break
            if masked:
                length -= MASKED
            whole = straight and not self._fragmented and (head == FIN_BINARY or head == FIN_TEXT)
            if not whole:
                if found := breach(head, length, self.compression, self._fragmented):
                    self._fail(items, found)
                    break
                if self._must_wait(head, bool(head & RSV1) or (not head & OPCODE and self._compressed)):
                    self.held = True
                    break
            start = position + 2
            if length > SHORT:
                start += 2 if length == 126 else 8
                if end < start:
                    break
                extended = int.from_bytes(data[position + 2 : start], "big")
                if extended <= (SHORT if length == 126 else 0xFFFF) or extended >> 63:
                    self._fail(items, f"the length {extended} is not in its shortest form, or has its highest bit set")
                    break
                length = extended
            if length > self.max_size - self._size and (
                length > size_bound(head, self.max_size, self._compressed) - self._size and not self.parts
            ):
                if self._must_wait(head, True):
                    self.held = True
                    break
                self._fail(items, f"a message of more than {self.max_size} bytes", 1009)
                break
            if end < start + mask_length:
                break
            key = data[start : start + mask_length]
            start += mask_length
            if end - start < length:
                self._begin(data, start, head, length, key, items)
                position = end
                break
            position = start + length
            payload = data[start:position]
            if masked:
                if length < TRANSLATE_FROM:
                    # apply_mask() written out: the call costs a tenth of a small frame.
                    repeated = from_bytes((key * (length // 4 + 1))[:length], "little")
                    payload = (from_bytes(payload, "little") ^ repeated).to_bytes(length, "little")
                else:
                    payload = bytes(apply_mask(payload, key))
            if whole and head == FIN_BINARY:
                items.append(payload)
            else:
                self._finish_frame(head, payload, whole, items)
                if not straight:
                    straight = self.straight and not self.parts
        if self.parts and self._partial is not None:
            self._give_part(items)
        if position == end or self._failed:
            data = b""
            position = 0
        self._data = data
        self._position = position
        self.pending = self.held or (len(items) >= limit and len(data) - position >= 2)
        return items

    def _must_wait(self, head: int, unfit: bool) -> bool:
        """Whether to hold at a frame that is ``unfit`` for those who want the message whole."""
        return unfit and self.holding and not self.parts and head & OPCODE < FIRST_CONTROL_OPCODE

    def _give_part(self, items: list[Item]) -> None:
        """Give what has come of a frame as a fragment, and let the rest be another."""
        head = self._head
        opcode = head & OPCODE
        if opcode < FIRST_CONTROL_OPCODE and (self._partial or opcode):
            payload = bytes(self._partial or b"")
            self._partial = bytearray()
            self._head = head & FIN
            self._finish_frame(head & ~FIN, payload, False, items, validated=True)

    def _begin(self, data: bytes, start: int, head: int, length: int, key: bytes, items: list[Item]) -> None:
        """Keep the first part of a payload. What is kept grows with what arrives, never with what is announced."""
        self._head = head
        self._missing = length
        self._key = key
        self._partial = bytearray()
        if head & OPCODE in (TEXT, BINARY):
            self._expect(head)
        self._resume(data, start, items)

    def _resume(self, data: bytes, position: int, items: list[Item]) -> int:
        """Add to the payload that is being received; return where in ``data`` it ends."""
        partial = self._partial
        assert partial is not None
        end = min(len(data), position + self._missing)
        piece: bytes | bytearray = data[position:end] if position or end < len(data) else data
        if self.masked:
            piece = apply_mask(piece, self._key)
            turn = len(piece) & 3
            self._key = self._key[turn:] + self._key[:turn]
        self._missing -= end - position
        partial += piece
        if not self._is_valid_text(self._head, piece, not self._missing):
            self._fail(items, "text that is not UTF-8", 1007)
        elif not self._missing:
            self._partial = None
            whole = self.straight and not (self.parts or self._fragmented) and self._head in (FIN_TEXT, FIN_BINARY)
            if whole and self._head == FIN_TEXT:
                items.append(partial.decode())  # without a copy in between: a message may be large
            else:
                self._finish_frame(self._head, bytes(partial), whole, items, validated=True)
        return end

    def _expect(self, head: int) -> None:
        """A message begins: what the bytes that follow have to be."""
        is_text = head & OPCODE == TEXT and not head & RSV1
        self._utf8 = Utf8Validator() if is_text else None

    def _is_valid_text(self, head: int, piece: bytes | bytearray, frame_ends: bool) -> bool:
        """Whether ``piece`` goes on with an uncompressed text message (section 8.1); other payloads always do."""
        if self._utf8 is None or head & OPCODE >= FIRST_CONTROL_OPCODE:
            return True
        return self._utf8.accepts(piece, frame_ends and bool(head & FIN))

    def _finish_frame(self, head: int, payload: bytes, whole: bool, items: list[Item], validated: bool = False) -> None:
        """A frame is complete: give it, or the message that it is, and remember what the next one may be."""
        if whole:
            if head == FIN_BINARY:
                items.append(payload)
                return
            try:
                items.append(str(payload, "utf-8"))
            except UnicodeDecodeError:
                self._fail(items, "text that is not UTF-8", 1007)
            return
        opcode = head & OPCODE
        if opcode < FIRST_CONTROL_OPCODE:
            if opcode:
                self._compressed = bool(head & RSV1)
                if not validated:
                    self._expect(head)
            if not validated and not self._is_valid_text(head, payload, True):
                self._fail(items, "text that is not UTF-8", 1007)
                return
            self._fragmented = not head & FIN
            self._size = self._size + len(payload) if self._fragmented else 0
            if not self._fragmented:
                self._utf8 = None
                self.parts = False
        self.plain = False
        items.append((head, payload))

    def _fail(self, items: list[Item], message: str, code: int = 1002) -> None:
        self._failed = True
        self.plain = False
        self._partial = None
        items.append(RemoteProtocolError(message, code))
