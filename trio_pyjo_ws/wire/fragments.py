"""Messages in fragments (RFC 6455, section 5.4), as they are cut to be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .arriving import Utf8Decoder
from .frames import Opcode

if TYPE_CHECKING:
    from .deflate import PerMessageDeflate

__all__ = ["Fragmenter"]


class Fragmenter:
    """Frames, as ``(head, payload)``, of the pieces of a message that is sent: text or binary, by its ``opcode``.

    ``deflate`` compresses it. Each piece can be decompressed as soon as it has arrived.
    """

    def __init__(self, opcode: int, deflate: PerMessageDeflate | None) -> None:
        self.begun = False
        """Whether the peer has to be sent the rest."""
        self._opcode = opcode
        self._deflate = deflate
        self._utf8 = Utf8Decoder() if opcode == Opcode.TEXT else None

    def cut(self, piece: object) -> tuple[int, bytes] | None:
        """The fragment that ``piece`` becomes; None for an empty one.

        The pieces of a text are str, or bytes that are UTF-8 as a whole; those of a binary message are bytes. Raises
        TypeError and ValueError (UnicodeEncodeError for a lone surrogate) if they are not.
        """
        if isinstance(piece, (bytes, bytearray, memoryview)):
            payload = bytes(piece)
        elif isinstance(piece, str) and self._utf8 is not None:
            payload = piece.encode()
        else:
            accepted = "bytes" if self._utf8 is None else "str or bytes"
            raise TypeError(f"the pieces of this message must be {accepted}, not {type(piece).__name__}")
        if self._utf8 is not None:
            try:
                self._utf8.decode(payload, False)
            except UnicodeDecodeError:
                raise ValueError(f"a piece of text is not UTF-8: {payload[:60]!r}") from None
        if not payload:
            return None
        if self._deflate is not None:
            payload = self._deflate.compress_some(payload) + self._deflate.flush()
        return self._head(), payload

    def end(self) -> tuple[int, bytes]:
        """The last fragment. Raises ValueError if the text ends in the middle of a character."""
        if self._utf8 is not None:
            try:
                self._utf8.decode(b"", True)
            except UnicodeDecodeError:
                raise ValueError("the text ends in the middle of a character") from None
        return 0x80 | self._head(), b"" if self._deflate is None else self._deflate.end_pieces()

    def _head(self) -> int:
        # RSV1 stands on the first fragment only (RFC 7692, section 6.1).
        head = Opcode.CONTINUATION if self.begun else self._opcode | (0x40 if self._deflate is not None else 0)
        self.begun = True
        return head
