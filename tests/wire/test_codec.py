"""The codec's contract, which every twin holds: bytes of frames, and frames out of bytes in whatever pieces."""

from __future__ import annotations

import tracemalloc
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_pyjo_ws.errors import RemoteProtocolError
from trio_pyjo_ws.wire import _codec, _compiled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

ALL = 1 << 30
KEY = b"\x37\xfa\x21\x3d"
FIN, RSV1 = 0x80, 0x40
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
TEXT_PART, BINARY_PART, PART, LAST = 0x01, 0x02, 0x00, 0x80

# An item as these tests compare it: the code stands for the error.
Seen = Union[str, bytes, "tuple[int, bytes]", int]
Frames = list[tuple[int, bytes]]


def xor(payload: bytes, key: bytes) -> bytes:
    """Section 5.3, word for word: octet i of the payload with octet i modulo 4 of the key."""
    return bytes(octet ^ key_octet for octet, key_octet in zip(payload, cycle(key), strict=False))


def head_of(head: int, length: int, masked: bool) -> bytes:
    """Section 5.2, without the masking key."""
    mask = 0x80 if masked else 0
    if length < 126:
        return bytes([head, mask | length])
    if length < 1 << 16:
        return bytes([head, mask | 126]) + length.to_bytes(2, "big")
    return bytes([head, mask | 127]) + length.to_bytes(8, "big")


def frame(head: int, payload: bytes, masked: bool) -> bytes:
    start = head_of(head, len(payload), masked)
    return start + KEY + xor(payload, KEY) if masked else start + payload


def wire(frames: Iterable[tuple[int, bytes]], masked: bool) -> bytes:
    return b"".join(frame(head, payload, masked) for head, payload in frames)


