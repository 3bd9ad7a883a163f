"""Compressed messages, inflated step by step: their limit, what a call may take, and what they must not be."""

from __future__ import annotations

import sys
import zlib
from sys import getsizeof
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_pyjo_ws.errors import RemoteProtocolError
from trio_pyjo_ws.wire.codec import Decoder
from trio_pyjo_ws.wire.deflate import MAX_STREAMS, Deflate
from trio_pyjo_ws.wire.inflating import STEP, STEP_PRICE, Inflating

from .raw import BAD_TEXTS, BINARY, BINARY_PART, FIN, GOOD_TEXT, LAST, PART, RSV1, TEXT, TEXT_PART, cuts, frame, peak_of

pytestmark = pytest.mark.usefixtures("implementation")

ALL = 1 << 40
Result = tuple[Any, Any, Any]


def deflated(*parts: bytes) -> list[bytes]:
    """The fragments of one compressed message, each of which inflates to just its part."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    found = [compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH) for part in parts]
    return [*found[:-1], found[-1][:-4]]


def stream(part: bytes) -> bytes:
    """A part with BFINAL=1 in its last block."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return compressor.compress(part) + compressor.flush()


BOMB = deflated(bytes(50_000_000))[0]


def opened(max_size: int = 1 << 20, *, head: int = BINARY_PART, claimed: bool = False) -> Result:
    """A decoder in the middle of a compressed message, its inflating, and what it inflates by."""
    decoder = Decoder(False, max_size, True)
    deflate = Deflate().codec(client=True)
    if claimed:
        decoder.arriving.claim()
    decoder.decode(frame(head | RSV1, b"", False), ALL)
    inflating = Inflating(decoder, deflate)
    assert not inflating.active
    return decoder, inflating, deflate


def inflate(inflating: Any, *fragments: bytes, budget: int = ALL) -> Any:
    """Feed the fragments, the last of which ends the message; return what the last call gives."""
    found = None
    for number, fragment in enumerate(fragments, 1):
        assert found is None
        inflating.feed(fragment, number == len(fragments))
        assert inflating.active
        while inflating.active:
            inflating.budget = budget
            found = inflating.advance()
    return found


# Messages


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_a_message_is_given_at_its_end(size: int) -> None:
    for head, message in ((TEXT_PART, GOOD_TEXT * 5), (BINARY_PART, bytes(range(256)))):
        _, inflating, _ = opened(head=head)
        (payload,) = deflated(message.encode() if isinstance(message, str) else message)
        found = inflate(inflating, *(payload[start : start + size] for start in range(0, len(payload), size)))
        assert (found, type(found)) == (message, type(message))


@settings(deadline=None)
@given(data=st.data(), message=st.text(max_size=300) | st.binary(max_size=300), budget=st.sampled_from([1, 30, ALL]))
def test_any_message_in_any_fragments_is_given(data: st.DataObject, message: str | bytes, budget: int) -> None:
    _, inflating, _ = opened(head=TEXT_PART if isinstance(message, str) else BINARY_PART)
    (payload,) = deflated(message.encode() if isinstance(message, str) else message)
    assert inflate(inflating, *data.draw(cuts(payload)), budget=budget) == message


@pytest.mark.parametrize("fragments", [[b"\x00"], [b"", b"\x00"], [b"\x00\x00\x00\xff\xff", b"", b"\x00"]])
def test_an_empty_message(fragments: list[bytes]) -> None:
    for head, expected in ((TEXT_PART, ""), (BINARY_PART, b"")):
        assert inflate(opened(0, head=head)[1], *fragments) == expected


def test_the_next_message_begins_anew() -> None:
    decoder, inflating, _ = opened()
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    for message in ("Hello", b"Hello", "", "Hello"):
        head = TEXT if isinstance(message, str) else BINARY
        text = message.encode() if isinstance(message, str) else message
        payload = compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)
        if not decoder.arriving.begun:
            decoder.decode(frame(head & ~FIN | RSV1, b"", False), ALL)
        elif head == TEXT:
            decoder.arriving.begin(1, True)
        assert inflate(inflating, payload[:-4]) == message


def test_a_message_has_as_many_streams_as_are_allowed() -> None:
    expected = b"a" * MAX_STREAMS
    assert inflate(opened()[1], stream(b"a") * MAX_STREAMS) == expected
    assert inflate(opened()[1], *[stream(b"a")] * MAX_STREAMS) == expected
    with pytest.raises(RemoteProtocolError, match=f"over {MAX_STREAMS} streams") as caught:
        inflate(opened()[1], *[stream(b"a")] * (MAX_STREAMS + 1))
    assert caught.value.code == 1008


