"""Masking, frames out of payloads, and payloads that come in parts: the one module that there is twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_pyjo_ws.wire.masking import Buffer, apply_mask, encode, unmasked

from .raw import KEY, peak_of, xor

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("implementation")

LENGTHS = [*range(20), 125, 126, 1020, 1021, 1022, 1023, 1024, 1025, 1026, 1027, 4096, 70_001]
KEYS = st.binary(min_size=4, max_size=4)
WRONG_KEYS = pytest.mark.parametrize("key", [b"", b"abc", b"abcde"])


def counting(length: int) -> bytes:
    return bytes(index * 7 & 0xFF for index in range(length))


# Masking (RFC 6455, section 5.3)


@pytest.mark.parametrize("length", LENGTHS)
def test_mask_is_the_xor_of_section_5_3(length: int) -> None:
    payload = counting(length)
    masked = xor(payload, KEY)
    for kind in (bytes, bytearray, memoryview):
        assert apply_mask(kind(payload), KEY) == masked
        assert apply_mask(kind(masked), KEY) == payload
    assert payload == counting(length)  # nothing is masked in place
    assert type(apply_mask(bytearray(payload), KEY)) is bytes


@settings(deadline=None)
@given(payload=st.binary(max_size=5000), key=KEYS)
def test_any_payload_is_masked_with_any_key(payload: bytes, key: bytes) -> None:
    assert apply_mask(payload, key) == xor(payload, key)


@WRONG_KEYS
def test_a_key_has_four_bytes(key: bytes) -> None:
    calls: list[Callable[[], object]] = [lambda: apply_mask(b"Hello", key), lambda: encode(0x81, b"Hello", key)]
    if key:  # Without one a part is not masked.
        calls.append(lambda: Buffer().extend_part(b"Hello", 0, 5, key, 0))
    for call in calls:
        with pytest.raises(ValueError, match=f"a masking key must have 4 bytes, not {len(key)}"):
            call()


@pytest.mark.parametrize("length", LENGTHS)
def test_a_payload_is_unmasked_where_it_stands(length: int) -> None:
    payload = counting(length)
    for before in (b"", b"a", b"abc"):
        data = before + KEY + xor(payload, KEY) + b"behind"
        start = len(before) + 4
        assert unmasked(data, start, start + length) == payload


@settings(deadline=None)
@given(data=st.binary(min_size=4, max_size=100), places=st.tuples(st.integers(4, 100), st.integers(4, 100)))
def test_the_four_bytes_before_a_payload_are_its_key(data: bytes, places: tuple[int, int]) -> None:
    start, end = sorted(min(place, len(data)) for place in places)
    assert unmasked(data, start, end) == xor(data[start:end], data[start - 4 : start])


@pytest.mark.parametrize(("start", "end"), [(3, 5), (0, 0), (-1, 5), (5, 4), (4, 11), (11, 11), (4, 1 << 62)])
def test_no_payload_is_read_from_beside_the_data(start: int, end: int) -> None:
    with pytest.raises(ValueError, match=f"no masked payload stands from {start} to {end}"):
        unmasked(b"0123456789", start, end)


# Frames (section 5.2)


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
def test_length_is_encoded_in_its_shortest_form(length: int, start: str) -> None:
    payload = counting(length)
    header = bytearray.fromhex(start)
    assert encode(0x82, payload) == header + payload
    header[1] |= 0x80
    assert encode(0x82, payload, KEY) == header + KEY + xor(payload, KEY)


@pytest.mark.parametrize("head", range(256))
def test_first_byte_is_encoded_as_it_is(head: int) -> None:
    for encoded in (encode(head, b"hi"), encode(head, b"hi" * 100), encode(head, b"hi" * 40_000)):
        assert encoded[0] == head
        assert type(encoded) is bytes
    assert type(encode(head, b"hi" * 1000, KEY)) is bytes


@pytest.mark.parametrize("head", [-1, 256])
def test_first_byte_is_a_byte(head: int) -> None:
    with pytest.raises(ValueError, match=f"the first byte of a frame must be 0 to 255, not {head}"):
        encode(head, b"")


# Payloads that come in parts


def test_a_buffer_gives_all_that_it_was_given_and_begins_anew() -> None:
    buffer = Buffer()
    assert (len(buffer), buffer.take()) == (0, b"")
    for _ in range(2):
        buffer.extend(b"Hel")
        buffer.extend(b"")
        buffer.extend_part(b"??" + xor(b"lo", KEY) + b"??", 2, 4, KEY, 0)
        assert len(buffer) == 5
        found = buffer.take()
        assert (found, type(found)) == (b"Hello", bytes)
        assert (len(buffer), buffer.take()) == (0, b"")


@settings(deadline=None)
@given(
    parts=st.lists(
        st.tuples(
            st.binary(max_size=20) | st.integers(0, 9000).map(counting),
            KEYS | st.sampled_from([None, b""]),
            st.integers(0, 9),
        ),
        max_size=12,
    ),
    taken=st.integers(0, 12),
    rest=st.sampled_from([0, 1, 10_000, 2**63 - 1]),
)
def test_a_buffer_gives_what_it_was_given(parts: list[tuple[bytes, bytes | None, int]], taken: int, rest: int) -> None:
    buffer = Buffer()
    expected = b""
    for number, (part, key, before) in enumerate(parts):
        if number == taken:
            assert buffer.take() == expected
            expected = b""
        if key is None:
            buffer.extend(part)
        else:
            data = bytes(before) + (xor(part, key) if key else part) + b"behind"
            buffer.extend_part(data, before, before + len(part), key, rest)
        expected += part
        assert len(buffer) == len(expected)
    assert buffer.take() == expected


def test_what_was_taken_is_not_changed_by_what_comes() -> None:
    buffer = Buffer()
    for size in (1, 4096, 4097, 100_000):
        buffer.extend(b"a" * size)
        found = buffer.take()
        buffer.extend(b"b" * size)
        assert found == b"a" * size
        assert buffer.take() == b"b" * size


@pytest.mark.parametrize("key", [KEY, b""])
def test_what_is_only_announced_takes_little_memory(key: bytes) -> None:
    buffer, data = Buffer(), bytes(100_000)
    assert peak_of(lambda: buffer.extend_part(data, 0, 100_000, key, 2**62)) < 500_000


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 4), (0, 11), (11, 11), (0, 1 << 62)])
def test_a_buffer_takes_nothing_from_beside_the_data(start: int, end: int) -> None:
    buffer = Buffer()
    with pytest.raises(ValueError, match=f"no payload stands from {start} to {end}"):
        buffer.extend_part(b"0123456789", start, end, KEY, 0)
    assert buffer.take() == b""


def test_a_buffer_grows_with_what_has_come_and_not_much_more() -> None:
    size = 1 << 20
    part = bytes(1000)

    def collect() -> None:
        buffer = Buffer()
        for _ in range(size // len(part)):
            buffer.extend(part)
        assert len(buffer.take()) == size // len(part) * len(part)

    # The growing place has something to spare, and is given away as it is or copied once.
    assert peak_of(collect) < 2 * size + size // 8 + 50_000
