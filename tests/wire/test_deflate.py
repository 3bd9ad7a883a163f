"""permessage-deflate: parameters, round trips, and everything a peer may put into a compressed message."""

from __future__ import annotations

import os
import sys
import tracemalloc
import zlib
from importlib import import_module
from itertools import product
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_pyjo_ws.errors import LocalProtocolError, RemoteProtocolError
from trio_pyjo_ws.wire import deflate
from trio_pyjo_ws.wire.deflate import MAX_STREAMS, THRESHOLD, Deflate, PerMessageDeflate, check_can_compress

from .raw import in_pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

TAIL = b"\x00\x00\xff\xff"
HELLO = bytes.fromhex("f248cdc9c90700")  # RFC 7692, section 7.2.3.1
HELLO_AGAIN = bytes.fromhex("f200110000")  # section 7.2.3.2: the same again, by reference to the window
HELLO_FINAL = bytes.fromhex("f348cdc9c90700")  # section 7.2.3.4, without the byte 00 that belongs behind it

try:
    MODULES = {"zlib": zlib, "zlib-ng": import_module("zlib_ng.zlib_ng")}
except ImportError:
    MODULES = {"zlib": zlib}


@pytest.fixture(scope="module", autouse=True, params=list(MODULES.values()), ids=list(MODULES))
def fastest(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """Each zlib that is available: both hold the same contract."""
    module: ModuleType = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deflate, "_fastest", module)
        yield module


DEFLATES = st.builds(
    Deflate,
    server_no_context_takeover=st.booleans(),
    client_no_context_takeover=st.booleans(),
    server_max_window_bits=st.integers(9, 15),
    client_max_window_bits=st.integers(9, 15),
    level=st.integers(-1, 9),
    memory_level=st.integers(1, 9),
)


def receiver(**wishes: bool | int) -> PerMessageDeflate:
    return Deflate(**wishes).codec(client=True)  # type: ignore[arg-type]