def one_by_one(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def seen(items: Iterable[Any]) -> list[Seen]:
    return [item.code if isinstance(item, RemoteProtocolError) else item for item in items]


def feed(decoder: Any, pieces: Iterable[bytes]) -> list[Seen]:
    """Everything that comes out, and that ``plain`` tells of it each time."""
    found: list[Seen] = []
    for piece in pieces:
        items = decoder.decode(piece, ALL)
        assert decoder.plain is all(isinstance(item, (str, bytes)) for item in items)
        assert not decoder.pending
        found += seen(items)
    return found


# Masking (section 5.3)

LENGTHS = [*range(10), 125, 126, 1020, 1021, 1022, 1023, 1024, 1025, 1026, 1027, 4096, 70_001]


@pytest.mark.parametrize("length", LENGTHS)
def test_mask_is_the_xor_of_section_5_3(codec: ModuleType, length: int) -> None:
    payload = bytes(index * 7 & 0xFF for index in range(length))
    masked = xor(payload, KEY)
    for kind in (bytes, bytearray, memoryview):
        assert bytes(codec.apply_mask(kind(payload), KEY)) == masked
        assert bytes(codec.apply_mask(kind(masked), KEY)) == payload
    assert payload == bytes(index * 7 & 0xFF for index in range(length))  # nothing is masked in place


@settings(deadline=None)
@given(payload=st.binary(max_size=5000), key=st.binary(min_size=4, max_size=4))
def test_any_payload_is_masked_with_any_key(codec: ModuleType, payload: bytes, key: bytes) -> None:
    assert bytes(codec.apply_mask(payload, key)) == xor(payload, key)


# Encoding (section 5.2)


@pytest.mark.parametrize(
    ("length", "start"),
    [
        (0, "82 00"),
        (1, "82 01"),
        (125, "82 7d"),
        (126, "82 7e 007e"),
        (65_535, "82 7e ffff"),
        (65_536, "82 7f 0000000000010000"),
        (400_000, "82 7f 0000000000061a80"),
    ],
)
def test_length_is_encoded_in_its_shortest_form(codec: ModuleType, length: int, start: str) -> None:
    payload = bytes(index & 0xFF for index in range(length))
    header = bytearray.fromhex(start)
    assert codec.encode(0x82, payload) == header + payload
    header[1] |= 0x80
    assert codec.encode(0x82, payload, KEY) == header + KEY + xor(payload, KEY)


@pytest.mark.parametrize("head", range(256))
def test_first_byte_is_encoded_as_it_is(codec: ModuleType, head: int) -> None:
    for encoded in (codec.encode(head, b"hi"), codec.encode(head, b"hi" * 100), codec.encode(head, b"hi" * 40_000)):
        assert encoded[0] == head
        assert type(encoded) is bytes
    assert type(codec.encode(head, b"hi" * 1000, KEY)) is bytes


# RFC 6455, section 5.7, byte for byte

EXAMPLES = {
    "a single-frame unmasked text message": ([(TEXT, b"Hello")], None, "81 05 48 65 6c 6c 6f", ["Hello"]),
    "a single-frame masked text message": (
        [(TEXT, b"Hello")],
        KEY,
        "81 85 37 fa 21 3d 7f 9f 4d 51 58",
        ["Hello"],
    ),
    "a fragmented unmasked text message": (
        [(TEXT_PART, b"Hel"), (LAST, b"lo")],
        None,
        "01 03 48 65 6c  80 02 6c 6f",
        [(TEXT_PART, b"Hel"), (LAST, b"lo")],
    ),
    "unmasked ping request": ([(PING, b"Hello")], None, "89 05 48 65 6c 6c 6f", [(PING, b"Hello")]),
    "masked ping response": (
        [(PONG, b"Hello")],
        KEY,
        "8a 85 37 fa 21 3d 7f 9f 4d 51 58",
        [(PONG, b"Hello")],
    ),
    "256 bytes binary message in a single unmasked frame": (
        [(BINARY, bytes(range(256)))],
        None,
        "82 7e 01 00" + bytes(range(256)).hex(),
        [bytes(range(256))],
    ),
    "64 KiB binary message in a single unmasked frame": (
        [(BINARY, bytes(65_536))],
        None,
        "82 7f 00 00 00 00 00 01 00 00" + bytes(65_536).hex(),
        [bytes(65_536)],
    ),
}


@pytest.mark.parametrize(("frames", "key", "expected", "items"), EXAMPLES.values(), ids=EXAMPLES)
def test_examples_of_section_5_7(
    codec: ModuleType, frames: Frames, key: bytes | None, expected: str, items: list[Seen]
) -> None:
    data = bytes.fromhex(expected)
    assert b"".join(codec.encode(head, payload, key) for head, payload in frames) == data
    assert feed(codec.Decoder(key is not None, 65_536), [data]) == items


# Decoding: every case whole, byte by byte, with trailing data, in any pieces, and watched frame by frame


class Case(NamedTuple):
    frames: Frames
    items: list[Seen]
    """What the frames give: the last of them an integer where they end in an error with that code."""
    compression: bool = False
    max_size: int = 300

    def watched(self) -> list[Seen]:
        """The same where every frame is asked for."""
        found: list[Seen] = []
        for item in self.items:
            if isinstance(item, str):
                found.append((TEXT, item.encode()))
            elif isinstance(item, bytes):
                found.append((BINARY, item))
            else:
                found.append(item)
        return found


def passed(*frames: tuple[int, bytes]) -> Case:
    """Frames that come out as they are."""
    return Case(list(frames), list(frames))


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
    "ping, pong and close": passed((PING, b"1"), (PONG, b""), (CLOSE, b"\x03\xe8")),
    "control frame of 125 bytes": passed((PING, b"x" * 125)),
    "close that is not UTF-8": passed((CLOSE, b"\x03\xe8\xff")),
    "fragmented text": passed((TEXT_PART, b"Hel"), (PART, b""), (PART, b"l"), (LAST, b"o")),
    "fragmented binary": passed((BINARY_PART, b"\xff"), (PART, b"\x80"), (LAST, b"")),
    "empty fragments": passed((TEXT_PART, b""), (PART, b""), (LAST, b"")),
    "control frames between fragments": passed(
        (TEXT_PART, b"a"), (PING, b"\xff"), (PART, b"b"), (PONG, b""), (LAST, b"")
    ),
    "close between fragments": passed((BINARY_PART, b"a"), (CLOSE, b"")),
    "character over fragments": passed((TEXT_PART, EURO[:1]), (PART, EURO[1:2]), (PING, b"\xff\xff"), (LAST, EURO[2:])),
    "whole message behind a fragmented one": Case(
        [(TEXT_PART, b"a"), (LAST, b"b"), (TEXT, b"c"), (BINARY, b"\xff")],
        [(TEXT_PART, b"a"), (LAST, b"b"), "c", b"\xff"],
    ),
    "binary behind text": Case([(TEXT, EURO), (BINARY, EURO[:2] + b"\xff")], ["€", EURO[:2] + b"\xff"]),
    "fragmented binary behind text": Case(
        [(TEXT, EURO), (BINARY_PART, b"\xff\xff"), (LAST, b"\xff\xff")],
        ["€", (BINARY_PART, b"\xff\xff"), (LAST, b"\xff\xff")],
    ),
    "fragmented binary behind fragmented text": passed(
        (TEXT_PART, EURO), (LAST, EURO), (BINARY_PART, b"\xff\xff"), (LAST, b"\xff\xff")
    ),
    "fragments of the limit": Case(
        [(TEXT_PART, b"x" * 150), (PING, b"y" * 125), (LAST, b"x" * 150)],
        [(TEXT_PART, b"x" * 150), (PING, b"y" * 125), (LAST, b"x" * 150)],
    ),
    "compressed": Case(
        [(TEXT | RSV1, b"\xff\xff"), (BINARY | RSV1, b"\xff")], [(0xC1, b"\xff\xff"), (0xC2, b"\xff")], True
    ),
    "compressed in fragments": Case(
        [(TEXT_PART | RSV1, b"\xff\xff"), (PING, b""), (PART, b"\xff\xff"), (LAST, b"\xff\xff")],
        [(0x41, b"\xff\xff"), (PING, b""), (PART, b"\xff\xff"), (LAST, b"\xff\xff")],
        True,
    ),
    "compressed behind uncompressed": Case(
        [(TEXT, b"ab"), (TEXT | RSV1, b"\xff\xff"), (TEXT, b"ab")], ["ab", (0xC1, b"\xff\xff"), "ab"], True
    ),
    "compressed and somewhat over the limit": Case([(0xC2, b"x" * 401)], [(0xC2, b"x" * 401)], True),
    "compressed fragments somewhat over the limit": Case(
        [(0x42, b"x" * 300), (LAST, b"x" * 101)], [(0x42, b"x" * 300), (LAST, b"x" * 101)], True
    ),
    "nothing where nothing may be": Case([(TEXT, b""), (PING, b"")], ["", (PING, b"")], max_size=0),
    # What ends the stream:
    "orphan continuation": Case([(TEXT, b"a"), (LAST, b"b")], ["a", 1002]),
    "orphan continuation without FIN": Case([(PART, b"")], [1002]),
    "message between fragments": Case([(TEXT_PART, b"a"), (TEXT, b"b")], [(TEXT_PART, b"a"), 1002]),
    "other message between fragments": Case([(TEXT_PART, b"a"), (BINARY_PART, b"b")], [(TEXT_PART, b"a"), 1002]),
    "continuation with RSV1": Case([(0x41, b"a"), (LAST | RSV1, b"b")], [(0x41, b"a"), 1002], True),
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
    "fragments over the limit": Case(
        [(BINARY_PART, b"x" * 300), (PING, b"x"), (LAST, b"x")], [(2, b"x" * 300), (PING, b"x"), 1009]
    ),
    "compressed and far over the limit": Case([(0xC2, b"x" * 402)], [1009], True),
    "compressed fragments far over the limit": Case(
        [(0x42, b"x" * 300), (LAST, b"x" * 102)], [(0x42, b"x" * 300), 1009], True
    ),
    "something where nothing may be": Case([(BINARY, b""), (BINARY, b"x")], [b"", 1009], max_size=0),
    "text that is not UTF-8": Case([(TEXT, b"ok"), (TEXT, b"a\xffb")], ["ok", 1007]),
    "text that is truncated": Case([(TEXT, EURO[:2])], [1007]),
    "fragment that is not UTF-8": Case([(TEXT_PART, b"a"), (PART, b"\xff"), (LAST, b"")], [(1, b"a"), 1007]),
    "first fragment that is not UTF-8": Case([(TEXT_PART, b"\xff"), (LAST, b"")], [1007]),
    "fragments that are truncated": Case([(TEXT_PART, EURO[:2]), (LAST, b"")], [(1, EURO[:2]), 1007]),
    "text that stops in a character, then a frame of its own": Case([(TEXT, EURO[:1]), (TEXT, EURO[1:])], [1007]),
}
EVERY_CASE = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
BOTH_ROLES = pytest.mark.parametrize("masked", [False, True], ids=["unmasked", "masked"])
WATCHED = pytest.mark.parametrize("watched", [False, True], ids=["straight", "watched"])


