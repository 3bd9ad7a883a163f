"""Messages in fragments (RFC 6455, section 5.4): how they are put together, given piece by piece, and cut.

:class:`Assembly` makes a message of the data frames that come: whole, or, for somebody who wants it as it arrives, in
pieces, of which it keeps none. :class:`Fragmenter` makes frames of the pieces of a message that is sent.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, NamedTuple

from ..errors import RemoteProtocolError
from .frames import Opcode, Utf8Validator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .deflate import PerMessageDeflate

__all__ = ["MAX_EMPTY_FRAGMENTS", "PIECE_SIZE", "Assembly", "Fragmenter", "Piece"]

MAX_EMPTY_FRAGMENTS = 1024
"""How many fragments of one message may be empty. Those with a payload are bounded by the message's size."""

PIECE_SIZE = 65_536
"""Bytes that a compressed message inflates to at a time where it is given in pieces."""

_TextDecoder = codecs.getincrementaldecoder("utf-8")


class Piece(NamedTuple):
    """A part of a message that is given as it arrives: ``str`` of a text, cut between characters, or ``bytes``.

    There is at least one, which may be empty; ``final`` marks the last.
    """

    data: str | bytes
    final: bool


class Assembly:
    """The message that is being received."""

    def __init__(self, max_empty_fragments: int) -> None:
        self.deflate: PerMessageDeflate | None = None
        """What inflates compressed messages, where that has been agreed on."""
        self.streaming = False
        """Whether the message that is being received, or else the next, is given in pieces. Ends with the message."""
        self.begun = False
        """Whether a piece of it has been given."""
        self._max_empty_fragments = max_empty_fragments
        self._midway = False
        self._opcode = 0
        self._inflating = False
        self._message = bytearray()
        self._utf8: Utf8Validator | None = None
        self._empty_fragments = 0
        # Of a message in pieces: what its text is decoded by, and the fragment that is being inflated.
        self._text: codecs.IncrementalDecoder | None = None
        self._inflated: Iterator[bytes] | None = None
        self._fin = False

    @property
    def has_more(self) -> bool:
        """Whether the last fragment gives more pieces, by :meth:`go_on`."""
        return self._inflated is not None

    def add(self, head: int, payload: bytes, max_size: int) -> str | bytes | Piece | None:
        """Take in a data frame; return the message that it ends, or what it gives of one in pieces.

        Raises :class:`RemoteProtocolError`: code 1007 for what does not decode, 1008 for too many empty fragments, 1009
        for a whole message that inflates to more than ``max_size`` bytes.
        """
        fin = bool(head & 0x80)
        if head & 0x0F:
            self._opcode = head & 0x0F
            self._inflating = bool(head & 0x40)
            self._empty_fragments = 0
            if self._inflating and self._opcode == Opcode.TEXT:
                self._utf8 = Utf8Validator()
        self._midway = not fin
        # In pieces, the decoder gives the beginning of a message although nothing of its payload is there.
        if not fin and not payload and not (self.streaming and head & 0x0F):
            self._empty_fragments += 1
            if self._empty_fragments > self._max_empty_fragments:
                raise RemoteProtocolError(f"a message with over {self._max_empty_fragments} empty fragments", 1008)
        if self.streaming:
            if not self._inflating:
                return self._give(payload, fin)
            assert self.deflate is not None
            self._inflated = self.deflate.decompress_in_pieces(payload, final=fin, size=PIECE_SIZE)
            self._fin = fin
            return self.go_on()
        if self._inflating:
            payload = self._inflate(payload, fin, max_size)
        if not fin:
            self._message += payload
            return None
        whole: bytes | bytearray = payload
        if self._message:
            whole = self._message
            whole += payload
            self._message = bytearray()
        self._utf8 = None
        # That it is UTF-8 was seen piece by piece: by the decoder, or in _inflate().
        return str(whole, "utf-8") if self._opcode == Opcode.TEXT else bytes(whole)

    def _inflate(self, payload: bytes, fin: bool, max_size: int) -> bytes:
        assert self.deflate is not None
        # Less than nothing is left where max_websocket_size was lowered in the middle of a message.
        room = max(0, max_size - len(self._message))
        payload = self.deflate.decompress(payload, final=fin, max_size=room)
        self._check_text(payload, fin)
        return payload

    def _check_text(self, payload: bytes, fin: bool) -> None:
        """An uncompressed text has been checked by the decoder."""
        if self._utf8 is not None and not self._utf8.accepts(payload, fin):
            raise RemoteProtocolError("text that is not UTF-8", 1007)

    def begin(self) -> Piece | None:
        """What has been put together of a message that is to be given in pieces from now on."""
        return self._give(b"", False) if self._midway and not self.begun else None

    def go_on(self) -> Piece | None:
        """Inflate the next piece of the last fragment. Raises as :meth:`add` does."""
        assert self._inflated is not None
        payload = next(self._inflated, None)
        if payload is None:
            self._inflated = None
        ends = payload is None and self._fin
        payload = payload or b""
        self._check_text(payload, ends)
        return self._give(payload, ends)

    def _give(self, payload: bytes, final: bool) -> Piece | None:
        if self._message:
            payload = bytes(self._message) + payload
            self._message = bytearray()
        data: str | bytes = payload
        if self._opcode == Opcode.TEXT:
            if self._text is None:
                self._text = _TextDecoder()
            data = self._text.decode(payload, final)
        if not data and self.begun and not final:
            return None
        self.begun = not final
        if final:
            self.streaming = False
            self._utf8 = self._text = None
        return Piece(data, final)


class Fragmenter:
    """Frames, as ``(head, payload)``, of the pieces of a message that is sent: text or binary, by its ``opcode``.

    ``deflate`` compresses it. Each piece can be decompressed as soon as it has arrived.
    """

    def __init__(self, opcode: int, deflate: PerMessageDeflate | None) -> None:
        self.begun = False
        """Whether the peer has to be sent the rest."""
        self._opcode = opcode
        self._deflate = deflate
        self._utf8 = Utf8Validator() if opcode == Opcode.TEXT else None

    def cut(self, piece: object) -> tuple[int, bytes] | None:
        """The fragment that ``piece`` becomes; None for an empty one.

        The pieces of a text are str, or bytes that are UTF-8 as a whole; those of a binary message are bytes. Raises
        TypeError and ValueError (UnicodeEncodeError for a lone surrogate) where they are not.
        """
        if isinstance(piece, (bytes, bytearray, memoryview)):
            payload = bytes(piece)
        elif isinstance(piece, str) and self._utf8 is not None:
            payload = piece.encode()
        else:
            accepted = "bytes" if self._utf8 is None else "str or bytes"
            raise TypeError(f"the pieces of this message are {accepted}, not {type(piece).__name__}")
        if self._utf8 is not None and not self._utf8.accepts(payload, False):
            raise ValueError(f"a piece of text that is not UTF-8: {payload[:60]!r}")
        if not payload:
            return None
        if self._deflate is not None:
            payload = self._deflate.compress_piece(payload)
        return self._head(), payload

    def end(self) -> tuple[int, bytes]:
        """The last fragment. Raises ValueError where the text ends in the middle of a character."""
        if self._utf8 is not None and not self._utf8.accepts(b"", True):
            raise ValueError("the text ends in the middle of a character")
        return 0x80 | self._head(), b"" if self._deflate is None else self._deflate.end_pieces()

    def _head(self) -> int:
        # RSV1 stands on the first fragment only (RFC 7692, section 6.1).
        head = Opcode.CONTINUATION if self.begun else self._opcode | (0x40 if self._deflate is not None else 0)
        self.begun = True
        return head
