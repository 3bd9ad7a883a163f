"""Whoever sends twice as much has twice the work done, and no more: frames, fragments, and what is compressed.

The work of Python is counted in lines that run and bytes that are copied; that of zlib in calls and bytes handed over.
Both are counted over the sources, compiled or not.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import pytest

from trio_pyjo_ws.wire.deflate import MAX_STREAMS, Deflate
from trio_pyjo_ws.wire.protocol import Agreement

from ..fuzz.pure import IMPLEMENTATIONS
from ..handshake.steps import Steps
from ..metering import Meter
from . import raw
from .raw import BINARY, BINARY_PART, LAST, PART, PING, PONG, RSV1, TEXT, TEXT_PART, one_by_one

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.once

MOST = 2.3
SIZE = 200
SOURCES = IMPLEMENTATIONS["pure Python"]
EURO = "€".encode()


class Copied(bytes):
    """Bytes that count how many of them are copied by slicing and joining."""

    count = 0

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return found if isinstance(found, int) else copied(found)

    def __add__(self, other: Any) -> Copied:
        return copied(super().__add__(other))

    def __radd__(self, other: Any) -> Any:
        if isinstance(other, bytearray):
            return NotImplemented  # It grows in its place.
        return copied(other + bytes(self))


def copied(data: bytes) -> Copied:
    Copied.count += len(data)
    return Copied(data)


def growth(call: Callable[[int], object], size: int = SIZE) -> float:
    """How many times the work ``call(2 * size)`` takes, of that of ``call(size)``."""
    counts = []
    for length in (1, size, 2 * size):  # What is made once and kept is not counted.
        Copied.count = 0
        with Steps() as steps:
            call(length)
        counts.append(steps.count + Copied.count)
    return counts[2] / counts[1]


def peer(compressed: bool = False, masked: bool = False) -> Any:
    """A state machine for which all that comes is fine."""
    codec = Deflate().codec(client=not masked) if compressed else None
    protocol: Any = SOURCES.protocol.Protocol(
        "server" if masked else "client",
        agreement=Agreement(None, codec),
        max_websocket_size=1 << 24,
        max_empty_fragments=1 << 24,
    )
    return protocol


def read(protocol: Any, pieces: list[bytes], max_messages: int = 1 << 20) -> list[Any]:
    found: list[Any] = []
    for piece in pieces:
        found += protocol.client_read(Copied(piece), max_messages=max_messages, max_bytes=1 << 20)
        while protocol.pending:
            found += protocol.client_read(max_messages=max_messages, max_bytes=1 << 20)
        protocol.outgoing.clear()
    return found


FLOODS = {
    "fragments of one byte": [(PART, b"a")],
    "empty fragments": [(PART, b"")],
    "characters": [(PART, EURO)],
    "halves of characters": [(PART, EURO[:1]), (PART, EURO[1:])],
    "pings between": [(PART, b"a"), (PING, b"")],
    "pings": [(PING, b"a")],
    "pongs": [(PONG, b"a")],
    "messages": [(LAST, b""), (TEXT, b"a"), (BINARY, b"a"), (TEXT_PART, b"")],
    "messages of two": [(LAST, b""), (BINARY_PART, b"a"), (LAST, b"a"), (TEXT_PART, b"")],
}
BOTH_ROLES = pytest.mark.parametrize("masked", [False, True], ids=["unmasked", "masked"])
WATCHED = pytest.mark.parametrize("watched", [False, True], ids=["straight", "watched"])


@pytest.mark.parametrize("frames", FLOODS.values(), ids=FLOODS)
@pytest.mark.parametrize("max_messages", [1, 1 << 20])
@pytest.mark.parametrize("compression", [False, True])
@BOTH_ROLES
@WATCHED
def test_many_tiny_frames_in_one_chunk(
    frames: list[tuple[int, bytes]], max_messages: int, compression: bool, masked: bool, watched: bool
) -> None:
    chunks = {}
    for size in (1, SIZE, 2 * SIZE):
        chunks[size] = raw.wire([(TEXT_PART, b""), *frames * size, (LAST, b"!")], masked)

    def flood(size: int) -> None:
        protocol = peer(compression, masked)
        protocol.watch_frames = watched
        assert str(read(protocol, [chunks[size]], max_messages)[-1])[-1] == "!"

    assert growth(flood) < MOST


@pytest.mark.parametrize("head", [TEXT, BINARY])
@pytest.mark.parametrize("claimed", [False, True])
@BOTH_ROLES
@WATCHED
def test_a_message_byte_by_byte(head: int, claimed: bool, masked: bool, watched: bool) -> None:
    def receive(size: int) -> None:
        protocol = peer(masked=masked)
        protocol.watch_frames = watched
        arriving = protocol.arriving
        if claimed:
            arriving.claim()
        found = read(protocol, one_by_one(raw.frame(head, b"a" * 5 * size, masked)))
        message = arriving.take() if claimed else found[-1]
        assert message == ("a" if head == TEXT else b"a") * 5 * size

    assert growth(receive) < MOST


@pytest.mark.parametrize("fragment", [1, 100])
@BOTH_ROLES
def test_a_compressed_message_byte_by_byte(monkeypatch: pytest.MonkeyPatch, fragment: int, masked: bool) -> None:
    noise = bytes(range(256)) * 8

    def receive(size: int) -> None:
        payload = Deflate(level=0).codec(client=True).compress(noise[: 2 * size])
        frames = [(PART, part) for part in raw.in_pieces(payload, fragment)]
        frames[0] = (BINARY_PART | RSV1, frames[0][1])
        protocol = peer(True, masked)
        assert read(protocol, one_by_one(raw.wire([*frames, (LAST, b"")], masked))) == [noise[: 2 * size]]

    meter = Meter(monkeypatch)
    assert growth(receive) < MOST
    assert growth_of_work(meter, receive) < MOST


def growth_of_work(meter: Meter, call: Callable[[int], object], size: int = SIZE) -> float:
    """As growth(), of what zlib does."""
    counts = []
    for length in (1, size, 2 * size):
        meter.work = 0
        call(length)
        counts.append(meter.work)
    return counts[2] / counts[1]


def compressed(*parts: bytes, final: bool = False) -> bytes:
    """One compressed message; with ``final``, each part of it is a stream of its own."""
    found = b""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    for part in parts:
        found += compressor.compress(part) + compressor.flush(zlib.Z_FINISH if final else zlib.Z_SYNC_FLUSH)
        if final:
            compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return found if final else found[:-4]


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("max_messages", [1, 1 << 20])
def test_many_tiny_compressed_messages(monkeypatch: pytest.MonkeyPatch, final: bool, max_messages: int) -> None:
    chunks = {
        size: raw.wire([(BINARY | RSV1, compressed(b"a", final=final))] * size, False) for size in (1, SIZE, 2 * SIZE)
    }

    def flood(size: int) -> None:
        assert read(peer(True), [chunks[size]], max_messages) == [b"a"] * size

    meter = Meter(monkeypatch)
    assert growth(flood) < MOST
    assert growth_of_work(meter, flood) < MOST


@pytest.mark.parametrize("window", [b"", bytes(range(256)) * 128], ids=["no window", "a full window"])
@pytest.mark.parametrize("fragments", [False, True])
def test_many_small_streams_in_each_message(monkeypatch: pytest.MonkeyPatch, window: bytes, fragments: bool) -> None:
    streams = [compressed(part, final=True) for part in (window, *[b"a"] * (MAX_STREAMS - 1))]
    payloads = streams if fragments else [b"".join(streams)]
    frames = [(BINARY_PART | RSV1, payloads[0]), *[(PART, payload) for payload in payloads[1:]], (LAST, b"\0")]
    chunks = {size: raw.wire(frames * size, False) for size in (1, 10, 20)}

    def flood(size: int) -> None:
        assert read(peer(True), [chunks[size]]) == [window + b"a" * (MAX_STREAMS - 1)] * size

    meter = Meter(monkeypatch)
    assert growth(flood, 10) < MOST
    assert growth_of_work(meter, flood, 10) < MOST


def test_what_inflates_to_much_is_handed_over_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step gives 64 KiB at the most, and takes all that is left of the part."""

    def receive(size: int) -> None:
        payload = compressed(bytes(size << 18))
        protocol = peer(True)
        protocol.arriving.claim()
        protocol.arriving.discard()
        assert read(protocol, raw.in_pieces(raw.frame(BINARY | RSV1, payload, False), 1000)) == []

    meter = Meter(monkeypatch)
    assert growth(receive, 20) < MOST
    assert growth_of_work(meter, receive, 20) < MOST


# The measure itself


def test_the_measure_sees_bytes_that_are_copied_again_and_again() -> None:
    def peel(size: int) -> None:
        data = Copied(bytes(20 * size))
        while data:
            data = data[20:]

    def collect(size: int) -> None:
        data = b""
        for _ in range(size):
            data += Copied(bytes(20))

    assert growth(peel) > 3.5
    assert growth(collect) > 3.5
    assert growth(lambda size: Copied(bytes(20 * size))[1:] + b"a") < MOST
