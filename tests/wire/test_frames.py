"""Frames as plain functions over a tuple: the seed's build_frame() and parse_frame()."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_pyjo_ws.errors import RemoteProtocolError
from trio_pyjo_ws.wire.frames import Close, Frame, Opcode, build_frame, long_head, masking_key, parse_frame

from .raw import head_of

BITS = st.booleans()
FRAMES = st.builds(Frame, BITS, BITS, BITS, BITS, st.integers(0, 15), st.binary(max_size=300))

# What the seed page and the tests of Mojolicious build, and the bytes that these give.
SHOWN = {
    "text": ((1, 0, 0, 0, 1, b"whatever"), b"\x81\x08whatever"),
    "binary": ((1, 0, 0, 0, 2, b"works"), b"\x82\x05works"),
    "binary of the seed": ((1, 0, 0, 0, 2, b"Hello World!"), b"\x82\x0cHello World!"),
    "text without FIN": ((0, 0, 0, 0, 1, b"Hello "), b"\x01\x06Hello "),
    "continuation": ((1, 0, 0, 0, 0, b"World!"), b"\x80\x06World!"),
    "continuation without FIN": ((0, 0, 0, 0, 0, b"works"), b"\x00\x05works"),
    "close": ((1, 0, 0, 0, 8, b""), b"\x88\x00"),
    "close with a code": ((1, 0, 0, 0, 8, b"\x03\xe8"), b"\x88\x02\x03\xe8"),
    "ping": ((1, 0, 0, 0, 9, b"Test 123"), b"\x89\x08Test 123"),
    "pong": ((1, 0, 0, 0, 10, b"Test 123"), b"\x8a\x08Test 123"),
    "one byte": ((1, 0, 0, 0, 2, b"a"), b"\x82\x01a"),
    "empty text": ((1, 0, 0, 0, 1, b""), b"\x81\x00"),
    "RSV1": ((1, 1, 0, 0, 2, b"works"), b"\xc2\x05works"),
    "RSV2": ((1, 0, 1, 0, 2, b"works"), b"\xa2\x05works"),
    "RSV3": ((1, 0, 0, 1, 2, b"works"), b"\x92\x05works"),
    "all RSV bits": ((1, 1, 1, 1, 2, b"works"), b"\xf2\x05works"),
    "RSV1 without FIN": ((0, 1, 0, 0, 1, b"works"), b"\x41\x05works"),
    "nothing set": ((0, 0, 0, 0, 0, b""), b"\x00\x00"),
    "everything set": ((1, 1, 1, 1, 15, b""), b"\xff\x00"),
    "the longest short length": ((1, 0, 0, 0, 2, bytes(125)), b"\x82\x7d" + bytes(125)),
    "the shortest 16-bit length": ((1, 0, 0, 0, 2, bytes(126)), b"\x82\x7e\x00\x7e" + bytes(126)),
    "16-bit length": ((1, 0, 0, 0, 1, b"hi" * 10_000), b"\x81\x7e\x4e\x20" + b"hi" * 10_000),
    "the longest 16-bit length": ((1, 0, 0, 0, 2, bytes(65_535)), b"\x82\x7e\xff\xff" + bytes(65_535)),
    "the shortest 64-bit length": ((1, 0, 0, 0, 2, bytes(65_536)), b"\x82\x7f" + b"\0\0\0\0\0\1\0\0" + bytes(65_536)),
    "64-bit length": ((1, 0, 0, 0, 1, b"hi" * 200_000), b"\x81\x7f\0\0\0\0\x00\x06\x1a\x80" + b"hi" * 200_000),
}
SHOWN_FRAMES = pytest.mark.parametrize(("fields", "data"), SHOWN.values(), ids=SHOWN)
Fields = tuple[int, int, int, int, int, bytes]


# Building


@SHOWN_FRAMES
def test_frame_has_exactly_these_bytes(fields: Fields, data: bytes) -> None:
    assert build_frame(*fields) == data


@SHOWN_FRAMES
def test_masked_frame_differs_and_parses_back(fields: Fields, data: bytes) -> None:
    masked = build_frame(*fields, masked=True)
    assert masked != data
    assert len(masked) == len(data) + 4
    assert masked[0] == data[0]
    assert masked[1] == data[1] | 0x80
    buffer = bytearray(masked)
    assert parse_frame(buffer) == fields
    assert buffer == b""


def test_each_masked_frame_has_a_fresh_key() -> None:
    built = {build_frame(1, 0, 0, 0, 2, bytes(8), masked=True) for _ in range(20)}
    assert len(built) == 20
    for frame in built:
        key = frame[2:6]
        assert frame[6:] == key + key  # zeros under the mask show it


def test_masking_key_is_four_bytes_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.urandom", lambda size: b"\x37\xfa\x21\x3d"[:size])
    assert masking_key() == b"\x37\xfa\x21\x3d"
    # RFC 6455, section 5.7: a single-frame masked text message
    assert build_frame(1, 0, 0, 0, 1, b"Hello", masked=True) == bytes.fromhex("818537fa213d7f9f4d5158")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("masked", [False, True])
def test_payload_is_any_bytes_like_object(kind: type, masked: bool) -> None:
    frame = build_frame(1, 0, 0, 0, 2, kind(b"works"), masked=masked)
    assert type(frame) is bytes
    assert parse_frame(bytearray(frame)) == (1, 0, 0, 0, 2, b"works")


@pytest.mark.parametrize("payload", ["text", None, 3, [1, 2]])
def test_payload_that_is_not_bytes_is_a_type_error(payload: object) -> None:
    with pytest.raises(TypeError, match=f"the payload of a frame must be bytes, not {type(payload).__name__}"):
        build_frame(1, 0, 0, 0, 1, payload)  # type: ignore[arg-type]


@pytest.mark.parametrize("opcode", [-1, 16, 0x81, "1", None])
def test_opcode_that_does_not_fit_is_a_value_error(opcode: int) -> None:
    with pytest.raises(ValueError, match=f"integer from 0 to 15, not {opcode!r}"):
        build_frame(1, 0, 0, 0, opcode, b"")


def test_flags_are_whatever_is_true() -> None:
    assert build_frame(2, 4, 0, "", 1, b"") == b"\xc1\x00"  # type: ignore[arg-type]


# Parsing


@SHOWN_FRAMES
def test_frame_is_parsed_and_removed_from_the_buffer(fields: Fields, data: bytes) -> None:
    buffer = bytearray(data + b"\x89\x00rest")
    frame = parse_frame(buffer)
    assert frame == fields
    assert type(frame) is Frame
    assert type(frame.payload) is bytes
    assert buffer == b"\x89\x00rest"


@SHOWN_FRAMES
@pytest.mark.parametrize("masked", [False, True])
def test_incomplete_frame_is_none_and_nothing_is_removed(fields: Fields, data: bytes, masked: bool) -> None:
    data = build_frame(*fields, masked=masked)
    # Every cut in the header and behind it, and one byte short.
    for size in {*range(min(20, len(data))), len(data) - 1}:
        buffer = bytearray(data[:size])
        assert parse_frame(buffer) is None
        assert buffer == data[:size]


@example(frame=Frame(True, False, False, False, 1, bytes(126)), masked=True)
@example(frame=Frame(True, False, False, False, 1, bytes(65_536)), masked=True)
@given(frame=FRAMES, masked=st.booleans())
def test_build_parse_rebuild_is_equal(frame: Frame, masked: bool) -> None:
    buffer = bytearray(build_frame(*frame, masked=masked))
    parsed = parse_frame(buffer)
    assert parsed == frame
    assert buffer == b""
    assert build_frame(*parsed) == build_frame(*frame)


@given(some=st.lists(FRAMES, max_size=5), size=st.integers(1, 50))
def test_frames_come_out_of_a_growing_buffer_in_order(some: list[Frame], size: int) -> None:
    data = b"".join(build_frame(*frame, masked=True) for frame in some)
    buffer = bytearray()
    found = []
    for start in range(0, len(data), size):
        buffer += data[start : start + size]
        while (frame := parse_frame(buffer)) is not None:
            found.append(frame)
    assert found == some
    assert buffer == b""


@pytest.mark.parametrize("data", [b"\x81\x00", memoryview(b"\x81\x00"), "\x81\x00"])
def test_what_a_frame_cannot_be_removed_from_is_a_type_error(data: object) -> None:
    with pytest.raises(TypeError, match=f"removes the frame, not {type(data).__name__}"):
        parse_frame(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [1, 125, 126, 65_535, 65_536, 262_144])
def test_oversize_frame_is_told_at_its_header_and_stays(size: int, masked: bool) -> None:
    payload = bytes(size)
    frame = build_frame(1, 0, 0, 0, 2, payload, masked=masked)
    header = bytearray(frame[: 2 + (0 if size < 126 else 2 if size < 65_536 else 8)])
    expected = bytes(header)
    with pytest.raises(RemoteProtocolError, match=f"a frame of {size} bytes, over the limit of {size - 1}") as caught:
        parse_frame(header, size - 1)
    assert caught.value.code == 1009
    assert header == expected
    assert parse_frame(bytearray(frame), size) == (1, 0, 0, 0, 2, payload)


def test_without_a_limit_any_length_may_come() -> None:
    assert parse_frame(bytearray(b"\x82\x7f" + b"\xff" * 8 + b"some")) is None
    with pytest.raises(RemoteProtocolError, match="over the limit of 0"):
        parse_frame(bytearray(b"\x82\x7f" + b"\xff" * 8 + b"some"), 0)


def test_non_minimal_length_and_reserved_opcode_are_parsed() -> None:
    # parse_frame() reads any frame; the rules of a connection are the state machine's.
    assert parse_frame(bytearray(b"\xf3\x7e\x00\x02hi")) == (1, 1, 1, 1, 3, b"hi")
    assert parse_frame(bytearray(b"\x09\x7f\0\0\0\0\0\0\0\x02hi")) == (0, 0, 0, 0, 9, b"hi")


# The tuples


def test_opcode_is_named_where_the_rfc_names_it() -> None:
    assert [frame.opcode for frame in map(Frame.from_head, range(16), [b""] * 16)] == list(range(16))
    assert Frame.from_head(0x8A, b"").opcode is Opcode.PONG
    assert type(Frame.from_head(0x83, b"").opcode) is int
    assert {opcode.name: opcode.value for opcode in Opcode} == {
        "CONTINUATION": 0,
        "TEXT": 1,
        "BINARY": 2,
        "CLOSE": 8,
        "PING": 9,
        "PONG": 10,
    }


@pytest.mark.parametrize("head", range(256))
def test_head_is_the_first_byte_on_the_wire(head: int) -> None:
    frame = Frame.from_head(head, b"x")
    assert frame.head == head
    assert build_frame(*frame) == bytes([head, 1]) + b"x"
    assert all(type(bit) is bool for bit in frame[:4])


@pytest.mark.parametrize("length", [126, 65_535, 65_536, 1 << 40, (1 << 63) - 1])
def test_long_head_stands_before_a_payload_that_is_not_masked(length: int) -> None:
    assert long_head(0x82, length) == head_of(0x82, length, False)


def test_close_has_a_code_and_perhaps_a_reason() -> None:
    assert Close(1000) == (1000, "")
    assert Close(1001, "bye").reason == "bye"
