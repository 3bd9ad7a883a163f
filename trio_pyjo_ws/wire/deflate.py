"""permessage-deflate (RFC 7692): what one side wishes for, and the codec that both sides agreed on.

A message is one run of DEFLATE blocks that ends at a byte boundary, less the four bytes 00 00 ff ff which every
sync flush leaves behind (section 7.2.1). zlib does the work; this module adds what zlib does not know: the tail, the
bounds that stop a bomb, and blocks with BFINAL=1, after which zlib stops but the message (and the window) goes on.

This is also the one place that chooses the zlib. zlib-ng, if the extra ``speed`` has installed it, gives the same
sizes in less time: it compresses messages of 1 KiB and more in 55 to 90 % of it, and decompresses most in 50 to 85 %.
"""

from __future__ import annotations

import os
import sys
import zlib
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, NamedTuple

from ..errors import LocalProtocolError, RemoteProtocolError

__all__ = ["THRESHOLD", "Agreement", "Deflate", "PerMessageDeflate", "check_can_compress", "zlib_name"]

EMPTY_BLOCK: Final = b"\x00\x00\x00\xff\xff"
"""A stored block without data, from a byte boundary on: what a sync flush appends (RFC 7692, section 7.2.1)."""

TAIL: Final = EMPTY_BLOCK[1:]
"""What the sender removes and the receiver appends again; the first byte belongs to the message (section 7.2.3.6)."""

MAX_STREAMS: Final = 64
"""Blocks with BFINAL=1 in one message. A sender makes one, or one for each fragment. Each makes zlib begin anew, which
takes some 10 us: two bytes of such a block, many thousand times, would keep the receiver busy for seconds."""

THRESHOLD: Final = 128
"""The default of ``Deflate.threshold``: the shortest message that deflate makes shorter nearly always.

Measured on JSON, prose and base64, where each message is compressed on its own: of 128 bytes remain 76 to 98 %, of 64
bytes 93 to 103 %, for 5 to 9 us.
"""

_RANGES: Final = (
    ("server_max_window_bits", 8, 15),
    ("client_max_window_bits", 8, 15),
    ("level", -1, 9),
    ("memory_level", 1, 9),
    ("threshold", 0, sys.maxsize),
)


def _choose() -> tuple[str, Any]:
    if os.environ.get("TRIO_PYJO_WS_PURE", "0") in ("", "0"):
        with suppress(ImportError):
            return "zlib-ng", import_module("zlib_ng.zlib_ng")
    return "zlib", zlib


zlib_name: str
"""Which zlib is in use: ``"zlib-ng"``, or ``"zlib"`` if the package was installed without its extra ``speed`` or the
environment variable ``TRIO_PYJO_WS_PURE`` is set to 1."""

zlib_name, _fastest = _choose()


def _for_compressing(window_bits: int, memory_level: int) -> Any:
    """The module to compress with.

    zlib takes 4 bytes for each of the window and 512 << memory level for the rest: 256 KiB at the default parameters,
    3 KiB (and 6 of its own) at the smallest. zlib-ng takes 342 KiB and 137 KiB, as its hash table has one size. So
    if little memory was wished for, zlib serves.
    """
    return _fastest if (4 << window_bits) + (512 << memory_level) >= 1 << 18 else zlib


def _for_decompressing(window_bits: int) -> Any:
    """The module to decompress with: zlib-ng has the largest window always, so a smaller one is zlib's."""
    return _fastest if window_bits == 15 else zlib