def final_stream(payload: bytes, dictionary: bytes = b"") -> bytes:
    """Compress as one stream whose last block has BFINAL=1."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15, zdict=dictionary)
    return compressor.compress(payload) + compressor.flush(zlib.Z_FINISH)


def inflated(codec: PerMessageDeflate, *fragments: bytes, size: int = 1000, end: bool = True) -> bytes:
    """What a message in fragments inflates to, some bytes at a time; with ``end``, it ends behind them."""
    message = b""
    for fragment in fragments:
        codec.feed(fragment)
        while codec.more:
            output = codec.inflate(size)
            assert len(output) <= size
            message += output
    if end:
        codec.end()
    return message


# Parameters


def test_defaults_ask_for_nothing() -> None:
    assert Deflate() == Deflate(
        server_no_context_takeover=False,
        client_no_context_takeover=False,
        server_max_window_bits=15,
        client_max_window_bits=15,
        level=3,
        memory_level=8,
        threshold=128,
    )


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("server_max_window_bits", 7, "8 to 15"),
        ("server_max_window_bits", 16, "8 to 15"),
        ("client_max_window_bits", -9, "8 to 15"),
        ("level", -2, "-1 to 9"),
        ("level", 10, "-1 to 9"),
        ("memory_level", 0, "1 to 9"),
        ("threshold", -1, "0 or more"),
    ],
)
def test_number_out_of_range_is_named(name: str, value: int, accepted: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be {accepted}, not {value}"):
        Deflate(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("server_no_context_takeover", 1),
        ("client_no_context_takeover", None),
        ("server_max_window_bits", "15"),
        ("level", True),
        ("threshold", None),
        ("threshold", 1.5),
    ],
)
def test_parameter_of_another_type_is_named(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"{name} must be .*, not "):
        Deflate(**{name: value})  # type: ignore[arg-type]


def test_each_role_compresses_by_its_own_parameters() -> None:
    agreed = Deflate(server_max_window_bits=9, client_max_window_bits=12, server_no_context_takeover=True)
    client, server = agreed.codec(client=True), agreed.codec(client=False)
    assert (client.compress_window_bits, client.decompress_window_bits) == (12, 9)
    assert (server.compress_window_bits, server.decompress_window_bits) == (9, 12)
    assert (client.compress_no_context_takeover, client.decompress_no_context_takeover) == (False, True)
    assert (server.compress_no_context_takeover, server.decompress_no_context_takeover) == (True, False)


def test_repr_tells_the_parameters() -> None:
    assert repr(Deflate(client_max_window_bits=9).codec(client=True)) == (
        "<PerMessageDeflate compress_no_context_takeover=False compress_window_bits=9 "
        "decompress_no_context_takeover=False decompress_window_bits=15 level=3 memory_level=8 threshold=128>"
    )


# Which zlib serves


def test_chosen_zlib_is_named() -> None:
    assert deflate.zlib_name == deflate._choose()[0]


def test_zlib_ng_is_chosen_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = ModuleType("zlib_ng.zlib_ng")
    monkeypatch.setitem(sys.modules, "zlib_ng", ModuleType("zlib_ng"))
    monkeypatch.setitem(sys.modules, "zlib_ng.zlib_ng", installed)
    for value in ("0", ""):
        monkeypatch.setenv("TRIO_PYJO_WS_PURE", value)
        assert deflate._choose() == ("zlib-ng", installed)
    monkeypatch.setenv("TRIO_PYJO_WS_PURE", "1")
    assert deflate._choose() == ("zlib", zlib)


def test_zlib_serves_where_zlib_ng_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIO_PYJO_WS_PURE", raising=False)
    monkeypatch.setitem(sys.modules, "zlib_ng", None)
    monkeypatch.setitem(sys.modules, "zlib_ng.zlib_ng", None)
    assert deflate._choose() == ("zlib", zlib)


def test_zlib_ng_serves_where_it_takes_no_more_memory_than_was_asked_for(fastest: ModuleType) -> None:
    large, small = receiver(), receiver(client_max_window_bits=12, server_max_window_bits=12, memory_level=5)
    for codec in (large, small):
        codec.compress(b"Hello")
        inflated(codec, HELLO)
    modules = {type(large._compressor).__module__, type(large._decompressor).__module__}
    assert modules == {type(fastest.compressobj()).__module__}
    assert type(small._compressor) is type(zlib.compressobj())
    assert type(small._decompressor) is type(zlib.decompressobj())


def strictly_inflated(data: bytes, window_bits: int) -> bytes:
    """Inflate a few bytes at a time: all at once, zlib would not see a reference beyond the window."""
    decompressor = zlib.decompressobj(-window_bits)
    message = bytearray()
    while output := decompressor.decompress(data, 13):
        message += output
        data = decompressor.unconsumed_tail
    return bytes(message)


@pytest.mark.parametrize("level", range(-1, 10))
def test_every_level_keeps_to_the_window(fastest: ModuleType, level: int) -> None:
    # Not by way of a codec, which has zlib serve for small windows: of these 15 bits cannot be told apart.
    for window_bits, memory_level in product((9, 10, 12), (1, 9)):
        block = os.urandom(300)
        window = 1 << window_bits
        message = block.join(os.urandom(max(0, window + offset - 300)) for offset in (-263, -1, 0, 1, 200, window))
        compressor = fastest.compressobj(level, zlib.DEFLATED, -window_bits, memory_level)
        data = compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert strictly_inflated(data, window_bits) == message


# Compression


def test_bytes_are_those_of_the_rfc() -> None:
    codec = receiver()
    assert codec.compress(b"Hello") == HELLO
    assert codec.compress(b"Hello") == HELLO_AGAIN


def test_without_context_takeover_each_message_stands_alone() -> None:
    codec = receiver(client_no_context_takeover=True)
    assert [codec.compress(b"Hello") for _ in range(3)] == [HELLO] * 3


def test_empty_message_is_one_byte_and_leaves_the_window() -> None:
    codec = receiver()
    assert codec.compress(b"") == b"\x00"
    assert codec.compress(b"Hello") == HELLO
    assert codec.compress(b"") == b"\x00"
    assert codec.compress(b"Hello") == HELLO_AGAIN


def test_behind_a_message_that_was_given_up_the_next_refers_to_nothing() -> None:
    sender, recipient = receiver(), Deflate().codec(client=False)
    assert inflated(recipient, sender.compress(b"Hello")) == b"Hello"
    assert sender.compress_some(b"Goodbye") == b""
    sender.forget()
    payload = sender.compress(b"Hello")
    assert payload == HELLO
    assert inflated(recipient, payload) == b"Hello"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_bytes_is_compressed(kind: type[bytes]) -> None:
    assert receiver().compress(kind(b"Hello")) == HELLO


def test_window_of_8_bits_cannot_compress_but_can_decompress() -> None:
    codec = receiver(client_max_window_bits=8, server_max_window_bits=8)
    assert not codec.can_compress
    with pytest.raises(LocalProtocolError, match="8 bits"):
        codec.compress(b"Hello")
    assert inflated(codec, HELLO) == b"Hello"
    assert receiver(client_max_window_bits=9).can_compress


def test_what_cannot_compress_is_told_by_its_reason() -> None:
    codec = receiver()
    assert check_can_compress(codec) is codec
    with pytest.raises(ValueError, match="has not agreed on permessage-deflate"):
        check_can_compress(None)
    with pytest.raises(ValueError, match="agreed with a window of 8 bits"):
        check_can_compress(receiver(client_max_window_bits=8))


def test_zlib_objects_exist_only_while_they_are_needed() -> None:
    codec = receiver(client_no_context_takeover=True, server_no_context_takeover=True)
    assert (codec._compressor, codec._decompressor) == (None, None)
    codec.compress(b"Hello")
    inflated(codec, HELLO[:3], end=False)
    assert codec._compressor is None
    assert codec._decompressor is not None
    inflated(codec, HELLO[3:])
    assert codec._decompressor is None
    assert not codec._recent


def memory_of_ten(messages: list[bytes], **wishes: bool | int) -> float:
    """KiB that a pair of codecs holds which has taken each of these messages both ways."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        pairs = []
        for _ in range(10):
            pair = receiver(**wishes), Deflate(**wishes).codec(client=False)  # type: ignore[arg-type]
            for message in messages:
                for sender, recipient in (pair, pair[::-1]):
                    inflated(recipient, sender.compress(message), size=len(message))
            pairs.append(pair)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (after - before) / len(pairs) / 2 / 1024


