"""The decoder: frames and messages out of bytes, in whatever pieces these arrive."""

from __future__ import annotations

import sys
import tracemalloc
from typing import TYPE_CHECKING, Any, NamedTuple, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_pyjo_ws.errors import RemoteProtocolError
from trio_pyjo_ws.wire.codec import MAX_EMPTY_FRAGMENTS, Decoder
from trio_pyjo_ws.wire.frames import Frame

from ..fuzz.pure import IMPLEMENTATIONS
from .raw import (
    BAD_TEXTS,
    BINARY,
    BINARY_PART,
    CLOSE,
    FIN,
    GOOD_TEXT,
    KEY,
    LAST,
    PART,
    PING,
    PONG,
    RSV1,
    TEXT,
    TEXT_PART,
    cuts,
    frame,
    head_of,
    in_pieces,
    one_by_one,
    peak_of,
    wire,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

pytestmark = pytest.mark.usefixtures("implementation")

ALL = 1 << 30
AT_ONCE = 1024
CONTROL_PRICE = 8
"""Frames that are read in one call."""

# An item as these tests compare it: the code stands for the error.
Seen = Union[str, bytes, "tuple[int, bytes]", Frame, int]
Frames = list[tuple[int, bytes]]


def seen(items: Iterable[Any]) -> list[Seen]:
    return [item.code if isinstance(item, RemoteProtocolError) else item for item in items]


def portions(decoder: Any, data: bytes, limit: int = ALL) -> Iterator[list[Seen]]:
    """What is to be had of ``data``, without more of it, as long as there is something pending."""
    while True:
        items = decoder.decode(data, limit)
        assert decoder.plain is all(isinstance(item, (str, bytes)) for item in items)
        yield seen(items)
        if items and items[-1].__class__ is tuple and items[-1][0] == FIN:
            decoder.finish()  # as is done behind the last of a compressed message, once it is inflated
        if not decoder.pending:
            return
        data = b""


def joined(items: Iterable[Seen]) -> list[Seen]:
    """The items, with all that comes of one compressed message as one tuple, unless something stands between."""
    found: list[Seen] = []
    for item in items:
        last = found[-1] if found else None
        if item.__class__ is last.__class__ is tuple and item[0] in (0, FIN) and last[0] == 0:
            found[-1] = (item[0], last[1] + item[1])
        else:
            found.append(item)
    return found


def feed(decoder: Any, pieces: Iterable[bytes]) -> list[Seen]:
    """Everything that comes out."""
    found: list[Seen] = []
    for piece in pieces:
        for items in portions(decoder, piece):
            found += items
    assert not decoder.pending
    return joined(found)


def each(decoder: Any, pieces: Iterable[bytes]) -> Iterator[list[Seen]]:
    """What comes out of each piece."""
    for piece in pieces:
        yield seen(decoder.decode(piece, ALL))


# RFC 6455, section 5.7, byte for byte

EXAMPLES = {
    "a single-frame unmasked text message": (False, "81 05 48 65 6c 6c 6f", ["Hello"]),
    "a single-frame masked text message": (True, "81 85 37 fa 21 3d 7f 9f 4d 51 58", ["Hello"]),
    "a fragmented unmasked text message": (False, "01 03 48 65 6c  80 02 6c 6f", ["Hello"]),
    "unmasked ping request": (False, "89 05 48 65 6c 6c 6f", [(PING, b"Hello")]),
    "masked ping response": (True, "8a 85 37 fa 21 3d 7f 9f 4d 51 58", [(PONG, b"Hello")]),
    "256 bytes binary message in a single unmasked frame": (
        False,
        "82 7e 01 00" + bytes(range(256)).hex(),
        [bytes(range(256))],
    ),
    "64 KiB binary message in a single unmasked frame": (
        False,
        "82 7f 00 00 00 00 00 01 00 00" + bytes(65_536).hex(),
        [bytes(65_536)],
    ),
}


@pytest.mark.parametrize(("masked", "data", "items"), EXAMPLES.values(), ids=EXAMPLES)
def test_examples_of_section_5_7(masked: bool, data: str, items: list[Seen]) -> None:
    assert feed(Decoder(masked, 65_536), [bytes.fromhex(data)]) == items


# Every case whole, byte by byte, with trailing data, in any pieces, and watched frame by frame


class Case(NamedTuple):
    frames: Frames
    items: list[Seen]
    """What the frames give: the last of them an integer if they end in an error with that code."""
    compression: bool = False
    max_size: int = 300


EURO = "€".encode()  # e2 82 ac
CASES = {
    "nothing": Case([], []),
    "empty text": Case([(TEXT, b"")], [""]),
    "empty binary": Case([(BINARY, b"")], [b""]),
    "one byte": Case([(BINARY, b"a")], [b"a"]),
    "text": Case([(TEXT, "κόσμε \U0001f600".encode())], ["κόσμε \U0001f600"]),
    "binary that is not UTF-8": Case([(BINARY, b"\xff\xfe\x80")], [b"\xff\xfe\x80"]),
    "messages of both kinds": Case([(TEXT, b"a"), (BINARY, b"\xff"), (TEXT, b"b")], ["a", b"\xff", "b"]),
    "the longest short length": Case([(BINARY, b"x" * 125)], [b"x" * 125]),
    "the shortest 16-bit length": Case([(BINARY, b"x" * 126)], [b"x" * 126]),
    "text of the limit": Case([(TEXT, b"x" * 300)], ["x" * 300]),
    "ping and pong": Case([(PING, b"1"), (PONG, b"")], [(PING, b"1"), (PONG, b"")]),
    "close": Case([(TEXT, b"a"), (CLOSE, b"\x03\xe8")], ["a", (CLOSE, b"\x03\xe8")]),
    "control frame of 125 bytes": Case([(PING, b"x" * 125)], [(PING, b"x" * 125)]),
    "close that is not UTF-8": Case([(CLOSE, b"\x03\xe8\xff")], [(CLOSE, b"\x03\xe8\xff")]),
    "fragmented text": Case([(TEXT_PART, b"Hel"), (PART, b""), (PART, b"l"), (LAST, b"o")], ["Hello"]),
    "fragmented binary": Case([(BINARY_PART, b"\xff"), (PART, b"\x80"), (LAST, b"")], [b"\xff\x80"]),
    "empty fragments": Case([(TEXT_PART, b""), (PART, b""), (LAST, b"")], [""]),
    "control frames between fragments": Case(
        [(TEXT_PART, b"a"), (PING, b"\xff"), (PART, b"b"), (PONG, b""), (LAST, b"")],
        [(PING, b"\xff"), (PONG, b""), "ab"],
    ),
    "close between fragments": Case([(BINARY_PART, b"a"), (CLOSE, b"")], [(CLOSE, b"")]),
    "character over fragments": Case(
        [(TEXT_PART, EURO[:1]), (PART, EURO[1:2]), (PING, b"\xff\xff"), (LAST, EURO[2:])], [(PING, b"\xff\xff"), "€"]
    ),
    "whole messages behind a fragmented one": Case(
        [(TEXT_PART, b"a"), (LAST, b"b"), (TEXT, b"c"), (BINARY, b"\xff")], ["ab", "c", b"\xff"]
    ),
    "binary behind text": Case([(TEXT, EURO), (BINARY, EURO[:2] + b"\xff")], ["€", EURO[:2] + b"\xff"]),
    "fragmented binary behind text": Case(
        [(TEXT, EURO), (BINARY_PART, b"\xff\xff"), (LAST, b"\xff\xff")], ["€", b"\xff" * 4]
    ),
    "fragmented binary behind fragmented text": Case(
        [(TEXT_PART, EURO), (LAST, EURO), (BINARY_PART, b"\xff\xff"), (LAST, b"\xff\xff")], ["€€", b"\xff" * 4]
    ),
    "fragments of the limit": Case(
        [(TEXT_PART, b"x" * 150), (PING, b"y" * 125), (LAST, b"x" * 150)], [(PING, b"y" * 125), "x" * 300]
    ),
    "compressed": Case(
        [(TEXT | RSV1, b"\xff\xff"), (BINARY | RSV1, b"\xff")], [(FIN, b"\xff\xff"), (FIN, b"\xff")], True
    ),
    "compressed and empty": Case([(TEXT | RSV1, b""), (TEXT, b"")], [(FIN, b""), ""], True),
    "compressed in fragments": Case(
        [(TEXT_PART | RSV1, b"\xff\xfe"), (PART, b""), (PING, b""), (PART, b"\xff\xfd"), (LAST, b"\xff\xfc")],
        [(0, b"\xff\xfe"), (PING, b""), (FIN, b"\xff\xfd\xff\xfc")],
        True,
    ),
    "compressed behind uncompressed": Case(
        [(TEXT, b"ab"), (TEXT | RSV1, b"\xff\xff"), (TEXT, b"ab")], ["ab", (FIN, b"\xff\xff"), "ab"], True
    ),
    "compressed and somewhat over the limit": Case([(0xC2, b"x" * 401)], [(FIN, b"x" * 401)], True),
    "compressed fragments somewhat over the limit": Case(
        [(0x42, b"x" * 300), (LAST, b"x" * 101)], [(FIN, b"x" * 401)], True
    ),
    "nothing if nothing may be": Case([(TEXT, b""), (PING, b"")], ["", (PING, b"")], max_size=0),
    # What ends the stream:
    "orphan continuation": Case([(TEXT, b"a"), (LAST, b"b")], ["a", 1002]),
    "orphan continuation without FIN": Case([(PART, b"")], [1002]),
    "message between fragments": Case([(TEXT_PART, b"a"), (TEXT, b"b")], [1002]),
    "other message between fragments": Case([(TEXT_PART, b"a"), (BINARY_PART, b"b")], [1002]),
    "continuation with RSV1": Case([(0x41, b"a"), (LAST | RSV1, b"b")], [(0, b"a"), 1002], True),
    "control frame with RSV1": Case([(PING | RSV1, b"")], [1002], True),
    "RSV1 without an extension": Case([(TEXT | RSV1, b"a")], [1002]),
    "RSV2": Case([(TEXT | 0x20, b"a")], [1002], True),
    "RSV3": Case([(TEXT | 0x10, b"a")], [1002], True),
    "control frame without FIN": Case([(0x09, b"")], [1002]),
    "control frame of 126 bytes": Case([(PONG, b"x" * 126)], [1002]),
    "reserved opcode": Case([(0x83, b"")], [1002]),
    "reserved control opcode": Case([(0x8B, b"")], [1002]),
    "text over the limit": Case([(TEXT, b"x" * 301)], [1009]),
    "binary over the limit": Case([(BINARY, b"x" * 301)], [1009]),
    "first fragment over the limit": Case([(BINARY_PART, b"x" * 301)], [1009]),
    "fragments over the limit": Case([(BINARY_PART, b"x" * 300), (PING, b"x"), (LAST, b"x")], [(PING, b"x"), 1009]),
    "compressed and far over the limit": Case([(0xC2, b"x" * 402)], [1009], True),
    "compressed fragments far over the limit": Case(
        [(0x42, b"x" * 300), (LAST, b"x" * 102)], [(0, b"x" * 300), 1009], True
    ),
    "something if nothing may be": Case([(BINARY, b""), (BINARY, b"x")], [b"", 1009], max_size=0),
    "text that is not UTF-8": Case([(TEXT, b"ok"), (TEXT, b"a\xffb")], ["ok", 1007]),
    "text that is truncated": Case([(TEXT, EURO[:2])], [1007]),
    "fragment that is not UTF-8": Case([(TEXT_PART, b"a"), (PART, b"\xff"), (LAST, b"")], [1007]),
    "first fragment that is not UTF-8": Case([(TEXT_PART, b"\xff"), (LAST, b"")], [1007]),
    "fragments that are truncated": Case([(TEXT_PART, EURO[:2]), (LAST, b"")], [1007]),
    "text that stops in a character, then a frame of its own": Case([(TEXT, EURO[:1]), (TEXT, EURO[1:])], [1007]),
}
EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
BOTH_ROLES = pytest.mark.parametrize("masked", [False, True], ids=["unmasked", "masked"])
WATCHED = pytest.mark.parametrize("watched", [False, True], ids=["straight", "watched"])


def decoder_of(case: Case, masked: bool, watched: bool = False) -> Any:
    decoder = Decoder(masked, case.max_size, case.compression)
    decoder.watch = watched
    return decoder


def check(case: Case, found: list[Seen], watched: bool) -> None:
    """The items are those of the case; and every frame has been shown, but for the one that ends the stream."""
    failed = case.items[-1:] in ([1002], [1007], [1009])
    assert joined(item for item in found if not isinstance(item, Frame)) == case.items
    shown = [item for item in found if isinstance(item, Frame)]
    expected = [Frame.from_head(*frame) for frame in case.frames] if watched else []
    assert shown == expected[: len(shown)] if failed else shown == expected


@EVERY_CASE
@BOTH_ROLES
@WATCHED
def test_case_fed_whole(case: Case, masked: bool, watched: bool) -> None:
    check(case, feed(decoder_of(case, masked, watched), [wire(case.frames, masked)]), watched)


@EVERY_CASE
@BOTH_ROLES
@WATCHED
def test_case_fed_byte_by_byte(case: Case, masked: bool, watched: bool) -> None:
    check(case, feed(decoder_of(case, masked, watched), one_by_one(wire(case.frames, masked))), watched)


@EVERY_CASE
@BOTH_ROLES
@WATCHED
def test_case_fed_with_trailing_data(case: Case, masked: bool, watched: bool) -> None:
    # A pong may stand behind any frame, and is cut off here; behind an error nothing is looked at.
    pong = frame(PONG, b"\xfftrailing", masked)
    item: Seen = (PONG, b"\xfftrailing")
    behind: list[Seen] = [Frame.from_head(*item), item] if watched else [item]
    if case.items[-1:] in ([1002], [1007], [1009]):
        behind = []
    decoder = decoder_of(case, masked, watched)
    check(case, feed(decoder, [wire(case.frames, masked) + pong[:5]]), watched)
    assert feed(decoder, [pong[5:]]) == behind
    assert feed(decoder, [pong, b""]) == behind


@EVERY_CASE
@settings(deadline=None, max_examples=25)  # of each of a hundred cases
@given(data=st.data(), masked=st.booleans(), watched=st.booleans())
def test_case_fed_in_any_pieces(case: Case, data: st.DataObject, masked: bool, watched: bool) -> None:
    decoder = decoder_of(case, masked, watched)
    check(case, feed(decoder, data.draw(cuts(wire(case.frames, masked)))), watched)


@BOTH_ROLES
@pytest.mark.parametrize("length", [65_535, 65_536, 400_000])
@pytest.mark.parametrize("size", [1000, 65_536, ALL])
def test_large_messages_arrive_in_any_pieces(masked: bool, length: int, size: int) -> None:
    payload = bytes(index * 7 & 0x7F for index in range(length))
    data = wire([(BINARY, payload), (TEXT, payload)], masked)
    decoder = Decoder(masked, length)
    assert feed(decoder, in_pieces(data, size)) == [payload, payload.decode()]


HEADS = st.sampled_from([TEXT, BINARY, TEXT_PART, BINARY_PART, PART, LAST, PING, CLOSE, 0xC1, 0x42])


@settings(deadline=None)
@given(data=st.data(), noise=st.binary(max_size=60), masked=st.booleans(), compression=st.booleans())
def test_any_bytes_give_the_same_items_in_any_pieces(
    data: st.DataObject, noise: bytes, masked: bool, compression: bool
) -> None:
    whole = wire(data.draw(st.lists(st.tuples(HEADS, st.binary(max_size=6)), max_size=4)), masked) + noise
    expected = feed(Decoder(masked, 100, compression), [whole])
    found = feed(Decoder(masked, 100, compression), data.draw(cuts(whole)))
    assert not any(isinstance(item, int) for item in expected[:-1])  # an error is the last that comes
    assert found == expected


def test_items_have_plain_types() -> None:
    for masked in (False, True):
        for cut in (lambda data: [data], one_by_one):
            decoder = Decoder(masked, 2000, True)
            items = [
                item
                for piece in cut(wire([(BINARY, b"x" * 2000), (TEXT, b"x"), (PING, b""), (0xC1, b"x")], masked))
                for item in decoder.decode(piece, ALL)
            ]
            assert [type(item) for item in items] == [bytes, str, tuple, tuple]
            for head, payload in items[2:]:
                assert (type(head), type(payload)) == (int, bytes)


# What is judged at the header: not one byte of the payload has come (hostile.md 26 to 32)

# The first byte, the second without its mask bit, what follows of the length; the code; what the message names
HEADERS = {
    **{
        f"opcode {opcode}": (0x80 | opcode, 5, b"", 1002, f"the opcode {opcode} is reserved")
        for opcode in (3, 4, 5, 6, 7)
    },
    **{
        f"opcode {opcode}": (0x80 | opcode, 0, b"", 1002, f"the opcode {opcode} is reserved")
        for opcode in range(11, 16)
    },
    "RSV1": (0xC1, 5, b"", 1002, "a reserved bit is set in the first byte 0xc1"),
    "RSV2": (0xA1, 5, b"", 1002, "a reserved bit"),
    "RSV3": (0x92, 5, b"", 1002, "a reserved bit"),
    "all RSV bits": (0xF2, 5, b"", 1002, "a reserved bit"),
    "RSV1 of a ping": (0xC9, 5, b"", 1002, "a reserved bit"),
    "ping without FIN": (0x09, 5, b"", 1002, "a control frame is fragmented"),
    "pong without FIN": (0x0A, 5, b"", 1002, "a control frame is fragmented"),
    "close without FIN": (0x08, 5, b"", 1002, "a control frame is fragmented"),
    "ping of 126 bytes": (PING, 126, b"", 1002, "a payload of more than 125 bytes"),
    "close of a 64-bit length": (CLOSE, 127, b"", 1002, "a payload of more than 125 bytes"),
    "orphan continuation": (LAST, 5, b"", 1002, "nothing to continue"),
    "length of 0 in 16 bits": (BINARY, 126, b"\0\0", 1002, "the length 0 is not in its shortest form"),
    "length of 125 in 16 bits": (BINARY, 126, b"\0\x7d", 1002, "the length 125 is not in its shortest form"),
    "length of 125 in 64 bits": (BINARY, 127, b"\0\0\0\0\0\0\0\x7d", 1002, "not in its shortest form"),
    "length of 65,535 in 64 bits": (BINARY, 127, b"\0\0\0\0\0\0\xff\xff", 1002, "not in its shortest form"),
    "length with its highest bit": (BINARY, 127, b"\x80\0\0\0\0\0\0\x05", 1002, "or has its highest bit set"),
    "highest length": (TEXT, 127, b"\xff" * 8, 1002, "or has its highest bit set"),
    "one byte over the limit": (TEXT, 127, (100_001).to_bytes(8, "big"), 1009, "a message of more than 100000 bytes"),
    "length of 2**62": (BINARY, 127, (1 << 62).to_bytes(8, "big"), 1009, "a message of more than 100000 bytes"),
    "fragment of 2**62": (BINARY_PART, 127, (1 << 62).to_bytes(8, "big"), 1009, "more than 100000 bytes"),
}


@pytest.mark.parametrize(("head", "second", "length", "code", "message"), HEADERS.values(), ids=HEADERS)
@BOTH_ROLES
@WATCHED
def test_breach_is_told_at_the_header(
    head: int, second: int, length: bytes, code: int, message: str, masked: bool, watched: bool
) -> None:
    header = bytes([head, second | 0x80 if masked else second]) + length
    for pieces in ([header], one_by_one(header)):
        decoder = Decoder(masked, 100_000)
        decoder.watch = watched
        *before, items = (decoder.decode(piece, ALL) for piece in pieces)
        assert not any(before)
        (error,) = items
        assert isinstance(error, RemoteProtocolError)
        assert error.code == code
        assert message in str(error)


@pytest.mark.parametrize("head", [TEXT, BINARY, TEXT_PART, PING, CLOSE])
@pytest.mark.parametrize(
    ("masked", "message"), [(True, "a client's frames must be masked"), (False, "a server's frames are not masked")]
)
def test_wrong_masking_is_told_at_the_header(head: int, masked: bool, message: str) -> None:
    (error,) = Decoder(masked, 100).decode(bytes([head, 5 if masked else 0x85]), ALL)
    assert isinstance(error, RemoteProtocolError)
    assert (error.code, str(error)) == (1002, message)


@pytest.mark.parametrize("head", [TEXT, BINARY, TEXT_PART])
def test_message_between_fragments_is_told_at_the_header(head: int) -> None:
    decoder = Decoder(False, 100)
    assert feed(decoder, [frame(BINARY_PART, b"a", False)]) == []
    (error,) = decoder.decode(bytes([head, 5]), ALL)
    assert isinstance(error, RemoteProtocolError)
    assert (error.code, str(error)) == (1002, "a new message begins before the last fragment of the one before")


def test_sum_of_fragments_is_told_at_the_header() -> None:
    decoder = Decoder(False, 100)
    assert feed(decoder, [wire([(TEXT_PART, b"a" * 60), (PING, b"a" * 60)], False)]) == [(PING, b"a" * 60)]
    assert feed(decoder, [bytes([LAST, 41])]) == [1009]


@BOTH_ROLES
@pytest.mark.parametrize("length", [(1 << 63) - 1, (1 << 63) - 2, 1 << 62, 1 << 32])
@pytest.mark.parametrize("head", [BINARY_PART, BINARY_PART | RSV1])
def test_no_length_is_too_large_to_be_refused_behind_a_fragment(length: int, head: int, masked: bool) -> None:
    decoder = Decoder(masked, 1000, True)
    start = frame(head, b"first", masked) + head_of(PART, length, masked)
    assert feed(decoder, [start])[-1] == 1009


def test_limit_begins_anew_with_each_message() -> None:
    decoder = Decoder(False, 100)
    for _ in range(3):
        frames = [(TEXT_PART, b"a" * 60), (LAST, b"a" * 40), (TEXT, b"a" * 100)]
        assert feed(decoder, [wire(frames, False)]) == ["a" * 100] * 2


def test_limit_may_be_changed() -> None:
    decoder = Decoder(False, 100)
    decoder.max_size = 101
    assert feed(decoder, [wire([(BINARY, b"a" * 101), (BINARY_PART, b"a" * 50)], False)]) == [b"a" * 101]
    decoder.max_size = 49
    assert feed(decoder, [bytes([LAST, 0])]) == [1009]


@pytest.mark.parametrize("max_size", [sys.maxsize, sys.maxsize - 1, sys.maxsize // 9 * 8 + 9, 1 << 62])
def test_limit_may_be_as_large_as_a_length(max_size: int) -> None:
    decoder = Decoder(False, max_size, True)
    assert feed(decoder, [wire([(BINARY_PART, b"a"), (LAST, b"b"), (0xC2, b"c")], False)]) == [b"ab", (FIN, b"c")]
    header = head_of(0xC2, min(max_size + 1, sys.maxsize), False)
    assert feed(decoder, [header, b"d"]) == [(0, b"d")]  # An eighth more is allowed to what is compressed.


def test_empty_fragments_are_counted() -> None:
    decoder = Decoder(False, 100)
    for _ in range(2):
        frames = [(BINARY_PART, b""), *[(PART, b"")] * (MAX_EMPTY_FRAGMENTS - 1), (LAST, b"")]
        assert feed(decoder, [wire(frames, False)]) == [b""]
    assert feed(decoder, [wire([(BINARY_PART, b"a"), *[(PART, b"")] * MAX_EMPTY_FRAGMENTS], False)]) == []
    assert feed(decoder, [frame(PART, b"", False)]) == [1008]


@WATCHED
def test_empty_fragments_that_are_allowed_may_be_fewer(watched: bool) -> None:
    decoder = Decoder(False, 100, max_empty_fragments=1)
    decoder.watch = watched
    assert decoder.max_empty_fragments == 1
    fragments = [(PART, b""), (PART, b"b"), (PART, b"")]
    found = feed(decoder, one_by_one(wire([(TEXT_PART, b"a"), *fragments], False)))
    assert found[-1] == 1008


# A length is a promise, not a payload (hostile.md 33)


@BOTH_ROLES
@pytest.mark.parametrize("head", [TEXT, BINARY, TEXT_PART, BINARY_PART])
@WATCHED
def test_announced_length_allocates_nothing(head: int, masked: bool, watched: bool) -> None:
    decoder = Decoder(masked, 1 << 62)
    decoder.watch = watched
    start = head_of(head, 1 << 62, masked) + (KEY if masked else b"")
    payload = KEY * 250 if masked else b"x" * 1000  # unmasked it is zeros, and so text
    assert peak_of(lambda: feed(decoder, [start, payload])) < 50_000


@BOTH_ROLES
@pytest.mark.parametrize("head", [TEXT, BINARY])
def test_large_message_takes_twice_its_size_at_most(head: int, masked: bool) -> None:
    size = 1 << 22
    piece = 1 << 16
    start = head_of(head, size, masked) + (bytes(4) if masked else b"")
    part = b"x" * piece
    decoder = Decoder(masked, size)

    def receive() -> None:
        decoder.decode(start, ALL)
        found = [item for _ in range(size // piece) for item in decoder.decode(part, ALL)]
        assert [len(item) for item in found] == [size]

    # The growing buffer has an eighth to spare, and a piece is unmasked and decoded beside it.
    assert peak_of(receive) < 2 * size + size // 8 + 6 * piece


@pytest.mark.parametrize("part", [TEXT_PART, BINARY_PART])
def test_65536_one_byte_fragments_are_no_heap_of_objects(part: int) -> None:
    data = wire([(part, b"*"), *[(PART, b"*")] * 65_534, (LAST, b"*")], True)
    decoder = Decoder(True, 65_536)
    pieces = in_pieces(data, 4096)
    found: list[Seen] = []

    def receive() -> None:
        found.extend(feed(decoder, pieces))

    # As many objects would take over 4 MB.
    assert peak_of(receive) < 300_000
    assert found == ["*" * 65_536 if part == TEXT_PART else b"*" * 65_536]
    assert feed(Decoder(True, 65_535), [data]) == [1009]


def test_what_was_read_is_let_go() -> None:
    # A decoder that has nothing left to read keeps nothing of what it read.
    decoder = Decoder(False, 1 << 20)
    decoder.watch = True

    def read() -> None:
        for data in (frame(TEXT, b"a" * 1_000_000, False), frame(0x83, b"", False) + bytes(1_000_000)):
            decoder.decode(data[:10], ALL)
            decoder.decode(data[10:], ALL)

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        read()
        assert tracemalloc.get_traced_memory()[0] - before < 50_000
    finally:
        tracemalloc.stop()


# Text (section 8.1), judged while it arrives (hostile.md 39 and 40)

BAD = pytest.mark.parametrize(("text", "bad"), BAD_TEXTS.values(), ids=BAD_TEXTS)


@BAD
@BOTH_ROLES
@WATCHED
def test_bad_byte_is_told_in_the_middle_of_a_frame(text: bytes, bad: int, masked: bool, watched: bool) -> None:
    # More is announced than comes.
    header_size = 6 if masked else 2
    data = frame(TEXT, text + b"more", masked)[:-1]
    decoder = Decoder(masked, 100)
    decoder.watch = watched
    found = list(each(decoder, one_by_one(data)))
    assert [index for index, items in enumerate(found) if items] == [header_size + bad]
    assert found[header_size + bad] == [1007]


@BAD
def test_bad_byte_is_told_in_the_fragment_that_holds_it(text: bytes, bad: int) -> None:
    fragments = [frame(TEXT_PART if index == 0 else PART, text[index : index + 1], False) for index in range(len(text))]
    found = list(each(Decoder(False, 100), fragments))
    assert [index for index, items in enumerate(found) if items] == [bad]
    assert found[bad] == [1007]


@BAD
def test_bad_byte_is_told_at_every_split_over_two_fragments(text: bytes, bad: int) -> None:
    for split in range(len(text) + 1):
        first = frame(TEXT_PART, text[:split], False)
        last = frame(LAST, text[split:] + b"more", False)[:-1]
        found = list(each(Decoder(False, 100), one_by_one(first + last)))
        (at,) = [index for index, items in enumerate(found) if items == [1007]]
        assert at == 2 + bad if split > bad else at == len(first) + 2 + bad - split


@BAD
def test_control_frame_does_not_hide_a_bad_byte(text: bytes, bad: int) -> None:
    data = wire([(TEXT_PART, text[:bad]), (PING, b"\xff")], False)
    decoder = Decoder(False, 100)
    assert feed(decoder, [data]) == [(PING, b"\xff")]
    header = bytes([LAST, 100 - bad])
    assert feed(decoder, [header, text[bad : bad + 1]]) == [1007]


@BOTH_ROLES
def test_good_text_arrives_at_every_split_over_two_fragments(masked: bool) -> None:
    text = GOOD_TEXT.encode()
    for split in range(len(text) + 1):
        data = wire([(TEXT_PART, text[:split]), (LAST, text[split:])], masked)
        assert feed(Decoder(masked, 100), [data]) == [GOOD_TEXT]
        assert feed(Decoder(masked, 100), one_by_one(data)) == [GOOD_TEXT]


@BOTH_ROLES
def test_good_text_arrives_at_every_split_of_one_frame(masked: bool) -> None:
    data = frame(TEXT, GOOD_TEXT.encode(), masked)
    for split in range(len(data)):
        assert feed(Decoder(masked, 100), [data[:split], data[split:]]) == [GOOD_TEXT]


def test_text_that_ends_in_a_character_is_told_at_its_last_byte() -> None:
    for size in range(1, 4):
        text = b"ab" + "\U0001f600".encode()[:size]
        *before, last = each(Decoder(False, 9), one_by_one(frame(TEXT, text, False)))
        assert not any(before)
        assert last == [1007]
        fragments: Frames = [(TEXT_PART, text), (PART, b""), (LAST, b"")]
        assert feed(Decoder(False, 9), [wire(fragments, False)]) == [1007]


# The limit of one call: items come in portions

MIXED = Case(
    [
        *((TEXT, b"a"), (BINARY_PART, b"b"), (PING, b"c"), (LAST, b"d"), (TEXT, b"e"), (0xC2, b"f" * 200)),
        *((TEXT, b""), (0x42, b"g"), (PART, b"h"), (PONG, b""), (LAST, b"i"), (BINARY, b"j" * 200)),
    ],
    [
        *("a", (PING, b"c"), b"bd", "e", (FIN, b"f" * 200), ""),
        *((0, b"g"), (0, b"h"), (PONG, b""), (FIN, b"i"), b"j" * 200),
    ],
    True,
)
PLAIN = Case([(TEXT, b"a"), (BINARY_PART, b"b"), (PING, b""), (LAST, b"d"), (BINARY, b"f" * 200), (TEXT, b"")], [])


@BOTH_ROLES
@pytest.mark.parametrize("limit", range(1, 7))
def test_items_come_in_portions(masked: bool, limit: int) -> None:
    items: list[Seen] = ["a", (PING, b""), b"bd", b"f" * 200, ""]
    found = list(portions(decoder_of(PLAIN, masked), wire(PLAIN.frames, masked), limit))
    assert found == [items[start : start + limit] for start in range(0, len(items), limit)]


@BOTH_ROLES
def test_a_portion_ends_behind_a_part_of_a_compressed_message(masked: bool) -> None:
    """Before there is more, it has to be inflated: it may be the breach that ends the stream."""
    assert list(portions(decoder_of(MIXED, masked), wire(MIXED.frames, masked))) == [
        ["a", (PING, b"c"), b"bd", "e", (FIN, b"f" * 200)],
        ["", (0, b"g")],
        [(0, b"h")],
        [(PONG, b""), (FIN, b"i")],
        [b"j" * 200],
    ]


@BOTH_ROLES
def test_a_portion_ends_behind_a_close(masked: bool) -> None:
    data = wire([(TEXT, b"a"), (CLOSE, b""), (TEXT, b"b")], masked)
    assert list(portions(Decoder(masked, 300), data)) == [["a", (CLOSE, b"")], ["b"]]


def test_nothing_is_pending_if_the_limit_and_the_data_end_together() -> None:
    decoder = Decoder(False, 300)
    data = wire([(TEXT, b"a"), (TEXT, b"b")], False)
    assert decoder.decode(data, 2) == ["a", "b"]
    assert not decoder.pending
    # One byte is no frame, two may be one.
    assert decoder.decode(data + b"\x81", 2) == ["a", "b"]
    assert not decoder.pending
    assert decoder.decode(b"\x02", 2) == []
    assert not decoder.pending
    assert decoder.decode(b"ab" + data, 1) == ["ab"]
    assert decoder.pending
    assert decoder.decode(b"", 2) == ["a", "b"]
    assert not decoder.pending


def test_half_a_frame_may_be_pending_and_gives_nothing() -> None:
    decoder = Decoder(False, 300)
    assert decoder.decode(frame(TEXT, b"a", False) + b"\x81\x05He", 1) == ["a"]
    assert decoder.pending
    assert decoder.decode(b"", 1) == []
    assert not decoder.pending
    assert decoder.decode(b"llo", 1) == ["Hello"]


def test_frame_that_was_completed_counts() -> None:
    decoder = Decoder(False, 300)
    assert decoder.decode(b"\x81\x05He", 1) == []
    assert decoder.decode(b"llo" + frame(TEXT, b"a", False), 1) == ["Hello"]
    assert decoder.pending
    assert decoder.decode(b"", 1) == ["a"]


def test_limit_of_0_only_keeps() -> None:
    decoder = Decoder(False, 300, True)
    data = wire(MIXED.frames, False)
    assert decoder.decode(data[:50], 0) == []
    assert decoder.pending
    assert decoder.decode(data[50:], 0) == []
    assert decoder.pending
    assert feed(decoder, [b""]) == joined(MIXED.items)


@pytest.mark.parametrize("rest", [b"o", b"o" + frame(TEXT, b"a", False)])
def test_limit_of_0_keeps_the_rest_of_a_frame(rest: bytes) -> None:
    decoder = Decoder(False, 300)
    assert decoder.decode(b"\x81\x05Hell", ALL) == []
    assert decoder.decode(rest, 0) == []
    assert decoder.pending
    assert decoder.decode(b"", 1) == ["Hello"]


def test_error_is_an_item_and_ends_what_is_pending() -> None:
    decoder = Decoder(False, 300)
    data = wire([(TEXT, b"a"), (0x83, b""), (TEXT, b"b")], False)
    assert list(portions(decoder, data, 1)) == [["a"], [1002]]
    assert not decoder.pending
    assert decoder.decode(data, 1) == []
    assert decoder.plain


def test_plain_tells_of_each_portion() -> None:
    decoder = decoder_of(MIXED, False)
    plain = []
    for _ in portions(decoder, wire(MIXED.frames, False), 1):
        plain.append(decoder.plain)  # noqa: PERF401 - it changes meanwhile
    assert plain == [isinstance(item, (str, bytes)) for item in MIXED.items]


@settings(deadline=None)
@given(data=st.data(), masked=st.booleans(), watched=st.booleans())
def test_nothing_is_lost_whatever_the_limits_and_whenever_data_comes(
    data: st.DataObject, masked: bool, watched: bool
) -> None:
    case = data.draw(st.sampled_from([MIXED._replace(items=joined(MIXED.items)), *CASES.values()]))
    decoder = decoder_of(case, masked, watched)
    found: list[Seen] = []
    for piece in [*data.draw(cuts(wire(case.frames, masked))), *[b""] * 30]:
        # New data may come while there is something pending.
        limit = data.draw(st.integers(0, 4)) if piece else ALL
        items = decoder.decode(piece, limit)
        assert len(items) <= limit + (watched and limit > 0)  # A frame and what it means stay together.
        if items and items[-1].__class__ is tuple and items[-1][0] == FIN:
            decoder.finish()
        found += seen(items)
    assert not decoder.pending
    check(case, found, watched)


@pytest.mark.parametrize(
    "frames",
    [[(PART, b"a")], [(PART, b"")], [(PART, b"a"), (PART, EURO)], [(LAST, b""), (TEXT_PART, b"")]],
)
@WATCHED
def test_frames_are_read_so_many_in_a_call(frames: Frames, watched: bool) -> None:
    decoder = Decoder(False, 1 << 20, max_empty_fragments=1 << 20)
    decoder.watch = watched
    data = wire([(TEXT_PART, b"")] + frames * (4 * AT_ONCE // len(frames)) + [(LAST, b"!")], False)
    found = list(portions(decoder, data))
    assert len(found) == 5
    assert str(found[-1][-1])[-1] == "!"


@WATCHED
def test_control_frames_count_as_several(watched: bool) -> None:
    decoder = Decoder(False, 100)
    decoder.watch = watched
    found = list(portions(decoder, wire([(PING, b""), (PONG, b"")] * (AT_ONCE // 2), False)))
    assert [len(items) for items in found] == [AT_ONCE // CONTROL_PRICE * (1 + watched)] * CONTROL_PRICE


def test_messages_are_read_so_many_in_a_call() -> None:
    data = wire([(TEXT, b"")] * (AT_ONCE + 1), False)
    assert list(portions(Decoder(False, 100), data)) == [[""] * AT_ONCE, [""]]


# Frames that are watched


def test_a_frame_is_shown_before_what_it_means() -> None:
    decoder = Decoder(False, 300, True)
    decoder.watch = True
    frames: Frames = [(TEXT, b"a"), (PING, b"b"), (TEXT_PART, b"c"), (LAST, b"d"), (0xC2, b"e")]
    shown = [Frame.from_head(*frame) for frame in frames]
    expected = [shown[0], "a", shown[1], (PING, b"b"), shown[2], shown[3], "cd", shown[4], (FIN, b"e")]
    assert feed(decoder, [wire(frames, False)]) == expected
    assert feed(decoder, one_by_one(wire(frames, False))) == expected


def test_frames_may_be_watched_from_any_on_and_up_to_any() -> None:
    decoder = Decoder(False, 300)
    data = frame(TEXT, EURO * 2, False)
    binary = frame(BINARY, b"\xff", False)
    shown = [Frame.from_head(TEXT, EURO * 2), Frame.from_head(BINARY, b"\xff")]
    assert feed(decoder, [data[:4]]) == []
    decoder.watch = True  # One that has begun is not shown: a part of it is gone.
    assert feed(decoder, [data[4:], binary]) == ["€€", shown[1], b"\xff"]
    assert feed(decoder, [data[:4]]) == []
    decoder.watch = False
    assert feed(decoder, [data[4:], binary]) == ["€€", b"\xff"]
    decoder.watch = True
    assert feed(decoder, [data[:3], data[3:], binary]) == [shown[0], "€€", shown[1], b"\xff"]
    assert feed(decoder, [data[:4]]) == []
    decoder.watch = False
    assert feed(decoder, [data[4:5]]) == []
    decoder.watch = True
    assert feed(decoder, [data[5:]]) == [shown[0], "€€"]


# The message that is arriving, and whoever claims it


def test_whole_messages_of_one_frame_never_arrive_there() -> None:
    decoder = Decoder(False, 300)
    arriving = decoder.arriving
    assert feed(decoder, [wire([(TEXT, b"a"), (BINARY, b"b"), (PING, b"")], False)]) == ["a", b"b", (PING, b"")]
    assert decoder.arriving is arriving
    assert not arriving.begun


@BOTH_ROLES
@pytest.mark.parametrize("head", [TEXT, BINARY])
def test_what_has_come_of_a_message_is_there(masked: bool, head: int) -> None:
    decoder = Decoder(masked, 300)
    data = frame(head, b"Hello", masked)
    assert feed(decoder, [data[:-2]]) == []
    arriving = decoder.arriving
    assert (arriving.begun, arriving.is_text, arriving.size, arriving.held) == (True, head == TEXT, 3, 3)
    assert feed(decoder, [data[-2:]]) == ["Hello" if head == TEXT else b"Hello"]
    assert not decoder.arriving.begun
    assert (decoder.arriving.size, decoder.arriving.held) == (0, 0)


@BOTH_ROLES
@pytest.mark.parametrize("claimed_at", range(3))
@pytest.mark.parametrize("head", [TEXT, BINARY])
def test_a_claimed_message_is_none_of_the_items_and_those_behind_it_are(
    masked: bool, head: int, claimed_at: int
) -> None:
    decoder = Decoder(masked, 10)
    frames = [(head & ~FIN, b"abc"), (PART, b"de"), (PING, b""), (LAST, b"f" * 20), (TEXT, b"next"), (BINARY, b"too")]
    found: list[Seen] = []
    for number, (first, payload) in enumerate(frames):
        if number == claimed_at:
            arriving = decoder.arriving
            arriving.claim()
        for piece in in_pieces(frame(first, payload, masked), 9):
            found += feed(decoder, [piece])
    assert found == [(PING, b""), "next", b"too"]
    assert arriving.ended
    assert arriving.size == 25
    assert arriving.take() == ("abcde" + "f" * 20 if head == TEXT else b"abcde" + b"f" * 20)
    assert decoder.arriving is not arriving


def test_a_claimed_message_in_one_frame_ends_at_once() -> None:
    decoder = Decoder(False, 300)
    decoder.arriving.claim()
    arriving = decoder.arriving
    assert feed(decoder, [wire([(TEXT, b"a"), (TEXT, b"b")], False)]) == ["b"]
    assert (arriving.ended, arriving.take()) == (True, "a")


def test_a_message_that_is_thrown_away_takes_no_room() -> None:
    decoder = Decoder(False, 300)
    decoder.arriving.claim()
    decoder.arriving.discard()
    frames = [(BINARY_PART, bytes(100_000)), (LAST, bytes(100_000)), (TEXT, b"next")]
    pieces = in_pieces(wire(frames, False), 1000)
    found: list[Seen] = []
    assert peak_of(lambda: found.extend(feed(decoder, pieces))) < 20_000
    assert found == ["next"]


def test_a_claimed_text_is_checked() -> None:
    decoder = Decoder(False, 300)
    decoder.arriving.claim()
    assert feed(decoder, [frame(TEXT_PART, b"a\xc3", False)]) == []
    assert feed(decoder, [frame(LAST, b"", False)]) == [1007]


def test_a_claim_may_be_taken_back_unless_the_message_is_too_large() -> None:
    for size, length, fine in ((10, 290, True), (10, 291, False), (301, 0, False), (10, sys.maxsize, False)):
        decoder = Decoder(False, 300)
        decoder.arriving.claim()
        assert feed(decoder, [frame(BINARY_PART, bytes(size), False), head_of(PART, length, False)]) == []
        assert decoder.unclaim() is fine
        assert decoder.arriving.claimed is not fine
    decoder = Decoder(False, 300)
    decoder.arriving.claim()
    assert decoder.unclaim()
    assert feed(decoder, [frame(TEXT, b"whole", False)]) == ["whole"]


def test_a_claim_that_was_taken_back_gives_the_message_whole() -> None:
    decoder = Decoder(False, 300)
    decoder.arriving.claim()
    assert feed(decoder, [frame(TEXT_PART, b"a", False)]) == []
    assert decoder.unclaim()
    assert feed(decoder, [frame(LAST, b"b", False)]) == ["ab"]


@BOTH_ROLES
def test_frames_of_a_claimed_message_are_shown_in_the_parts_that_they_come_in(masked: bool) -> None:
    decoder = Decoder(masked, 4, True)
    decoder.watch = True
    decoder.arriving.claim()
    data = frame(BINARY_PART | RSV1, b"abcdef", masked)
    found = [list(portions(decoder, piece)) for piece in (data[:-4], b"", data[-4:-1], data[-1:], b"")]
    assert found == [
        [[Frame.from_head(BINARY_PART | RSV1, b"ab"), (0, b"ab")]],
        [[]],
        [[Frame.from_head(PART, b"cde"), (0, b"cde")]],
        [[Frame.from_head(PART, b"f"), (0, b"f")]],
        [[]],
    ]
    data = frame(LAST, b"gh", masked)
    assert feed(decoder, [data[:-2]]) == []
    assert feed(decoder, [data[-2:]]) == [Frame.from_head(LAST, b"gh"), (FIN, b"gh")]


# Holding, before a message that is too large to be whole


@BOTH_ROLES
@pytest.mark.parametrize("head", [TEXT, BINARY])
def test_a_message_over_the_limit_waits_while_holding(masked: bool, head: int) -> None:
    decoder = Decoder(masked, 300)
    decoder.holding = True
    data = wire([(TEXT, b"before"), (head, b"x" * 301), (TEXT, b"behind")], masked)
    assert decoder.decode(data, ALL) == ["before"]
    assert decoder.held
    assert decoder.pending
    assert decoder.decode(b"", ALL) == []
    assert decoder.held
    arriving = decoder.arriving
    arriving.claim()
    assert decoder.decode(b"", ALL) == []  # It stops where whoever has claimed it has all.
    assert not decoder.held
    assert decoder.pending
    assert len(arriving.take()) == 301
    assert decoder.decode(b"", ALL) == ["behind"]
    assert not decoder.pending


def test_a_fragment_over_the_limit_waits_and_control_frames_before_it_do_not() -> None:
    decoder = Decoder(False, 300)
    decoder.holding = True
    frames = [(BINARY_PART, b"x" * 300), (PING, b""), (LAST, b"y"), (PING, b"")]
    assert decoder.decode(wire(frames, False), ALL) == [(PING, b"")]
    assert decoder.held
    decoder.holding = False
    assert seen(decoder.decode(b"", ALL)) == [1009]
    assert not decoder.held
    assert not decoder.pending


# The two are equal


@pytest.mark.skipif(len(IMPLEMENTATIONS) == 1, reason="nothing is compiled here")
@settings(deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=400),
        st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=200))).map(lambda frames: wire(frames, True)),
        st.lists(st.tuples(HEADS, st.binary(max_size=9)), max_size=30).map(lambda frames: wire(frames, True)),
    ),
    pieces=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3), st.sampled_from("   chwu"))),
    masked=st.booleans(),
    compression=st.booleans(),
    max_size=st.sampled_from([0, 10, 150, 10_000, sys.maxsize]),
)
def test_what_is_compiled_and_its_sources_are_equal(
    data: bytes, pieces: list[tuple[int, int, str]], masked: bool, compression: bool, max_size: int
) -> None:
    found = []
    for implementation in IMPLEMENTATIONS.values():
        decoder = implementation.codec.Decoder(masked, max_size, compression)
        results: list[Any] = []
        rest = data
        for size, limit, does in [*pieces, (len(data), 1000, " ")]:
            if does == "c":
                decoder.arriving.claim()
            elif does == "h":
                decoder.holding = not decoder.holding
            elif does == "w":
                decoder.watch = not decoder.watch
            elif does == "u":
                results.append(decoder.unclaim())
            piece, rest = rest[:size], rest[size:]
            arriving = decoder.arriving
            results.append(seen(decoder.decode(piece, limit)))
            results += [decoder.plain, decoder.pending, decoder.held, arriving.size, arriving.held, arriving.ended]
            if arriving.claimed:
                results.append(arriving.take())
        found.append(results)
    assert found[0] == found[-1]