def decoder_of(codec: ModuleType, case: Case, masked: bool, watched: bool = False) -> Any:
    decoder = codec.Decoder(masked, case.max_size, case.compression)
    decoder.straight = not watched
    return decoder


@EVERY_CASE
@BOTH_ROLES
@WATCHED
def test_case_fed_whole(codec: ModuleType, case: Case, masked: bool, watched: bool) -> None:
    decoder = decoder_of(codec, case, masked, watched)
    assert feed(decoder, [wire(case.frames, masked)]) == (case.watched() if watched else case.items)


@EVERY_CASE
@BOTH_ROLES
@WATCHED
def test_case_fed_byte_by_byte(codec: ModuleType, case: Case, masked: bool, watched: bool) -> None:
    decoder = decoder_of(codec, case, masked, watched)
    assert feed(decoder, one_by_one(wire(case.frames, masked))) == (case.watched() if watched else case.items)


@EVERY_CASE
@BOTH_ROLES
@WATCHED
def test_case_fed_with_trailing_data(codec: ModuleType, case: Case, masked: bool, watched: bool) -> None:
    # A pong may stand behind any frame, and is cut off here; behind an error nothing is looked at.
    data = wire(case.frames, masked)
    pong = frame(PONG, b"\xfftrailing", masked)
    expected = case.watched() if watched else case.items
    failed = expected[-1:] in ([1002], [1007], [1009])
    decoder = decoder_of(codec, case, masked, watched)
    assert feed(decoder, [data + pong[:5]]) == expected
    assert feed(decoder, [pong[5:]]) == ([] if failed else [(PONG, b"\xfftrailing")])
    assert feed(decoder, [pong, b""]) == ([] if failed else [(PONG, b"\xfftrailing")])