def test_memory_of_an_idle_codec() -> None:
    messages = [b"Hello " * 1000, os.urandom(50_000)]
    alone = {"client_no_context_takeover": True, "server_no_context_takeover": True}
    assert memory_of_ten([]) < 1
    assert memory_of_ten(messages, **alone) < 1
    assert 290 < memory_of_ten(messages) < 400
    assert memory_of_ten(messages, client_max_window_bits=9, server_max_window_bits=9, memory_level=1) < 20


def test_threshold_is_the_caller_s_to_heed() -> None:
    assert receiver().threshold == THRESHOLD
    assert receiver(threshold=1).compress(b"") == b"\x00"


def test_kind_is_what_the_bytes_depend_on() -> None:
    assert receiver(client_no_context_takeover=True, client_max_window_bits=9).kind == (9, 3, 8, 128)
    assert receiver(server_no_context_takeover=True).kind is None


# Round trips


@settings(deadline=None)
@given(
    agreed=DEFLATES,
    messages=st.lists(st.binary(max_size=300) | st.integers(0, 9_000).map(bytes), max_size=5),
    size=st.integers(1, 50),
    steps=st.sampled_from([1, 30, 70_000]),
    client=st.booleans(),
)
def test_any_message_in_any_fragments_comes_back(
    agreed: Deflate, messages: list[bytes], size: int, steps: int, *, client: bool
) -> None:
    sender, recipient = agreed.codec(client=client), agreed.codec(client=not client)
    for message in messages:
        assert inflated(recipient, *in_pieces(sender.compress(message), size), size=steps) == message


def test_fragment_without_data_is_nothing() -> None:
    codec = receiver()
    assert inflated(codec, b"", end=False) == b""
    assert inflated(codec, HELLO, end=False) == b"Hello"
    assert inflated(codec, b"") == b""
    assert inflated(codec, HELLO_AGAIN) == b"Hello"


def test_what_was_compressed_and_inflated_is_counted() -> None:
    codec = receiver()
    assert (codec.compressed, codec.decompressed) == ((0, 0), (0, 0))
    codec.compress(b"Hello")
    assert inflated(codec, HELLO[:3], HELLO[3:], size=2) == b"Hello"
    assert codec.compressed == (5, len(HELLO))
    assert codec.decompressed == (len(HELLO), 5)


# Step by step


@pytest.mark.parametrize("size", [1, 2, 4, 5, 6])
def test_a_step_gives_no_more_than_it_may(size: int) -> None:
    codec = receiver()
    codec.feed(HELLO)
    found = []
    while codec.more:
        found.append(codec.inflate(size))
    codec.end()
    assert b"".join(found) == b"Hello"
    assert all(len(output) == size for output in found[:-1])
    # That the last byte was the last is told by one more step, which may give nothing.
    assert len(found) == 5 // size + 1


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("size", [100, 1 << 20])
def test_bomb_is_inflated_as_far_as_it_is_asked_for(size: int, *, takeover: bool) -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15).compress(bytes(1 << 26))
    assert len(bomb) > 1 << 15
    codec = receiver(server_no_context_takeover=not takeover)
    inflated(codec, HELLO)
    codec.feed(bomb[:size])
    for _ in range(3):
        assert codec.inflate(10_000) == bytes(10_000)
        assert codec.more
        assert codec._decompressor is not None
        # 100 bytes of the bomb give some 100,000: what zlib has not taken in shows that it stopped.
        assert len(codec._decompressor.unconsumed_tail) > min(size, len(bomb)) - 90