@dataclass(frozen=True, kw_only=True)
class Deflate:
    """The parameters of permessage-deflate (RFC 7692, section 7.1) that one side asks for.

    ``server_no_context_takeover`` and ``client_no_context_takeover``: that side forgets its window after each message,
    which costs compression and saves memory on both sides. ``server_max_window_bits`` and ``client_max_window_bits``
    (8 to 15): the base-2 logarithm of that side's window. The others concern only how this side compresses, and the
    peer does not learn of them. ``level`` (-1 to 9) and ``memory_level`` (1 to 9) are zlib's own; messages of fewer
    bytes than ``threshold`` go uncompressed. Raises TypeError or ValueError for anything else.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15
    level: int = 3
    memory_level: int = 8
    threshold: int = THRESHOLD

    def __post_init__(self) -> None:
        for name in ("server_no_context_takeover", "client_no_context_takeover"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, not {getattr(self, name)!r}")
        for name, lowest, highest in _RANGES:
            value = getattr(self, name)
            accepted = f"{lowest} to {highest}" if highest < sys.maxsize else f"{lowest} or more"
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an int, {accepted}, not {value!r}")
            if not lowest <= value <= highest:
                raise ValueError(f"{name} must be {accepted}, not {value!r}")

    def codec(self, client: bool) -> PerMessageDeflate:
        """The codec of the client or the server if exactly these parameters were agreed."""
        own = (self.client_max_window_bits, self.client_no_context_takeover)
        peer = (self.server_max_window_bits, self.server_no_context_takeover)
        if not client:
            own, peer = peer, own
        return PerMessageDeflate(
            compress_window_bits=own[0],
            decompress_window_bits=peer[0],
            compress_no_context_takeover=own[1],
            decompress_no_context_takeover=peer[1],
            level=self.level,
            memory_level=self.memory_level,
            threshold=self.threshold,
        )


class PerMessageDeflate:
    """Compresses and decompresses the messages of one connection (RFC 7692, section 7.2).

    zlib's two objects take some 300 KiB at the default parameters, so each is made when it is first needed, and
    released after a message if no context takeover is agreed for its direction. ``threshold`` is for the caller to
    heed: ``compress`` compresses whatever it is given.
    """

    __slots__ = (
        "_arrived",
        "_became",
        "_compressor",
        "_decompressor",
        "_ended",
        "_given",
        "_inflated",
        "_input",
        "_output",
        "_recent",
        "_streams",
        "compress_no_context_takeover",
        "compress_window_bits",
        "copied",
        "decompress_no_context_takeover",
        "decompress_window_bits",
        "level",
        "memory_level",
        "more",
        "threshold",
    )

    def __init__(
        self,
        *,
        compress_window_bits: int,
        decompress_window_bits: int,
        compress_no_context_takeover: bool,
        decompress_no_context_takeover: bool,
        level: int,
        memory_level: int,
        threshold: int,
    ) -> None:
        self.compress_window_bits = compress_window_bits
        self.decompress_window_bits = decompress_window_bits
        self.compress_no_context_takeover = compress_no_context_takeover
        self.decompress_no_context_takeover = decompress_no_context_takeover
        self.level = level
        self.memory_level = memory_level
        self.threshold = threshold
        self._given = self._became = 0  # bytes that were compressed so far, and what they became
        self._arrived = self._inflated = 0
        self._compressor: zlib._Compress | None = None
        self._decompressor: zlib._Decompress | None = None
        # Of the message that is being inflated:
        self.more = False
        """Whether the part that was fed last may give more."""
        self.copied = 0
        """Bytes of the window that the last step began with, because a block with BFINAL=1 came before it."""
        self._input = b""
        self._output = b""  # what the last step gave
        self._recent = bytearray()  # what the steps before it gave: the window that outlives a block with BFINAL=1
        self._streams = 0  # blocks with BFINAL=1
        self._ended = False  # such a block was the last

    def __repr__(self) -> str:
        parameters = (
            name for name in sorted(self.__slots__) if not name.startswith("_") and name not in ("more", "copied")
        )
        return f"<PerMessageDeflate {' '.join(f'{name}={getattr(self, name)}' for name in parameters)}>"

    @property
    def compressed(self) -> tuple[int, int]:
        """Bytes that were compressed so far, and what they became."""
        return self._given, self._became

    @property
    def decompressed(self) -> tuple[int, int]:
        """Bytes that were decompressed so far, and what they became."""
        return self._arrived, self._inflated

    @property
    def can_compress(self) -> bool:
        """Whether this side can compress at all.

        zlib cannot make a raw stream with a window of 8 bits (it would use 9, and the peer could not follow). Where 8
        bits were agreed for this side, its messages go uncompressed with RSV1=0, which section 6 allows for any
        message.
        """
        return self.compress_window_bits > 8

    @property
    def kind(self) -> tuple[int, ...] | None:
        """What the compressed bytes of a message depend on, besides the message; None for the messages before it."""
        if not self.compress_no_context_takeover:
            return None
        return (self.compress_window_bits, self.level, self.memory_level, self.threshold)

    def compress(self, payload: bytes | bytearray | memoryview) -> bytes:
        """Compress a whole message; the result goes into frames, the first of which has RSV1 set (section 7.2.1).

        Raises LocalProtocolError if ``can_compress`` is False.
        """
        if not self.can_compress:
            raise LocalProtocolError("a window of 8 bits was agreed for this side, which zlib cannot compress with")
        if not payload:
            return self.end_pieces()
        return self.compress_some(payload) + self.end_compressed()

    def compress_some(self, payload: bytes | bytearray | memoryview) -> bytes:
        """Compress a part of a message; what it becomes may come with the next part, or with :meth:`flush`."""
        compressed = self._get_compressor().compress(payload)
        self._given += len(payload)
        self._became += len(compressed)
        return compressed

    def flush(self) -> bytes:
        """All that such parts still owe: the peer can inflate it without what comes next."""
        compressed = self._get_compressor().flush(zlib.Z_SYNC_FLUSH)
        self._became += len(compressed)
        return compressed

    def end_compressed(self) -> bytes:
        """All that such parts still owe, at the end of the message (section 7.2.1)."""
        compressed = self._get_compressor().flush(zlib.Z_SYNC_FLUSH)[: -len(TAIL)]
        self._became += len(compressed)
        if self.compress_no_context_takeover:
            self._compressor = None
        return compressed

    def end_pieces(self) -> bytes:
        """What ends a message behind :meth:`flush` (section 7.2.3.6); it leaves the window as it is."""
        if self.compress_no_context_takeover:
            self._compressor = None
        return EMPTY_BLOCK[:1]

    def forget(self) -> None:
        """Give up a message in the middle, of which nothing was sent: the next refers to nothing before it."""
        self._compressor = None

    def _get_compressor(self) -> zlib._Compress:
        if self._compressor is None:
            module = _for_compressing(self.compress_window_bits, self.memory_level)
            self._compressor = module.compressobj(
                self.level, zlib.DEFLATED, -self.compress_window_bits, self.memory_level
            )
        return self._compressor

    def feed(self, payload: bytes) -> None:
        """Take in a part of a message, if the one before has given all: :meth:`inflate` it while there is ``more``."""
        self._input = payload
        self.more = bool(payload)
        self._arrived += len(payload)

    def inflate(self, size: int) -> bytes:
        """The next step: at most ``size`` bytes, which must be at least 1; perhaps none.

        Raises RemoteProtocolError: with code 1007 for what is not DEFLATE, with code 1008 for too many blocks with
        BFINAL=1 (section 7.2.3.4). zlib takes such a block for the end of all. For a message it is not: the next block
        begins at the next byte, and may refer back to what came before. The codec must not be used after an error.
        """
        if self._output:
            self._remember(self._output)
            self._output = b""
        self.copied = 0
        decompressor = self._get_decompressor()
        try:
            # Never 0, which zlib takes for "without limit".
            output: bytes = decompressor.decompress(self._input, size)
        except (zlib.error, _fastest.error) as error:
            raise _no_deflate(error) from error
        self._output = output
        self._ended = decompressor.eof
        if self._ended:
            self._streams += 1
            if self._streams > MAX_STREAMS:
                raise RemoteProtocolError(f"a compressed message of over {MAX_STREAMS} streams", 1008)
            self._decompressor = None
            self._input = decompressor.unused_data
            self.more = bool(self._input)
        else:
            self._input = decompressor.unconsumed_tail
            self.more = len(output) == size
        self._inflated += len(output)
        return output

    def end(self) -> None:
        """The message has ended: give zlib the tail, and see that the blocks are complete.

        Behind complete blocks the tail gives no data, and neither does one more empty block, which leaves the window
        as it was. Behind a torn block both are taken for its missing part, and give data, an error or, if BFINAL is
        1, an end, nearly always: then it raises RemoteProtocolError, with code 1007. A message that ends with BFINAL=1
        ought to have a byte 00 behind it (section 7.2.3.4), but its end is certain without it.
        """
        decompressor = self._get_decompressor()  # A new one still gets the window of this message.
        if not self._ended:
            try:
                torn = decompressor.decompress(TAIL + EMPTY_BLOCK, 1) or decompressor.eof
            except (zlib.error, _fastest.error) as error:
                raise _no_deflate(error) from error
            if torn:
                raise RemoteProtocolError("compressed message ends in the middle of a block", 1007)
        self._ended = False
        self._output = b""
        self._streams = 0
        self._recent.clear()
        if self.decompress_no_context_takeover:
            self._decompressor = None

    def _get_decompressor(self) -> zlib._Decompress:
        if self._decompressor is None:
            window = (self._recent + self._output)[-(1 << self.decompress_window_bits) :]
            self.copied = len(window)
            module = _for_decompressing(self.decompress_window_bits)
            self._decompressor = module.decompressobj(-self.decompress_window_bits, zdict=window)
        return self._decompressor

    def _remember(self, output: bytes) -> None:
        """Keep the last window of the message, and cut off what is older so seldom that it costs linear time."""
        window = 1 << self.decompress_window_bits
        self._recent += output[-window:]
        if len(self._recent) > 2 * window:
            del self._recent[:-window]


class Agreement(NamedTuple):
    """What the opening handshake settled: the subprotocol and, if compression was agreed on, its codec."""

    subprotocol: str | None = None
    deflate: PerMessageDeflate | None = None


def check_can_compress(agreed: PerMessageDeflate | None) -> PerMessageDeflate:
    """The codec that was agreed on. Raises ValueError, which says why, if this side cannot compress."""
    if agreed is None:
        raise ValueError("messages cannot be compressed: the handshake has not agreed on permessage-deflate")
    if not agreed.can_compress:
        raise ValueError("messages cannot be compressed: permessage-deflate was agreed with a window of 8 bits")
    return agreed


def _no_deflate(error: Exception) -> RemoteProtocolError:
    return RemoteProtocolError(f"compressed data does not decode: {error}", 1007)