# The limit of a message


@pytest.mark.parametrize("limit", [0, 1, 1000, STEP - 1, STEP, STEP + 1, 3 * STEP])
def test_the_limit_is_for_what_a_message_inflates_to(limit: int) -> None:
    assert inflate(opened(limit)[1], *deflated(bytes(limit))) == bytes(limit)
    with pytest.raises(RemoteProtocolError, match=f"a message of more than {limit} bytes") as caught:
        inflate(opened(limit)[1], *deflated(bytes(limit + 1)))
    assert caught.value.code == 1009


@pytest.mark.parametrize("limit", [sys.maxsize, sys.maxsize - 1])
def test_the_limit_may_be_as_large_as_a_number(limit: int) -> None:
    assert inflate(opened(limit)[1], *deflated(b"Hello" * 30_000)) == b"Hello" * 30_000


def test_the_limit_of_a_text_is_for_its_bytes() -> None:
    text = "€😀" * 10
    parts = deflated(*[bytes([byte]) for byte in text.encode()])
    assert inflate(opened(70, head=TEXT_PART)[1], *parts) == text
    with pytest.raises(RemoteProtocolError) as caught:
        inflate(opened(69, head=TEXT_PART)[1], *parts)
    assert caught.value.code == 1009


def test_the_limit_is_looked_at_in_each_fragment() -> None:
    parts = deflated(bytes(600), bytes(401), b"")
    _, inflating, _ = opened(1000)
    inflating.feed(parts[0], False)
    inflating.budget = ALL
    assert inflating.advance() is None
    inflating.feed(parts[1], False)
    with pytest.raises(RemoteProtocolError) as caught:
        inflating.advance()
    assert caught.value.code == 1009


def test_the_limit_may_be_lowered_meanwhile() -> None:
    decoder, inflating, _ = opened(1000)
    inflating.budget = ALL
    inflating.feed(deflated(bytes(600), b"")[0], False)
    assert inflating.advance() is None
    decoder.max_size = 599
    inflating.feed(b"", False)
    with pytest.raises(RemoteProtocolError) as caught:
        inflating.advance()
    assert caught.value.code == 1009


@pytest.mark.parametrize("limit", [0, 1, 10_000])
def test_a_bomb_is_not_inflated_beyond_the_limit(limit: int) -> None:
    _, inflating, deflate = opened(limit)
    codes = []

    def explode() -> None:
        with pytest.raises(RemoteProtocolError) as caught:
            inflate(inflating, BOMB)
        codes.append(caught.value.code)

    assert peak_of(explode) < 600_000
    assert codes == [1009]
    assert deflate.decompressed[1] == limit + 1


# What a call may take


def test_a_call_ends_when_the_budget_is_used_up() -> None:
    decoder, inflating, deflate = opened(1 << 30)
    inflating.feed(BOMB, True)
    for calls in range(1, 5):
        inflating.budget = 2 * STEP + STEP_PRICE
        assert inflating.advance() is None
        assert inflating.active
        assert deflate.decompressed[1] == decoder.arriving.held == 2 * STEP * calls
    inflating.budget = 0
    assert inflating.advance() is None
    assert deflate.decompressed[1] == 8 * STEP
    inflating.budget = 1 << 40
    assert inflating.advance() == bytes(50_000_000)
    assert not inflating.active


@pytest.mark.parametrize("message", [bytes(100_000), "a" * 100_000, "😀" * 25_000])
def test_the_budget_is_of_the_memory_that_messages_take(message: str | bytes) -> None:
    _, inflating, _ = opened(head=TEXT_PART if isinstance(message, str) else BINARY_PART)
    inflating.budget = 1_000_000
    inflating.feed(*deflated(message.encode() if isinstance(message, str) else message), True)
    found = inflating.advance()
    assert found == message
    steps = 100_000 // STEP + 1
    assert inflating.budget == 1_000_000 - (steps + 1) * STEP_PRICE - getsizeof(found)


@pytest.mark.parametrize(
    ("payload", "steps", "copied"),
    [
        (b"", 0, 0),
        (b"\x00\x00\x00\xff\xff", 1, 0),
        (deflated(b"a", b"")[0], 1, 0),
        (stream(b"a") * 9, 9, sum(range(9))),  # Each stream after the first begins with what came before it.
        (stream(bytes(40_000)) + stream(b"") * 9, 10, 9 * 32_768),
    ],
)
def test_each_step_and_each_part_and_each_window_has_a_price(payload: bytes, steps: int, copied: int) -> None:
    _, inflating, deflate = opened()
    inflating.budget = 1_000_000
    inflating.feed(payload, False)
    assert inflating.advance() is None
    assert not inflating.active
    assert inflating.budget == 1_000_000 - (steps + 1) * STEP_PRICE - deflate.decompressed[1] - copied