@EVERY_CASE
@settings(deadline=None)
@given(data=st.data())
def test_case_fed_in_any_pieces(codec: ModuleType, case: Case, data: st.DataObject) -> None:
    masked = data.draw(st.booleans())
    whole = wire(case.frames, masked)
    decoder = decoder_of(codec, case, masked)
    assert feed(decoder, data.draw(cuts(whole))) == case.items


@st.composite
def cuts(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    """The same bytes in some pieces, of which some may be empty."""
    places = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    return [whole[start:end] for start, end in zip([0, *places], [*places, len(whole)], strict=True)]


@BOTH_ROLES
@pytest.mark.parametrize("length", [65_535, 65_536, 400_000])
@pytest.mark.parametrize("size", [1000, 65_536, ALL])
def test_large_messages_arrive_in_any_pieces(codec: ModuleType, masked: bool, length: int, size: int) -> None:
    payload = bytes(index * 7 & 0x7F for index in range(length))
    data = wire([(BINARY, payload), (TEXT, payload)], masked)
    decoder = codec.Decoder(masked, length)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    assert feed(decoder, pieces) == [payload, payload.decode()]


@settings(deadline=None)
@given(data=st.data(), noise=st.binary(max_size=60), masked=st.booleans(), compression=st.booleans())
def test_any_bytes_give_the_same_items_in_any_pieces(
    codec: ModuleType, data: st.DataObject, noise: bytes, masked: bool, compression: bool
) -> None:
    whole = wire(data.draw(st.lists(st.tuples(HEADS, st.binary(max_size=6)), max_size=4)), masked) + noise
    expected = feed(codec.Decoder(masked, 100, compression), [whole])
    assert feed(codec.Decoder(masked, 100, compression), data.draw(cuts(whole))) == expected
    assert not any(isinstance(item, int) for item in expected[:-1])  # an error is the last that comes


HEADS = st.sampled_from([TEXT, BINARY, TEXT_PART, BINARY_PART, PART, LAST, PING, CLOSE, 0xC1, 0x42])


def test_frames_may_be_watched_from_the_middle_of_a_message_on(codec: ModuleType) -> None:
    decoder = codec.Decoder(False, 300)
    data = frame(TEXT, EURO * 2, False)
    assert feed(decoder, [data[:4]]) == []
    decoder.straight = False
    assert feed(decoder, [data[4:], frame(BINARY, b"\xff", False)]) == [(TEXT, EURO * 2), (BINARY, b"\xff")]
    assert feed(decoder, [data[:4]]) == []
    decoder.straight = True
    assert feed(decoder, [data[4:], frame(BINARY, b"\xff", False)]) == ["€€", b"\xff"]


def test_items_have_plain_types(codec: ModuleType) -> None:
    for masked in (False, True):
        for pieces in (
            [wire([(BINARY, b"x" * 2000), (PING, b"")], masked)],
            one_by_one(frame(BINARY, b"x" * 2000, masked)),
        ):
            decoder = codec.Decoder(masked, 2000)
            items = [item for piece in pieces for item in decoder.decode(piece, ALL)]
            assert type(items[0]) is bytes
        decoder = codec.Decoder(masked, 2000)
        for piece in one_by_one(frame(PING, b"x" * 20, masked)):
            for head, payload in decoder.decode(piece, ALL):
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
    codec: ModuleType, head: int, second: int, length: bytes, code: int, message: str, masked: bool, watched: bool
) -> None:
    header = bytes([head, second | 0x80 if masked else second]) + length
    for pieces in ([header], one_by_one(header)):
        decoder = codec.Decoder(masked, 100_000)
        decoder.straight = not watched
        *before, items = (decoder.decode(piece, ALL) for piece in pieces)
        assert not any(before)
        (error,) = items
        assert isinstance(error, RemoteProtocolError)
        assert error.code == code
        assert message in str(error)