# Data that is not right


@pytest.mark.parametrize(
    "payload",
    [
        b"\x07",  # a block of the reserved type 3
        b"\x01\x05\x00\x00\x00Hello",  # a stored block whose length is not repeated right
        HELLO_FINAL + b"\x07",
    ],
)
def test_data_that_is_not_deflate_is_invalid(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="does not decode") as caught:
        inflated(receiver(), payload)
    assert caught.value.code == 1007


def test_reference_beyond_the_window_is_invalid() -> None:
    with pytest.raises(RemoteProtocolError, match="too far back") as caught:
        inflated(receiver(), HELLO_AGAIN)
    assert caught.value.code == 1007


@pytest.mark.parametrize(
    "payload",
    [
        b"",  # an empty message is 00
        HELLO[:3],  # torn in a block with fixed codes
        b"\x00\x05\x00\xfa\xffHel",  # torn in a stored block
        HELLO_FINAL + HELLO[:3],
        b"\x03",  # torn in an empty block with BFINAL=1, which the tail would complete
        HELLO + b"\x03",
    ],
)
def test_message_that_ends_in_a_block_is_invalid(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        inflated(receiver(), payload)
    assert caught.value.code == 1007


@settings(deadline=None)
@given(payload=st.binary(max_size=100), end=st.booleans(), size=st.sampled_from([1, 7, 300]))
def test_any_bytes_give_data_or_one_kind_of_error(payload: bytes, size: int, *, end: bool) -> None:
    code = None
    try:
        inflated(receiver(), payload, size=size, end=end)
    except RemoteProtocolError as error:
        code = error.code
    assert code in {None, 1007}


# BFINAL=1 (RFC 7692, section 7.2.3.4)


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("behind", [b"\x00", b""], ids=["as in the RFC", "without the byte 00"])
def test_message_of_a_final_block_and_the_next_are_right(behind: bytes, size: int) -> None:
    codec = receiver()
    assert inflated(codec, *in_pieces(HELLO_FINAL + behind, size)) == b"Hello"
    assert inflated(codec, *in_pieces(HELLO, size)) == b"Hello"
    assert inflated(codec, *in_pieces(HELLO_AGAIN, size)) == b"Hello"


def test_last_fragment_without_data_may_follow_a_final_block() -> None:
    codec = receiver()
    assert inflated(codec, HELLO_FINAL, b"") == b"Hello"
    assert inflated(codec, HELLO) == b"Hello"


def test_without_context_takeover_nothing_of_a_final_block_stays() -> None:
    codec = receiver(server_no_context_takeover=True)
    assert inflated(codec, HELLO_FINAL) == b"Hello"
    with pytest.raises(RemoteProtocolError):
        inflated(codec, HELLO_AGAIN)


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_window_outlives_a_final_block(size: int) -> None:
    first, second = os.urandom(100_000), os.urandom(40_000)
    # The second stream refers back to what the first one gave, as far as a window reaches.
    message = final_stream(first) + final_stream(first[-30_000:] + second, first[-32_768:])
    assert len(message) < len(first) + len(second) + 10_000
    codec = receiver()
    expected = first + first[-30_000:] + second
    assert inflated(codec, *in_pieces(message, size)) == expected
    after = zlib.compressobj(6, zlib.DEFLATED, -15, zdict=second[-32_768:])
    reference = after.compress(second[-20_000:]) + after.flush(zlib.Z_SYNC_FLUSH)
    assert len(reference) < 1000
    assert inflated(codec, reference.removesuffix(TAIL)) == second[-20_000:]


@settings(deadline=None)
@given(
    messages=st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=6), min_size=1, max_size=3),
    size=st.integers(1, 60),
)
def test_streams_one_behind_the_other_are_one_message(messages: list[list[bytes]], size: int) -> None:
    codec = receiver()
    for parts in messages:
        payload = b"".join(map(final_stream, parts))
        assert inflated(codec, *in_pieces(payload, size)) == b"".join(parts)


def test_message_has_a_bounded_number_of_streams() -> None:
    # Each makes zlib begin anew, so two bytes of one, many thousand times, would keep the receiver busy for seconds.
    codec = receiver()
    for _ in range(2):
        assert inflated(codec, HELLO_FINAL * MAX_STREAMS + HELLO) == b"Hello" * (MAX_STREAMS + 1)
        assert inflated(codec, *[HELLO_FINAL] * MAX_STREAMS) == b"Hello" * MAX_STREAMS
    with pytest.raises(RemoteProtocolError, match=f"a compressed message of over {MAX_STREAMS} streams") as caught:
        inflated(codec, HELLO_FINAL * (MAX_STREAMS + 1))
    assert caught.value.code == 1008
