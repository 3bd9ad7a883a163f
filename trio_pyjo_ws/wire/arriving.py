# cython: annotation_typing=False, boundscheck=False, wraparound=False, initializedcheck=False, nonecheck=True
"""The message that is being received, as far as it has come.

A whole message in one frame never comes here: the decoder gives it at once. Any other is collected: the payload of a
frame as it arrives, fragment behind fragment, and what compressed data inflates to. At its end it is one ``str`` or
``bytes``, unless somebody has *claimed* it: then it is theirs, of any size, and they take what has come as pieces.

Text is decoded as it comes, so invalid UTF-8 is found at the first byte that cannot be, and a piece of text never ends
in the middle of a character.
"""

from __future__ import annotations

from codecs import utf_8_decode

from . import masking

__all__ = ["Arriving", "Utf8Decoder"]

TEXT = 1

LOOSE = 256
"""Parts of a text that are collected before they are joined: a str takes some 50 bytes besides its characters."""


class Utf8Decoder:
    """Decodes UTF-8 that comes in pieces (RFC 6455, section 8.1)."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def decode(self, piece: bytes, final: bool) -> str:
        """The characters that ``piece`` completes. UnicodeDecodeError at the first byte that cannot be."""
        data = self._rest + piece if self._rest else piece
        text, used = utf_8_decode(data, "strict", final)
        self._rest = rest = data[used:]
        if len(rest) == 2 and rest[0] == 0xED and rest[1] >= 0xA0:
            # Python looks at a surrogate, ED and A0 to BF, only once its third byte is there.
            raise UnicodeDecodeError("utf-8", rest, 0, 2, "invalid continuation byte")
        return text


class Arriving:
    """One message. ``begun`` from its first frame on; not begun, it is the next one."""

    __slots__ = (
        "_buffer",
        "_loose",
        "_parts",
        "_text",
        "begun",
        "claimed",
        "compressed",
        "discarded",
        "ended",
        "held",
        "size",
    )

    def __init__(self) -> None:
        self.begun = False
        self.compressed = False
        self.size = 0
        """Bytes of its frames' payloads so far."""
        self.held = 0
        """Bytes that are collected here; of text, of its UTF-8."""
        self.claimed = False
        """Whether somebody takes it in pieces."""
        self.discarded = False
        """Whether they have left: what still comes of it is thrown away."""
        self.ended = False
        """Whether all of it has come. Only a claimed one is seen ended: any other was given whole."""
        self._text: Utf8Decoder | None = None
        self._parts: list[str] = []
        self._loose = 0  # of these, from the last on, are not joined yet
        self._buffer = masking.Buffer()

    @property
    def is_text(self) -> bool:
        """Whether it is a text message. Once it has begun."""
        return self._text is not None

    def claim(self) -> None:
        """Somebody takes it in pieces."""
        self.claimed = True

    def unclaim(self) -> None:
        """Nobody has taken a piece of it: it is to be given whole."""
        self.claimed = False

    def finish(self) -> None:
        """All of it has come, and it is somebody's."""
        self.ended = True

    def begin(self, opcode: int, compressed: bool) -> None:
        """Its first frame has come."""
        self.begun = True
        self.compressed = compressed
        self._text = Utf8Decoder() if opcode == TEXT else None

    def note(self, size: int) -> None:
        """So many bytes of its frames' payloads have come; they are to be added."""
        self.size += size

    def add(self, payload: bytes, final: bool) -> None:
        """Collect what has come of it. UnicodeDecodeError for text that is not UTF-8, or ends within a character."""
        text = self._text
        if text is None:
            if payload and not self.discarded:
                self._buffer.extend(payload)
        else:
            part = text.decode(payload, final)
            if part and not self.discarded:
                self._parts.append(part)
                self._loose += 1
                if self._loose == LOOSE:
                    self._parts[-LOOSE:] = ["".join(self._parts[-LOOSE:])]
                    self._loose = 0
        if not self.discarded:
            self.held += len(payload)

    def add_part(self, data: bytes, start: int, end: int, key: bytes, rest: int) -> None:
        """Collect a part of a binary message: from ``start`` to ``end`` in ``data``, unmasked if there is a ``key``.

        ``rest``: bytes of its frame that are still to come.
        """
        if not self.discarded:
            self._buffer.extend_part(data, start, end, key, rest)
            self.held += end - start

    def take(self) -> str | bytes:
        """Take what has been collected."""
        self.held = 0
        if self._text is None:
            return self._buffer.take()
        text = self._parts[0] if len(self._parts) == 1 else "".join(self._parts)
        self._parts = []
        self._loose = 0
        return text

    def restart(self) -> None:
        """It has been given whole: what comes is the next one."""
        self.begun = self.compressed = False
        self.size = 0
        self._text = None

    def discard(self) -> None:
        """Throw away what has come, and what still comes."""
        self.discarded = True
        self.take()