@pytest.mark.parametrize("head", [TEXT, BINARY, TEXT_PART, PING, CLOSE])
def test_unmasked_from_a_client_is_told_at_the_header(codec: ModuleType, head: int) -> None:
    (error,) = codec.Decoder(True, 100).decode(bytes([head, 5]), ALL)
    assert (error.code, str(error)) == (1002, "a client's frames must be masked")


@pytest.mark.parametrize("head", [TEXT, BINARY, TEXT_PART, PING, CLOSE])
def test_masked_from_a_server_is_told_at_the_header(codec: ModuleType, head: int) -> None:
    (error,) = codec.Decoder(False, 100).decode(bytes([head, 0x85]), ALL)
    assert (error.code, str(error)) == (1002, "a server's frames are not masked")


@pytest.mark.parametrize("head", [TEXT, BINARY, TEXT_PART])
def test_message_between_fragments_is_told_at_the_header(codec: ModuleType, head: int) -> None:
    decoder = codec.Decoder(False, 100)
    assert feed(decoder, [frame(BINARY_PART, b"a", False)]) == [(BINARY_PART, b"a")]
    (error,) = decoder.decode(bytes([head, 5]), ALL)
    assert (error.code, str(error)) == (1002, "a new message begins before the last fragment of the one before")


def test_sum_of_fragments_is_told_at_the_header(codec: ModuleType) -> None:
    decoder = codec.Decoder(False, 100)
    assert feed(decoder, [frame(TEXT_PART, b"a" * 60, False)]) == [(TEXT_PART, b"a" * 60)]
    assert feed(decoder, [frame(PING, b"a" * 60, False)]) == [(PING, b"a" * 60)]
    assert feed(decoder, [bytes([LAST, 41])]) == [1009]


def test_limit_begins_anew_with_each_message(codec: ModuleType) -> None:
    decoder = codec.Decoder(False, 100)
    for _ in range(3):
        message: Frames = [(TEXT_PART, b"a" * 60), (LAST, b"a" * 40)]
        assert feed(decoder, [wire(message, False), frame(TEXT, b"a" * 100, False)]) == [*message, "a" * 100]


def test_limit_may_be_changed(codec: ModuleType) -> None:
    decoder = codec.Decoder(False, 100)
    decoder.max_size = 101
    assert feed(decoder, [frame(BINARY, b"a" * 101, False), frame(BINARY_PART, b"a" * 50, False)]) == [
        b"a" * 101,
        (BINARY_PART, b"a" * 50),
    ]
    decoder.max_size = 49
    assert feed(decoder, [bytes([LAST, 0])]) == [1009]


# A length is a promise, not a payload (hostile.md 33)