# Claimed, by somebody who takes it in pieces


def test_a_claimed_message_may_be_of_any_size_and_is_not_given() -> None:
    decoder, inflating, _ = opened(10, claimed=True)
    arriving = decoder.arriving
    inflating.feed(BOMB, True)
    size = calls = 0
    while inflating.active:
        inflating.budget = 1
        assert inflating.advance() is None
        assert arriving.held <= STEP
        calls += 1
        size += len(arriving.take())
    assert size == 50_000_000
    assert calls == 50_000_000 // STEP + 1
    assert arriving.ended
    assert decoder.arriving is not arriving


def test_what_is_thrown_away_is_inflated_and_takes_no_room() -> None:
    decoder, inflating, _ = opened(10, claimed=True)
    decoder.arriving.discard()
    assert peak_of(lambda: inflate(inflating, BOMB)) < 600_000


def test_a_message_over_the_limit_waits_while_holding() -> None:
    decoder, inflating, deflate = opened(1000)
    arriving = decoder.arriving
    decoder.holding = True
    inflating.feed(*deflated(bytes(3000)), True)
    for _ in range(2):
        inflating.budget = ALL
        assert inflating.advance() is None
        assert inflating.active
        assert inflating.held
        assert deflate.decompressed[1] == 1001
    arriving.claim()
    assert inflating.advance() is None
    assert not inflating.active
    assert not inflating.held
    assert arriving.take() == bytes(3000)


def test_held_and_not_wanted_in_pieces_it_is_too_large() -> None:
    decoder, inflating, _ = opened(1000)
    decoder.holding = True
    inflating.feed(*deflated(bytes(1001)), True)
    inflating.budget = ALL
    assert inflating.advance() is None
    assert inflating.held
    decoder.holding = False
    with pytest.raises(RemoteProtocolError) as caught:
        inflating.advance()
    assert caught.value.code == 1009
    assert not inflating.held


# What it must not be


@pytest.mark.parametrize(("text", "bad"), BAD_TEXTS.values(), ids=BAD_TEXTS)
@pytest.mark.parametrize("discarded", [False, True])
def test_bad_text_is_told_when_its_first_bad_byte_has_come(text: bytes, bad: int, discarded: bool) -> None:
    decoder, inflating, _ = opened(head=TEXT_PART, claimed=discarded)
    if discarded:
        decoder.arriving.discard()
    first, second, _ = deflated(text[:bad], text[bad : bad + 1], b"")
    inflating.budget = ALL
    inflating.feed(first, False)
    assert inflating.advance() is None
    inflating.feed(second, False)
    with pytest.raises(RemoteProtocolError, match="text that is not UTF-8") as caught:
        inflating.advance()
    assert caught.value.code == 1007


@pytest.mark.parametrize("size", [1, 2, 3])
def test_text_must_not_end_within_a_character(size: int) -> None:
    with pytest.raises(RemoteProtocolError, match="text that is not UTF-8") as caught:
        inflate(opened(head=TEXT_PART)[1], *deflated(b"ab" + "😀".encode()[:size]))
    assert caught.value.code == 1007


@pytest.mark.parametrize(
    "fragments",
    [
        [b"\xff\xff\xff"],
        [deflated(b"good", b"")[0], b"\x07"],
        [b"\xf2\x48\xcd"],  # torn
        [deflated(b"good", b"")[0], b""],  # nothing behind a whole block: 00 is missing
        [b""],
    ],
)
@pytest.mark.parametrize("claimed", [False, True])
def test_data_that_does_not_inflate(fragments: list[bytes], claimed: bool) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        inflate(opened(claimed=claimed)[1], *fragments)
    assert caught.value.code == 1007


def test_fragments_of_the_decoder_are_what_is_fed() -> None:
    """The whole way, from frames."""
    first, second, third = deflated(b"one ", b"two ", b"three")
    decoder, inflating, _ = opened()
    found = []
    for head, payload in ((PART, first), (PART, second), (LAST, third)):
        for item in decoder.decode(frame(head, payload, False), ALL):
            inflating.feed(item[1], item[0] != 0)
            inflating.budget = ALL
            found.append(inflating.advance())
    assert found == [None, None, b"one two three"]