@BOTH_ROLES
@pytest.mark.parametrize("head", [TEXT, BINARY, TEXT_PART, BINARY_PART])
def test_announced_length_allocates_nothing(codec: ModuleType, head: int, masked: bool) -> None:
    decoder = codec.Decoder(masked, 1 << 62)
    start = head_of(head, 1 << 62, masked) + (KEY if masked else b"")
    assert peak_of(lambda: feed(decoder, [start, b"x" * 1000])) < 50_000


@BOTH_ROLES
@pytest.mark.parametrize("head", [TEXT, BINARY])
def test_large_message_takes_twice_its_size_at_most(codec: ModuleType, head: int, masked: bool) -> None:
    size = 1 << 22
    piece = 1 << 16
    start = head_of(head, size, masked) + (bytes(4) if masked else b"")
    part = b"x" * piece
    decoder = codec.Decoder(masked, size)

    def receive() -> None:
        decoder.decode(start, ALL)
        found = [item for _ in range(size // piece) for item in decoder.decode(part, ALL)]
        assert [len(item) for item in found] == [size]

    # The growing buffer has an eighth to spare, and a piece is unmasked and decoded beside it.
    assert peak_of(receive) < 2 * size + size // 8 + 6 * piece


def peak_of(call: Any) -> int:
    """Bytes that the call takes at its height."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


# Text (section 8.1), judged while it arrives (hostile.md 39 and 40)

# The bytes, and where the first of them stands that no valid text could have there
BAD_TEXTS = {
    "continuation byte alone": (b"ab\x80", 2),
    "never a byte of UTF-8": (b"\xff", 0),
    "invalid first byte c0": (b"a\xc0\x80", 1),
    "invalid first byte f5": (b"a\xf5\x80\x80\x80", 1),
    "overlong in 3 bytes": (b"\xe0\x80\xaf", 1),
    "overlong in 4 bytes": (b"\xf0\x80\x80\xaf", 1),
    "first surrogate": (b"\xed\xa0\x80", 1),
    "last surrogate": (b"a\xed\xbf\xbf", 2),
    "above U+10FFFF": (b"\xf4\x90\x80\x80", 1),
    "second byte of 2": (b"\xc3\x28", 1),
    "third byte of 3": (b"\xe2\x82\x28", 2),
    "fourth byte of 4": (b"\xf0\x9f\x98\x28", 3),
    "Autobahn's 6.3.1": (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64\x69\x74\x65\x64", 12),
    "Autobahn's 6.4.1": (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80\x65\x64\x69\x74\x65\x64", 12),
}
BAD = pytest.mark.parametrize(("text", "bad"), BAD_TEXTS.values(), ids=BAD_TEXTS)
GOOD_TEXT = "κόσμε é€\ud7ff\ue000\U00010000\U0010ffff"


@BAD
@BOTH_ROLES
@WATCHED
def test_bad_byte_is_told_in_the_middle_of_a_frame(
    codec: ModuleType, text: bytes, bad: int, masked: bool, watched: bool
) -> None:
    # More is announced than comes.
    header_size = 6 if masked else 2
    data = frame(TEXT, text + b"more", masked)[:-1]
    decoder = codec.Decoder(masked, 100)
    decoder.straight = not watched
    found = [seen(decoder.decode(piece, ALL)) for piece in one_by_one(data)]
    assert [index for index, items in enumerate(found) if items] == [header_size + bad]
    assert found[header_size + bad] == [1007]


@BAD
def test_bad_byte_is_told_in_the_fragment_that_holds_it(codec: ModuleType, text: bytes, bad: int) -> None:
    fragments = [(TEXT_PART if index == 0 else PART, text[index : index + 1]) for index in range(len(text))]
    assert feed(codec.Decoder(False, 100), [wire(fragments, False)]) == [*fragments[:bad], 1007]


@BAD
def test_bad_byte_is_told_at_every_split_over_two_fragments(codec: ModuleType, text: bytes, bad: int) -> None:
    for split in range(len(text) + 1):
        first = frame(TEXT_PART, text[:split], False)
        last = frame(LAST, text[split:] + b"more", False)[:-1]
        data = first + last
        found = [seen(items) for decoder in [codec.Decoder(False, 100)] for items in each(decoder, one_by_one(data))]
        (at,) = [index for index, items in enumerate(found) if 1007 in items]
        assert at == 2 + bad if split > bad else at == len(first) + 2 + bad - split


def each(decoder: Any, pieces: Iterable[bytes]) -> Iterator[list[Any]]:
    for piece in pieces:
        yield decoder.decode(piece, ALL)


@BAD
def test_control_frame_does_not_hide_a_bad_byte(codec: ModuleType, text: bytes, bad: int) -> None:
    data = wire([(TEXT_PART, text[:bad]), (PING, b"\xff")], False)
    decoder = codec.Decoder(False, 100)
    assert feed(decoder, [data]) == [(TEXT_PART, text[:bad]), (PING, b"\xff")]
    header = bytes([LAST, 100 - bad])
    assert feed(decoder, [header, text[bad : bad + 1]]) == [1007]


@BOTH_ROLES
def test_good_text_arrives_at_every_split_over_two_fragments(codec: ModuleType, masked: bool) -> None:
    text = GOOD_TEXT.encode()
    for split in range(len(text) + 1):
        message: Frames = [(TEXT_PART, text[:split]), (LAST, text[split:])]
        data = wire(message, masked)
        assert feed(codec.Decoder(masked, 100), [data]) == message
        assert feed(codec.Decoder(masked, 100), one_by_one(data)) == message


@BOTH_ROLES
def test_good_text_arrives_at_every_split_of_one_frame(codec: ModuleType, masked: bool) -> None:
    data = frame(TEXT, GOOD_TEXT.encode(), masked)
    for split in range(len(data)):
        assert feed(codec.Decoder(masked, 100), [data[:split], data[split:]]) == [GOOD_TEXT]


def test_text_that_ends_in_a_character_is_told_at_its_last_byte(codec: ModuleType) -> None:
    for size in range(1, 4):
        text = b"ab" + "\U0001f600".encode()[:size]
        *before, last = (
            items
            for decoder in [codec.Decoder(False, 9)]
            for items in each(decoder, one_by_one(frame(TEXT, text, False)))
        )
        assert not any(before)
        assert seen(last) == [1007]
        fragments: Frames = [(TEXT_PART, text), (PART, b""), (LAST, b"")]
        assert feed(codec.Decoder(False, 9), [wire(fragments, False)]) == [*fragments[:2], 1007]


# The limit of one call: items come in portions


def portions(decoder: Any, data: bytes, limit: int) -> Iterator[list[Seen]]:
    """What is to be had of ``data``, without more of it, as long as there is something pending."""
    yield seen(decoder.decode(data, limit))
    while decoder.pending:
        yield seen(decoder.decode(b"", limit))


MIXED = Case(
    [(TEXT, b"a"), (BINARY_PART, b"b"), (PING, b"c"), (LAST, b"d"), (TEXT, b"e"), (BINARY, b"f" * 200), (TEXT, b"")],
    ["a", (BINARY_PART, b"b"), (PING, b"c"), (LAST, b"d"), "e", b"f" * 200, ""],
)


@BOTH_ROLES
@pytest.mark.parametrize("limit", range(1, 9))
def test_items_come_in_portions(codec: ModuleType, masked: bool, limit: int) -> None:
    decoder = codec.Decoder(masked, 300)
    found = list(portions(decoder, wire(MIXED.frames, masked), limit))
    assert found == [MIXED.items[start : start + limit] for start in range(0, 7, limit)]


def test_nothing_is_pending_where_the_limit_and_the_data_end_together(codec: ModuleType) -> None:
    decoder = codec.Decoder(False, 300)
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


def test_half_a_frame_may_be_pending_and_gives_nothing(codec: ModuleType) -> None:
    decoder = codec.Decoder(False, 300)
    assert decoder.decode(frame(TEXT, b"a", False) + b"\x81\x05He", 1) == ["a"]
    assert decoder.pending
    assert decoder.decode(b"", 1) == []
    assert not decoder.pending
    assert decoder.decode(b"llo", 1) == ["Hello"]


def test_frame_that_was_completed_counts(codec: ModuleType) -> None:
    decoder = codec.Decoder(False, 300)
    assert decoder.decode(b"\x81\x05He", 1) == []
    assert decoder.decode(b"llo" + frame(TEXT, b"a", False), 1) == ["Hello"]
    assert decoder.pending
    assert decoder.decode(b"", 1) == ["a"]


def test_limit_of_0_only_keeps(codec: ModuleType) -> None:
    decoder = codec.Decoder(False, 300)
    data = wire(MIXED.frames, False)
    assert decoder.decode(data[:50], 0) == []
    assert decoder.pending
    assert decoder.decode(data[50:], 0) == []
    assert decoder.pending
    assert seen(decoder.decode(b"", ALL)) == MIXED.items
    assert not decoder.pending


def test_error_is_an_item_and_ends_what_is_pending(codec: ModuleType) -> None:
    decoder = codec.Decoder(False, 300)
    data = wire([(TEXT, b"a"), (0x83, b""), (TEXT, b"b")], False)
    assert list(portions(decoder, data, 1)) == [["a"], [1002]]
    assert not decoder.pending
    assert decoder.decode(data, 1) == []
    assert decoder.plain


def test_plain_tells_of_each_portion(codec: ModuleType) -> None:
    decoder = codec.Decoder(False, 300)
    plain = []
    for _ in portions(decoder, wire(MIXED.frames, False), 1):
        plain.append(decoder.plain)  # noqa: PERF401 - it changes meanwhile
    assert plain == [isinstance(item, (str, bytes)) for item in MIXED.items]


@settings(deadline=None)
@given(data=st.data())
def test_nothing_is_lost_whatever_the_limits_and_whenever_data_comes(codec: ModuleType, data: st.DataObject) -> None:
    case = data.draw(st.sampled_from([MIXED, *CASES.values()]))
    masked = data.draw(st.booleans())
    decoder = decoder_of(codec, case, masked)
    found: list[Seen] = []
    for piece in data.draw(cuts(wire(case.frames, masked))):
        # New data may come while there is something pending.
        limit = data.draw(st.integers(1, 4))
        items = seen(decoder.decode(piece, limit))
        assert len(items) <= limit
        assert not decoder.pending or len(items) == limit
        found += items
    while decoder.pending:
        found += seen(decoder.decode(b"", 2))
    assert found == case.items


def test_65536_one_byte_fragments_come_as_they_are(codec: ModuleType) -> None:
    fragments: Frames = [(TEXT_PART, b"*"), *[(PART, b"*")] * 65_534, (LAST, b"*")]
    decoder = codec.Decoder(True, 65_536)
    assert feed(decoder, [wire(fragments, True)]) == fragments
    assert feed(codec.Decoder(True, 65_535), [wire(fragments, True)]) == [*fragments[:-1], 1009]


def test_what_was_read_is_let_go(codec: ModuleType) -> None:
    # A decoder that has nothing left to read keeps nothing of what it read.
    decoder = codec.Decoder(False, 1 << 20)

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


@settings(deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=400),
        st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=200))).map(
            lambda frames: b"".join(_codec.encode(head, payload, b"\x01\x02\x03\x04") for head, payload in frames)
        ),
    ),
    pieces=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3))),
    masked=st.booleans(),
    compression=st.booleans(),
    straight=st.booleans(),
    max_size=st.sampled_from([0, 10, 150, 10_000]),
)
def test_twins_are_equal_on_any_bytes_in_any_pieces(
    data: bytes,
    pieces: list[tuple[int, int]],
    masked: bool,
    compression: bool,
    straight: bool,
    max_size: int,
) -> None:
    twins = [codec.Decoder(masked, max_size, compression) for codec in (_codec, _compiled)]
    for twin in twins:
        twin.straight = straight
    for size, limit in [*pieces, (len(data), 1000)]:
        piece, data = data[:size], data[size:]
        pure, compiled = (seen(twin.decode(piece, limit)) for twin in twins)
        assert pure == compiled
        assert (twins[0].plain, twins[0].pending) == (twins[1].plain, twins[1].pending)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("length", [(1 << 63) - 1, (1 << 63) - 2, 1 << 62, 1 << 32])
def test_no_length_is_too_large_to_be_refused_behind_a_fragment(codec: ModuleType, length: int, masked: bool) -> None:
    decoder = codec.Decoder(masked, 1000)
    start = frame(BINARY_PART, b"first", masked)
    assert seen(decoder.decode(start + head_of(PART, length, masked), ALL)) == [(BINARY_PART, b"first"), 1009]
